"""What a person just answered, and the one click or key that takes it back; neither runs more than the fragment that asks.

As `undo`, whose line stands outside of what asked and so runs the whole page. Here an answer is one key press among many, and the next
picture has to be there before the eye is. Who answers is asked once and remembered in this session.
"""

from collections.abc import Callable
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import person, words
from pages.components.cached import cached

_KEY = "last_answer"


def keep(text: str, write: Callable[[], str], **more: Any) -> bool:
    """Write an answer down and offer to take it back. `text` is plain, not Markdown; `more` is what `last` gives back."""
    try:
        st.session_state[_KEY] = dict(text=text, made=write(), **more)
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")
        return False
    return True


def last() -> dict[str, Any]:
    """The last answer that was not taken back; empty where there is none."""
    found: dict[str, Any] = st.session_state.get(_KEY, {})
    return found


def line(settled: bool = False) -> None:
    """The last answer with its Undo; without it where it is `settled`."""
    said = last()
    if not said:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="last_answer_line"):
        st.caption(f":material/check: {words.plain(said['text'])}", width="content")
        if said["made"] and not settled:
            st.button("Undo", key="undo_last", icon=":material/undo:", type="tertiary", shortcut="U", on_click=take_back)


def take_back() -> None:
    said = last()
    try:
        jobs.undo(said["made"])
    except jobs.DiffspectError as error:
        st.toast(words.plain(error, 600), icon=":material/error:")
        return
    st.session_state[_KEY] = dict(text="Taken back.", made="")


def reviewer(shown: str) -> None:
    """Whose answers these are. It stands below the keys, since it is typed once."""
    if jobs.people.there():
        person.your_name()
        return
    if "reviewer" not in st.session_state:
        before = cached("reviews", shown).head(1)["reviewer"].tolist() if shown == "real" else []       # the demo's people are made up
        st.session_state["reviewer"] = str(before[0]) if before else ""
    st.text_input("Your name", key="reviewer", max_chars=60, persist_state="session", width=260)


def name() -> str:
    return person.named() or str(st.session_state.get("reviewer", "")).strip()


def kinds(shown: str, *more: str) -> list[str]:
    """Names of defects to choose from: those that were found, that the model in use knows, that people gave, and `more`. Asked once in a
    sitting: each answer makes the store another one, and to ask for them again costs as much as all else that a key press does."""
    key = f"kinds_{shown}"
    if key not in st.session_state:
        used = cached("models").query("promoted and run_id != ''")["classes"]          # not of the model that comes with the program
        st.session_state[key] = {*cached("choices", shown)["classes"], *cached("reviews", shown)["class_name"],
                                 *(name for classes in used for name in classes)} - {""}
    st.session_state[key] |= set(more) - {""}
    return sorted(st.session_state[key])
