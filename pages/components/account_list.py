"""Who there is, for the admin: a row each; the chosen one's role, address and password, its lock, and the end of it; and new ones."""

from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from backend.jobs import people
from pages.components import plant, text, words

ROLES = ("manager", "engineer", "admin")
HELP = "  \n".join(f"**{role}**: {may}" for role, may in people.ROLES.items())


def show() -> None:
    _said()
    rows = people.listed()
    with st.popover("Add somebody", icon=":material/person_add:", key="add_account"):
        _new()
    state = st.dataframe(table(rows), hide_index=True, key=f"accounts_{len(rows)}", on_select="rerun", selection_mode="single-row",
                         alt="Accounts with their roles", column_config={"Name": st.column_config.TextColumn(pinned=True)})
    at = (state["selection"]["rows"] or [None])[0]
    if at is None:
        st.caption("Choose somebody to change the role or the password, or when the person leaves. "
                   "How somebody judges pictures is no matter of this page: it is seen on Review, by that person and by admins alone.")
    else:
        _one(rows[at])


def table(rows: list[people.Account]) -> pd.DataFrame:
    return pd.DataFrame({
        "Name": [a.name for a in rows], "Role": ["left" if a.closed else a.role or "none yet" for a in rows],
        "Signs in with": [" and ".join(filter(None, ("a password" if a.password else "", a.address))) for a in rows],
        "Since": [text.day(plant.local(datetime.fromisoformat(a.made_at))) for a in rows],
        "State": [f"locked until {plant.local(until):%H:%M}" if (until := people.locked_until(a.name)) else "" for a in rows]})


def _new() -> None:
    with st.form("new_account", border=False, clear_on_submit=True):
        name = st.text_input("Name", max_chars=60, key="new_name")
        role = st.selectbox("Role", ROLES, key="new_role", help=HELP)
        password = st.text_input("First password", type="password", autocomplete="new-password", key="new_password",
                                 help="Tell it to the person, who changes it under My account. Empty where the person signs in elsewhere.")
        address = st.text_input("Mail address, for a sign-in with the company's account", max_chars=200, key="new_address")
        if st.form_submit_button("Add", type="primary"):
            _now(f"{name.strip()} can sign in now.", people.add, name, role, password, address)


def _one(account: people.Account) -> None:
    with st.container(border=True, width=620, key="chosen_account"):
        st.markdown(f"##### {words.plain(account.name, 60)}")
        if account.closed:
            st.caption("This person has left. The name stays beside what the person decided, so nobody else can have it.")
            st.button("Let the person in again", key="open_account", icon=":material/person:", on_click=_do,
                      args=(f"{account.name} can sign in again.", people.open_again, account.name))
            return
        _settings(account)
        with st.container(horizontal=True, vertical_alignment="center"):
            if people.locked_until(account.name):
                st.button("Take the lock off", key="unlock_account", icon=":material/lock_open:", on_click=_do,
                          args=(f"{account.name} can try again now.", people.unlock, account.name))
            with st.popover("New password", icon=":material/key:", key="reset_password"):
                _password(account)
            with st.popover("The person has left", icon=":material/person_off:", key="close_account"):
                st.markdown("No sign-in from now on; open sessions end at once. Nothing that the person decided changes.")
                st.button("Close the account", type="primary", key="close_account_now", on_click=_do,
                          args=(f"{account.name} cannot sign in any more.", people.close, account.name))


def _settings(account: people.Account) -> None:
    with st.form(f"account_{account.key}", border=False):
        role = st.selectbox("Role", ("", *ROLES), ("", *ROLES).index(account.role), key=f"role_{account.key}", help=HELP,
                            format_func=lambda v: v or "none yet")
        address = st.text_input("Mail address, for a sign-in with the company's account", account.address, max_chars=200,
                                key=f"address_{account.key}")
        if st.form_submit_button("Save", type="primary"):
            _now(f"{account.name}: saved.", people.change, account.name, role, address)


def _password(account: people.Account) -> None:
    with st.form(f"password_{account.key}", border=False, clear_on_submit=True):
        new = st.text_input("New password", type="password", autocomplete="new-password", key=f"new_password_{account.key}")
        st.caption("Sessions of this person end. Tell the person the new one.")
        if st.form_submit_button("Set it", type="primary"):
            _now(f"{account.name} has a new password.", people.change, account.name, None, None, new)


def _now(said: str, change: Any, *args: Any) -> None:
    """From a form, which is read while the page runs."""
    _do(said, change, *args)
    st.rerun()


def _do(said: str, change: Any, *args: Any) -> None:
    """Carry a change out and say so at the next run, or why not."""
    try:
        change(*args)
        st.session_state["accounts_said"] = (said, "")
    except jobs.DiffspectError as error:
        st.session_state["accounts_said"] = ("", str(error))


def _said() -> None:
    done, failed = st.session_state.pop("accounts_said", ("", ""))
    if done:
        st.success(words.plain(done, 300), icon=":material/check_circle:")
    if failed:
        st.error(words.plain(failed, 600), icon=":material/error:")
