"""A question in a dialog that stays open until it is answered or dismissed, whatever else runs the page again.

Which one is open stands in the session, because a dialog that hangs on a click alone is gone at the next run of the page.
"""

from collections.abc import Callable
from typing import Any, Literal

import streamlit as st

_KEY = "asked"


def question(name: str, label: str, title: str, body: Callable[[], None], width: Literal["small", "medium", "large"] = "small",
             **look: Any) -> None:
    """A button, and the dialog behind it: `body()` under `title`."""
    st.button(label, key=f"ask_{name}", on_click=st.session_state.__setitem__, args=(_KEY, name), **look)
    if st.session_state.get(_KEY) == name:
        st.dialog(title, width=width, on_dismiss=answered)(body)()


def answered() -> None:
    """Close what is open, at the next run."""
    st.session_state.pop(_KEY, None)
