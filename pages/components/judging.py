"""One picture before a person: the picture, the verdict with its keys, and what it is about.

Takes rows of `results.review_queue`. Says nothing of which queue they come from, but for the heat map, which a queue asks for.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import image_viewer, review_answer, veil, words

WIDE = 1280

# The next picture lies in the page, unseen: the browser has it before it is asked for.
_AHEAD = "<style>.st-key-next_picture {position: absolute; width: 1px; height: 1px; overflow: hidden; opacity: 0; pointer-events: none;}" \
         "</style>"


def show(row: Any, heat: bool) -> None:
    """The picture; with `heat`, where it is unlike good ones, and a key that takes the colours off."""
    image_viewer.picture(_drawing(heat), int(row.inspection_id), WIDE, True, words.short(row.file_name, 120))
    if heat:
        off = bool(st.session_state.get("heat_off"))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button("Show the colours" if off else "Hide the colours", icon=":material/gradient:", shortcut="H", type="tertiary",
                      key="heat_switch", on_click=st.session_state.__setitem__, args=("heat_off", not off))
            st.caption(veil.LEGEND, width="content")


def ahead(inspection_id: int, heat: bool) -> None:
    """Hand the browser the picture that comes next, so that it is there at the key press."""
    unseen(lambda: image_viewer.picture(_drawing(heat), int(inspection_id), WIDE, True, ""))


def unseen(draw: Any) -> None:
    st.html(_AHEAD)
    with st.container(key="next_picture"):
        draw()


def _drawing(heat: bool) -> image_viewer.Draw:
    at = int(st.session_state.get("drawn_at", 0))
    return veil.over(lambda key, width, boxes: _drawn(int(key), at, width, boxes),
                     veil.USUAL if heat and not st.session_state.get("heat_off") else 0, at)


@st.cache_data(max_entries=200, show_spinner=False)      # a sitting's own: an answer changes no box, so no picture is drawn twice
def _drawn(inspection_id: int, at: int, width: int, boxes: bool) -> bytes:
    drawn: bytes = jobs.results.picture(inspection_id=inspection_id, width=width, boxes=boxes, format="jpeg")
    return drawn


def decide(row: Any, shown: str, unknown: bool) -> None:
    """The verdict first, within reach of a thumb; what it is about and who gives it stand below and are remembered."""
    with st.container(horizontal=True):
        st.button("Defective", icon=":material/cancel:", shortcut="D", key="say_defective", on_click=say, args=(row, "defective", shown))
        st.button("Good", icon=":material/check_circle:", shortcut="G", key="say_good", on_click=say, args=(row, "good", shown))
        st.button("Skip", icon=":material/skip_next:", shortcut="S", type="tertiary", key="skip", on_click=skip, args=(row.inspection_id,))
    kinds = review_answer.kinds(shown, row.top_class or "")
    start = _start(row, kinds, unknown)
    st.selectbox("Kind, if defective", kinds, kinds.index(start) if start else None, key=f"kind_{row.inspection_id}", width=260,
                 accept_new_options=True, placeholder="Choose, or type a new name" if unknown else "Choose or type")
    review_answer.reviewer(shown)


def _start(row: Any, kinds: list[str], unknown: bool) -> str:
    """The name to begin with. What is unknown begins without one, or with that of the picture before: they often come in a row."""
    last = st.session_state.get("kind_before", "")
    return str((last if last in kinds else "") if unknown else row.top_class or "")


def say(row: Any, verdict: str, shown: str) -> None:
    kind = str(st.session_state.get(f"kind_{row.inspection_id}") or "").strip() if verdict == "defective" else ""
    review_answer.kinds(shown, kind)
    st.session_state["kind_before"] = kind or st.session_state.get("kind_before", "")
    config = dict(inspection_id=int(row.inspection_id), verdict=verdict, class_name=kind, reviewer=review_answer.name())
    review_answer.keep(f"{words.short(row.file_name, 40)}: {f'{verdict}, {kind}' if kind else verdict}.",
                       lambda: jobs.record("review", config, plant=shown))


def skip(inspection_id: int) -> None:
    st.session_state["skipped"] = st.session_state.get("skipped", set()) | {inspection_id}
