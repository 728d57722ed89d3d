"""The checks of the machine, a line each: state in word and colour, what it means, what to do."""

import streamlit as st

from backend import jobs
from pages.components import words

COLORS = {"good": ("green", ":material/check:"), "look": ("orange", ":material/visibility:"), "bad": ("red", ":material/error:")}
_KEY = "system_lines"


def show() -> None:
    """As they were when the page was opened, until a person asks again: one of them writes to the disk."""
    if _KEY not in st.session_state:
        try:
            st.session_state[_KEY] = jobs.system.checks()
        except jobs.DiffspectError as error:
            words.sorry(error)
            return
    lines: list[jobs.system.Line] = st.session_state[_KEY]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(_summary(lines), width="content")
        st.button("Check again", icon=":material/refresh:", key="system_again", on_click=st.session_state.pop, args=(_KEY, None))
    for line in sorted(lines, key=lambda one: list(COLORS)[::-1].index(one.state)):
        _line(line)


def _summary(lines: list["jobs.system.Line"]) -> str:
    bad, look = (sum(one.state == state for one in lines) for state in ("bad", "look"))
    if bad:
        return f"**{bad} of {len(lines)} need something done.**"
    are = "is" if look == 1 else "are"
    return f"**{look} of {len(lines)} {are} worth a look; nothing is wrong.**" if look else f"**All {len(lines)} checks are good.**"


def _line(line: "jobs.system.Line") -> None:
    color, icon = COLORS[line.state]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"check_{line.name}"):
        st.badge(line.word, icon=icon, color=color)
        st.markdown(f"**{line.name}**", width="content")
        st.markdown(words.plain(line.said, 600), width="stretch")
    if line.do:
        st.caption(f":material/arrow_forward: {words.plain(line.do, 600)}")
