"""A gallery of fixed-size cells that never jumps, and the large view behind each picture.

Items are rows of a frame; `Look` says how a row is drawn and worded. A click is a button laid over the picture, so it works by
keyboard and screen reader too. Knows nothing of batches or datasets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import words

Draw = Callable[[Any, int, bool], bytes]             # (id, width in pixels at most, with boxes) -> picture
SMALL, LARGE = 200, 1280          # small ones near their size on the page, so that labels stay legible

STYLE = """<style>
[class*="st-key-cell_"] {position: relative; gap: .25rem;}
[class*="st-key-cell_"] [data-testid="stImage"], [class*="st-key-cell_"] [data-testid="stImageContainer"] {width: 100%;}
[class*="st-key-cell_"] img {width: 100%; height: 150px; object-fit: contain; background: rgb(128 128 128 / 12%); border-radius: .4rem;}
[class*="st-key-cell_"] [data-testid="stText"], [class*="st-key-cell_"] [data-testid="stText"] * {
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: .8rem; line-height: 1.3;}
[class*="st-key-cell_"] [data-testid="stCaptionContainer"] p {white-space: nowrap; overflow: hidden; text-overflow: ellipsis;}
[class*="st-key-open_"] {position: absolute; inset: 0; height: 150px;}
[class*="st-key-open_"] * {height: 100%; width: 100%;}
[class*="st-key-open_"] button {opacity: 0; cursor: zoom-in;}
[class*="st-key-open_"] button:focus-visible {opacity: .35;}
[class*="st-key-viewer_picture"] img {max-height: 68vh; object-fit: contain; background: rgb(128 128 128 / 12%); image-rendering: auto;}
</style>"""
# Enlarged, the picture keeps to its place and is moved about in it by wheel, finger or drag; it begins in its middle.
_ENLARGED = """<style>
[class*="st-key-viewer_picture"] {{display: block; overflow: auto; max-height: 68vh; overscroll-behavior: contain; cursor: grab;}}
[class*="st-key-viewer_picture"] > div, [class*="st-key-viewer_picture"] [data-testid="stImage"],
[class*="st-key-viewer_picture"] [data-testid="stImageContainer"] {{width: {0}% !important; max-width: none !important;}}
[class*="st-key-viewer_picture"] > div * {{width: 100% !important; max-width: none !important;}}
[class*="st-key-viewer_picture"] img {{max-height: none; pointer-events: none;}}
</style><script>(() => {{
const box = document.querySelector('[class*="st-key-viewer_picture"]');
const middle = () => box.scrollTo((box.scrollWidth - box.clientWidth) / 2, (box.scrollHeight - box.clientHeight) / 2);
[50, 300, 900].forEach(ms => setTimeout(middle, ms));
box.onpointerdown = e => {{ if (e.pointerType !== "mouse") return; e.preventDefault(); box.setPointerCapture(e.pointerId); }};
box.onpointermove = e => {{ if (box.hasPointerCapture(e.pointerId)) box.scrollBy(-e.movementX, -e.movementY); }};
}})();</script>"""
ZOOMS = {"1×": 1, "2×": 2, "4×": 4}


@dataclass(frozen=True)
class Look:
    """How a gallery's rows are shown."""

    name: str                                        # of the gallery; names its widgets
    id: str                                          # the column that identifies a row
    draw: Draw
    verdict: Callable[[Any], str] | None = None      # one short line of Markdown below the picture
    details: Callable[[Any], None] | None = None     # writes beside the large picture
    tools: Callable[[], Draw] | None = None          # more switches of the large view; how it is drawn then


def gallery(rows: pd.DataFrame, look: Look, size: int = 24) -> None:
    """One page of `rows`, in their order, with page numbers below. Inside a polling fragment only new cells appear."""
    st.html(STYLE)
    pages, key = max(1, -(-len(rows) // size)), f"{look.name}_page"
    if st.session_state.get(key, 1) > pages:
        st.session_state.pop(key)                    # a filter left fewer pages: back to the first
    page = int(st.session_state.get(key, 1))
    grid = st.grid("auto", min_column_width=150, gap="small")
    for n, row in enumerate(rows.iloc[(page - 1) * size:page * size].itertuples(index=False)):
        with grid.cell(), st.container(key=f"cell_{look.name}_{n}"):         # by place: one picture may stand in a dataset twice
            _cell(n, row, look, rows)
    if pages > 1:
        st.pagination(pages, key=key, width="stretch")


def _cell(n: int, row: Any, look: Look, rows: pd.DataFrame) -> None:
    key = getattr(row, look.id)
    picture(look.draw, key, SMALL, True, words.short(row.file_name, 120))
    st.text(words.short(row.file_name, 26))
    if look.verdict:
        st.caption(look.verdict(row))
    if st.button(f"Open {words.plain(row.file_name)}", key=f"open_{look.name}_{n}_{key}"):
        st.session_state[f"{look.name}_open"] = key
        st.session_state[f"{look.name}_ids"] = rows[look.id].drop_duplicates().tolist()
        st.rerun()                                   # the large view belongs to the page, not to a fragment that polls


def picture(draw: Draw, key: Any, width: int, boxes: bool, name: str) -> None:
    try:
        st.image(draw(key, width, boxes), width="stretch", alt=name)
    except jobs.DiffspectError as error:
        st.caption(f":material/hide_image: {words.plain(error)}")


def large(rows: pd.DataFrame, look: Look) -> None:
    """The large view of the opened row, if one is open. Call it from the page's body, once."""
    key = st.session_state.get(f"{look.name}_open")
    if key is not None and (rows[look.id] == key).any():
        st.dialog("Picture", width="large", on_dismiss=lambda: st.session_state.pop(f"{look.name}_open", None))(_large)(rows, look)


def _large(rows: pd.DataFrame, look: Look) -> None:
    ids = [i for i in st.session_state.get(f"{look.name}_ids", []) if (rows[look.id] == i).any()]
    at = ids.index(st.session_state[f"{look.name}_open"])
    row = next(rows[rows[look.id] == ids[at]].itertuples(index=False))
    with st.container(horizontal=True, vertical_alignment="center"):
        _step(look, ids, at - 1, "Previous", "Left")
        _step(look, ids, at + 1, "Next", "Right")
        boxes = st.toggle("Boxes", True, key=f"{look.name}_boxes")
        draw = look.tools() if look.tools else look.draw
        zoom = ZOOMS[st.segmented_control("Zoom", list(ZOOMS), default="1×", required=True, key=f"{look.name}_zoom",
                                          label_visibility="collapsed")]
        st.caption(f"{at + 1:,} of {len(ids):,}", width="content")
    left, right = st.columns([3, 2] if look.details else [1, 0.001])
    if zoom > 1:
        st.html(_ENLARGED.format(100 * zoom), unsafe_allow_javascript=True)
    with left, st.container(key="viewer_picture"):
        picture(draw, ids[at], LARGE * min(zoom, 2), boxes, words.short(row.file_name, 120))
    with right:
        st.text(words.short(row.file_name, 200))
        if look.details:
            look.details(row)


def _step(look: Look, ids: list[Any], to: int, label: str, key: str) -> None:
    inside = 0 <= to < len(ids)
    st.button(label, shortcut=key, disabled=not inside, key=f"{look.name}_{key}",
              on_click=st.session_state.__setitem__, args=(f"{look.name}_open", ids[to] if inside else None))
