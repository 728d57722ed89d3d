"""The sign-in: name and password, or a sign-in provider where one is configured. Stands in place of every page until somebody is in.

`passed` is asked by the frame at every run, and carries the browser's cookie over: a page's script hands a ticket to `/session`.
"""

from datetime import UTC, datetime
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from backend import jobs
from backend.jobs import people
from pages.components import person, words

_TICKET, _ENDED, _WHO = "session_ticket", "session_ended", "session_of"
PAUSE_S = 20.0                         # between two looks whether the session of an open page is over
_SCRIPT = "<script>fetch('{base}/session{what}', {{method: 'POST', body: '{ticket}', credentials: 'same-origin'}})</script>"


def passed() -> bool:
    """Whether a page may be shown; where not, the sign-in is."""
    if not people.there():
        return True
    slot = st.empty()                                            # always there, so that nothing below it moves when a script comes or goes
    try:
        person.who()
    except jobs.AccessError:
        _over(slot)
        if (why := _by_provider()) is not None:                  # who is let in goes on in this very run, to the page of the link
            _ask(why)
            return False
    except jobs.DiffspectError as error:                         # the list of accounts cannot be read: nobody gets in
        words.sorry(error)
        return False
    _carry(slot)
    st.fragment(_still, run_every=PAUSE_S)()
    return True


def _over(slot: DeltaGenerator) -> None:
    st.session_state.pop(person.TOKEN, None)
    if st.session_state.pop(_ENDED, None):
        _script(slot, "/end")


def _carry(slot: DeltaGenerator) -> None:
    """Until the browser has its cookie: a run that is overtaken by the next may never have reached it."""
    if not people.pending(st.session_state.get(_TICKET, "")):
        return
    _script(slot, "", st.session_state[_TICKET])


def _script(slot: DeltaGenerator, what: str, ticket: str = "") -> None:
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    slot.html(_SCRIPT.format(base=f"/{path}" if path else "", what=what, ticket=ticket), unsafe_allow_javascript=True)


def _still() -> None:
    """A page that is left open does not outlive its session."""
    try:
        person.who()
    except jobs.DiffspectError:
        st.rerun()


def begun(token: str) -> None:
    """Somebody is in: this page goes on with the token, and the browser is given its cookie."""
    st.session_state[person.TOKEN] = token
    st.session_state[_TICKET] = people.ticket(token)
    if st.session_state.get(_WHO, name := person.named()) != name:       # at a shift change: whose uploads, skips and Undo these were
        for key in set(map(str, st.session_state)) - {person.TOKEN, _TICKET, _ENDED}:
            del st.session_state[key]
    st.session_state[_WHO] = name


def out() -> None:
    """End the session, in all tabs of this browser; with a sign-in provider, there too."""
    people.sign_out(person.token(), *(_said() if st.user.get("is_logged_in") else ()))
    st.session_state[person.TOKEN], st.session_state[_ENDED] = "", True
    if st.user.get("is_logged_in"):
        st.logout()


# ---- the form

def _ask(refused: str) -> None:
    """`refused`: why the provider's word is not enough, '' where it says nothing."""
    with st.container(horizontal_alignment="center"), st.container(width=420, key="sign_in"):
        st.title("Diffspect", anchor=False)
        if configured():
            _elsewhere(refused)
        with st.form("sign_in_form"):
            st.markdown("##### Sign in")
            name = st.text_input("Name", max_chars=60, autocomplete="username", key="sign_in_name")
            password = st.text_input("Password", type="password", autocomplete="current-password", key="sign_in_password")
            sent = st.form_submit_button("Sign in", type="primary", width="stretch")
        if sent:
            _try(name, password)
        st.caption("A session lasts twelve hours. Who has no account asks an admin.")


def _try(name: str, password: str) -> None:
    try:
        begun(people.sign_in(name, password))
    except jobs.DiffspectError as error:
        st.error(words.plain(error, 600), icon=":material/lock:")
        return
    st.rerun()


# ---- a sign-in provider (OIDC)

def configured() -> bool:
    """Whether `.streamlit/secrets.toml` has a section [auth]."""
    return any(Path(p).exists() for p in st.get_option("secrets.files")) and "auth" in st.secrets


def _said() -> tuple[str, datetime]:
    """The address that the sign-in provider gave, and when. Streamlit reads it when a tab connects, and keeps it whatever other tabs do."""
    return str(st.user.get("email") or ""), datetime.fromtimestamp(int(str(st.user.get("iat") or 0)), UTC)


def _by_provider() -> str | None:
    """None where the provider's word lets this page in; else why not, '' where it says nothing that counts."""
    if not configured() or not st.user.get("is_logged_in") or people.signed_out(*_said()):
        return ""
    address, issued = _said()
    try:
        begun(people.sign_in_elsewhere(address, bool(st.user.get("email_verified")), issued))
    except jobs.DiffspectError as error:
        return words.plain(error, 600)
    return None


def _elsewhere(refused: str) -> None:
    if refused:
        st.info(refused, icon=":material/lock:")
        st.button("Sign out there", key="sign_out_oidc", on_click=st.logout)
        return
    st.button("Sign in with your company's account", type="primary", icon=":material/login:", width="stretch", key="sign_in_oidc",
              on_click=st.login)
    st.caption("or with a name and password of this machine")
