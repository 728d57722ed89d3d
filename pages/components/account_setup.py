"""Before there is any account: that the product is for one person on this machine, and how the first admin is made.

Only who sits at this machine may: `entrance.here` of the browser's own request. From then on everybody signs in.
"""

import streamlit as st

from backend import jobs
from backend.jobs import entrance, people
from pages.components import sign_in, words


def show() -> None:
    st.markdown(":material/computer: **For one person, at this machine only.** Nobody has set up accounts, so whoever opens Diffspect here "
                "may do everything, and no other machine can reach it.")
    st.caption("To let others in, each by name and with a role, set up the first account. It is an admin's, who then adds the others. From "
               "then on everybody signs in.")
    if not here():
        st.info("The first account is made at the machine itself.", icon=":material/lock:")
        return
    with st.form("first_account", width=420):
        st.markdown("##### Set up the first account")
        name = st.text_input("Your name", max_chars=60, autocomplete="username", key="first_name",
                             help="It stands beside what you decide, so others know it.")
        password = st.text_input("Password", type="password", autocomplete="new-password", key="first_password",
                                 help="10 characters or more. A sentence is easily remembered and hard to guess.")
        again = st.text_input("Password again", type="password", autocomplete="new-password", key="first_again")
        if st.form_submit_button("Set up and sign in", type="primary"):
            _set_up(name, password, again)


def here() -> bool:
    """Whether the browser is on this machine."""
    headers = {name.lower(): value for name, value in st.context.headers.items()}
    away = st.context.ip_address                             # None for this machine, as Streamlit has it
    return entrance.here(entrance.Request(str(away) if isinstance(away, str) else "127.0.0.1", False, headers, False))


def _set_up(name: str, password: str, again: str) -> None:
    if password != again:
        st.error("The two passwords differ.", icon=":material/error:")
        return
    try:
        sign_in.begun(people.set_up(name, password, here()))
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.rerun()
