"""One's own account: name, role and what it lets one do, until when the session lasts, the password, and the way out."""

import streamlit as st

from backend import jobs
from backend.jobs import people
from pages.components import person, plant, sign_in, words

KINDS = {"account": "with a password", "oidc": "with your company's account"}


def show() -> None:
    who = person.who()
    until = people.until(person.token())
    lasts = f", until {plant.local(until):%H:%M}" if until and who.role else ""         # the plant's clock is the plant's
    with st.container(border=True, width=520, key="own_account"):
        st.markdown(f"##### {words.plain(who.name, 60)}")
        st.markdown(f"Role: **{who.role or 'none yet'}**. " + (f"Somebody with this role {people.ROLES[who.role]}." if who.role else
                                                                 "An admin gives one on this page."))
        st.caption(f"Signed in {KINDS.get(who.kind, '')}{lasts}. Your name stands beside what you decide; figures of how you judge "
                   "pictures are seen by you and by admins alone.")
        st.button("Sign out", icon=":material/logout:", key="sign_out", on_click=sign_in.out)
    if who.kind == "account":
        _password()


def _password() -> None:
    with st.form("own_password", width=520, clear_on_submit=True):
        st.markdown("##### Change your password")
        old = st.text_input("Password so far", type="password", autocomplete="current-password", key="password_old")
        new = st.text_input("New password", type="password", autocomplete="new-password", key="password_new",
                            help="10 characters or more. A sentence is easily remembered and hard to guess.")
        again = st.text_input("New password again", type="password", autocomplete="new-password", key="password_again")
        sent = st.form_submit_button("Change it", type="primary")
    if sent and new != again:
        st.error("The two new passwords differ.", icon=":material/error:")
    elif sent:
        _change(old, new)


def _change(old: str, new: str) -> None:
    try:
        sign_in.begun(people.change_password(old, new))
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.success("Your password is changed. Other browsers that you were signed in with are signed out.", icon=":material/check_circle:")
