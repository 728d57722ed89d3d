"""Three steps through the demo plant in three minutes. Steps tick themselves off by what a visitor did; the card can be closed.

What was done is kept in the session only: it is a greeting, not a record.
"""

import streamlit as st

from backend import jobs
from pages.components import plant, words

STEPS = ("line", "picture", "batch")


def done(step: str) -> None:
    """Tick a step off."""
    assert step in STEPS, step
    st.session_state["tour"] = st.session_state.get("tour", set()) | {step}


def _ticked() -> set[str]:
    """Steps done; a batch put into the demo plant counts whoever put it there."""
    if any(r.state == "completed" for r in jobs.recent(limit=1, recipes=("inspect",), plant="demo")):
        done("batch")
    return set(st.session_state.get("tour", set()))


def card(line: str, kind: str) -> None:
    """The card on Overview; `line` is the one that stands worst, `kind` what drives it."""
    if st.session_state.get("tour_closed"):
        return
    ticked = _ticked()
    with st.container(border=True, key="tour"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown("**Look around in three minutes**", width="content")
            st.button("Close", icon=":material/close:", type="tertiary", key="tour_close", on_click=_close)
        name, defect = words.plain(line, 40), words.plain(kind, 40) or "defects"
        _step(1, "line" in ticked, f"{name} needs a look: tap its card below and see when it began.")
        _step(2, "picture" in ticked, f"Tap a high point of the chart, then a picture, and see the {defect}.")
        _step(3, "batch" in ticked, "Inspect the sample pictures, come back and see the chart move. Undo takes them out again.")
        if "line" in ticked and "batch" not in ticked:
            plant.link("inspection", "Inspect sample pictures", icon=":material/science:")
        if ticked == set(STEPS):
            st.caption("That is all of it. Your own pictures go the same way; remove the demo whenever you like.")


def _step(number: int, ticked: bool, sentence: str) -> None:
    mark = ":green[:material/check_circle:]" if ticked else f":material/counter_{number}:"
    st.markdown(f"{mark} {sentence}")


def _close() -> None:
    st.session_state["tour_closed"] = True
