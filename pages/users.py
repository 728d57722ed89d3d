"""Users: one's own account; and for the admin, who there is with which role, and the audit log. Without accounts, how to set them up."""

import streamlit as st

from backend.jobs import people
from pages.components import account_list, account_own, account_setup, audit_view, person, plant

VIEWS = {"My account": account_own.show, "Users": account_list.show, "Audit log": audit_view.show}


def users() -> None:
    if not people.there():
        account_setup.show()
        return
    if not person.may("users"):
        account_own.show()
        return
    view = st.segmented_control("View", list(VIEWS), default="Users", required=True, key="users_view", bind="query-params",
                                label_visibility="collapsed")
    VIEWS[view]()


st.title("Users" if not people.there() or person.may("users") else "My account", anchor=False)
with plant.sound():
    users()
