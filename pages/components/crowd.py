"""How many people look at this server now, and so how seldom a page may draw itself anew.

While a folder is watched something comes in every second. With thirty screens on the wall, each would be drawn thirty times in half a
minute, and nobody who clicks would get an answer. So all that pages do by themselves costs two drawings a second, shared among them, and
less from eight pages on: thirty that click leave half a drawing a second (one takes 0.1 to 0.4 s of the one core that draws).

And a page that takes long to draw, because the machine is busy, is drawn seldom: else two open tabs keep two cores for themselves, and
the inspection that they show waits (200 pictures took 13 s of two cores where 4 were enough).
"""

import time

import streamlit as st
from streamlit import runtime

A_SECOND, MANY = 2.0, 8
SHARE, MOST_S = 2.0, 10.0          # it rests so many times as long as its last drawing took, and so long at most
_KEPT = "crowd_drawn"              # in the session: when this page was drawn last, and how long that took


def sessions() -> int:
    """Open pages; 0 where no server runs, as in tests."""
    manager = getattr(runtime.get_instance(), "_session_mgr", None) if runtime.exists() else None
    return int(manager.num_active_sessions()) if manager is not None else 0


def rest_s() -> float:
    """So long a page stands as it was drawn: half a second for each that is open, 4 s at eight, a minute at thirty."""
    open_now = sessions()
    return open_now / A_SECOND * max(1.0, open_now / MANY)


def begun() -> float:
    """A page begins to be drawn. Returns the moment, for `drawn`."""
    began = time.monotonic()
    st.session_state[_KEPT] = (began, took_s())
    return began


def drawn(began: float) -> None:
    """It is there."""
    st.session_state[_KEPT] = (now := time.monotonic(), now - began)


def took_s() -> float:
    """The last whole drawing."""
    return float(st.session_state.get(_KEPT, (0.0, 0.0))[1])


def since_s() -> float:
    """How long the page stands as it was drawn."""
    return float(time.monotonic() - st.session_state.get(_KEPT, (0.0, 0.0))[0])


def rested() -> bool:
    """Whether a page may draw itself anew by now."""
    return bool(since_s() >= max(rest_s(), min(MOST_S, SHARE * took_s())))
