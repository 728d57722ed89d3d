"""A change that was just made, and the one click that takes it back.

A toast cannot carry a button, so the line stays on the page until it is used, dismissed, or followed by the next change.
"""

from collections.abc import Iterable
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import ask, words

_KEY = "last_change"
_TURN = "changes_made"


def record(text: str, recipe: str, configs: Iterable[dict[str, Any]], plant: str) -> None:
    """Record one event for each config, offer to undo them together, run the page again. `text` is plain, not Markdown."""
    record_all(text, [(recipe, config) for config in configs], plant)


def record_all(text: str, events: Iterable[tuple[str, dict[str, Any]]], plant: str, by: str = "") -> None:
    """The same for events of several recipes. `by`: who says so."""
    try:
        made = [jobs.record(recipe, config, plant=plant, by=by) for recipe, config in events]
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")
        return
    st.session_state[_KEY] = (text, made)
    st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1
    ask.answered()
    st.rerun()                                  # the whole page: the line stands outside the fragment that asked


def form(key: str) -> str:
    """Key of a form that is empty again once what it says is recorded, and not where that was refused: what was typed stays then."""
    turn = st.session_state.get(_TURN, 0)
    return f"{key}_{turn}" if turn else key


def bar() -> None:
    """The last change with its Undo; nothing if there was none."""
    if _KEY not in st.session_state:
        return
    text, made = st.session_state[_KEY]
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="undo_bar"):
        st.markdown(f":material/check_circle: {words.plain(text)}", width="content")
        if made:
            st.button("Undo", key="undo_last", icon=":material/undo:", on_click=take_back, args=(made,))
        st.button("Close", key="undo_close", type="tertiary", on_click=st.session_state.pop, args=(_KEY, None))


def take_back(made: list[str], text: str = "Taken back.") -> None:
    """Undo these changes, the last one first, and run the page again."""
    try:
        for run_id in reversed(made):
            jobs.undo(run_id)
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")
        return
    st.session_state[_KEY] = (text, [])
    ask.answered()
    st.rerun()
