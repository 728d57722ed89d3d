"""How many people look at this server now, and so how seldom a page may draw itself anew.

While a folder is watched something comes in every second. With thirty screens on the wall, each would be drawn thirty times in half a
minute, and nobody who clicks would get an answer. So all that pages do by themselves costs two drawings a second, shared among them, and
less from eight pages on: thirty that click leave half a drawing a second (one takes 0.1 to 0.4 s of the one core that draws).
"""

from streamlit import runtime

A_SECOND, MANY = 2.0, 8


def sessions() -> int:
    """Open pages; 0 where no server runs, as in tests."""
    manager = getattr(runtime.get_instance(), "_session_mgr", None) if runtime.exists() else None
    return int(manager.num_active_sessions()) if manager is not None else 0


def rest_s() -> float:
    """So long a page stands as it was drawn: half a second for each that is open, 4 s at eight, a minute at thirty."""
    open_now = sessions()
    return open_now / A_SECOND * max(1.0, open_now / MANY)
