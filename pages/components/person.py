"""Who sits at this browser: asked by `backend.jobs` at each call, by pages for what they show and what they put out of reach.

The session's token is in the cookie that the browser sent when it connected, or, from the sign-in until the page is loaded anew, in
Streamlit's session. Fragments and callbacks are asked alike. What Streamlit carries out in another thread, as a download that is made when
it is clicked, is given the token that it was offered with: `keeping`.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from backend import jobs
from backend.jobs import needs

P = ParamSpec("P")
R = TypeVar("R")
TOKEN = "session_token"
_kept: ContextVar[str] = ContextVar("token", default="")


def token() -> str:
    """Of the session that this call belongs to; '' where there is none."""
    if _kept.get() or get_script_run_ctx(suppress_warning=True) is None:
        return _kept.get()
    own = st.session_state.get(TOKEN)
    sent = own if own is not None else st.context.cookies.get(jobs.people.cookie(), "")
    return sent if isinstance(sent, str) else ""


def _asked() -> needs.Person | None:
    said = token()
    return jobs.people.person(said) if said else None


needs.asked_of(_asked)                 # as soon as any page is imported: whoever is not found here is nobody


def who() -> needs.Person:
    """Raises AccessError where somebody has to sign in first."""
    found: needs.Person = jobs.people.me()
    return found


def named() -> str:
    """The name of whoever is signed in; '' while there are no accounts. For keys of what is remembered between runs."""
    return who().name


def may(need: str) -> bool:
    return who().may(need)


def why_not(need: str) -> str:
    """In one sentence; '' where the person may."""
    return "" if may(need) else needs.why_not(who(), need)


def barred(need: str) -> dict[str, Any]:
    """What a button is given beside its other settings: nothing, or out of reach with the reason."""
    why = why_not(need)
    return dict(disabled=True, help=why) if why else {}


def told(need: str) -> bool:
    """Whether the person may; where not, the reason stands on the page."""
    why = why_not(need)
    if why:
        st.caption(f":material/lock: {why}")
    return not why


def keeping(fn: Callable[P, R]) -> Callable[P, R]:
    """The same, done in the name of whoever it was offered to, in whichever thread."""
    said = token()

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before = _kept.set(said)
        try:
            return fn(*args, **kwargs)
        finally:
            _kept.reset(before)

    return call


def your_name(remembered: str = "", **style: Any) -> str:
    """Whose name is kept beside what is said: typed while there are no accounts, else that of whoever is signed in."""
    if jobs.people.there():
        st.caption(f":material/person: As {who().name}")
        return who().name
    return str(st.text_input("Your name", remembered, max_chars=60, **style)).strip()


def took_away(what: str) -> None:
    """A callback: something that the page holds is taken away; the audit log is told."""
    try:
        jobs.exported(what)
    except jobs.DiffspectError as error:
        st.toast(str(error), icon=":material/error:")
