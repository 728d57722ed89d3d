"""One picture before a person: the picture, the verdict with its keys, and what it is about.

Takes rows of `results.review_queue`. Says nothing of which queue they come from, but for the heat map, which a queue asks for.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import image_viewer, undo, veil, words
from pages.components.cached import cached, picture

WIDE = 1280


def show(row: Any, heat: bool) -> None:
    """The picture; with `heat`, where it is unlike good ones, and a key that takes the colours off."""
    draw = veil.over(_draw, veil.USUAL if heat and not st.session_state.get("heat_off") else 0, jobs.results.revision())
    image_viewer.picture(draw, int(row.inspection_id), WIDE, True, words.short(row.file_name, 120))
    if heat:
        off = bool(st.session_state.get("heat_off"))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button("Show the colours" if off else "Hide the colours", icon=":material/gradient:", shortcut="H", type="tertiary",
                      key="heat_switch", on_click=st.session_state.__setitem__, args=("heat_off", not off))
            st.caption(veil.LEGEND, width="content")


def _draw(key: Any, width: int, boxes: bool) -> bytes:
    return picture(int(key), width, boxes)


def decide(row: Any, shown: str, unknown: bool) -> None:
    """The verdict first, within reach of a thumb; what it is about and who gives it stand below and are remembered."""
    with st.container(horizontal=True):
        st.button("Defective", icon=":material/cancel:", shortcut="D", key="say_defective", on_click=say, args=(row, "defective", shown))
        st.button("Good", icon=":material/check_circle:", shortcut="G", key="say_good", on_click=say, args=(row, "good", shown))
        st.button("Skip", icon=":material/skip_next:", shortcut="S", type="tertiary", key="skip", on_click=skip, args=(row.inspection_id,))
    before = cached("reviews", shown)
    kinds, start = _kinds(row, shown, before, unknown)
    st.selectbox("Kind, if defective", kinds, kinds.index(start) if start else None, key=f"kind_{row.inspection_id}", width=260,
                 accept_new_options=True, placeholder="Choose, or type a new name" if unknown else "Choose or type")
    known = str(before.iloc[0]["reviewer"]) if len(before) else ""
    st.text_input("Your name", known, key="reviewer", max_chars=60, persist_state="session", width=260)


def _kinds(row: Any, shown: str, before: Any, unknown: bool) -> tuple[list[str], str]:
    """Names to choose from, those that people gave included; and the one to start with. What is unknown starts without one, or with
    that of the picture before: they often come in a row."""
    kinds = sorted({*cached("choices", shown)["classes"], row.top_class or "", *before["class_name"]} - {""})
    last = st.session_state.get("kind_before", "")
    return kinds, (last if last in kinds else "") if unknown else row.top_class or ""


def say(row: Any, verdict: str, shown: str) -> None:
    kind = str(st.session_state.get(f"kind_{row.inspection_id}") or "").strip() if verdict == "defective" else ""
    st.session_state["kind_before"] = kind or st.session_state.get("kind_before", "")
    reviewer = str(st.session_state.get("reviewer", "")).strip()
    config = dict(inspection_id=int(row.inspection_id), verdict=verdict, class_name=kind, reviewer=reviewer)
    undo.record(f"{words.short(row.file_name, 40)}: {f'{verdict}, {kind}' if kind else verdict}.", "review", [config], shown)


def skip(inspection_id: int) -> None:
    st.session_state["skipped"] = st.session_state.get("skipped", set()) | {inspection_id}
