"""The heat map of an anomaly model, laid over pictures: its switch, how strongly it covers, and the drawing.

Stands between the store's heat maps and the galleries: a `Draw` goes in, a `Draw` comes out. Where no model looked, or the map was
not kept, the picture shows as it is. Knows nothing of batches, queues or limits.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components.image_viewer import Draw

USUAL = 60               # percent

LEGEND = "Colour marks where a picture is unlike good ones: violet a little, yellow very."


def controls(name: str, on: bool = False, opacity: int = USUAL) -> int:
    """The switch and the strength, in percent; 0 while it is off. In a row with whatever stands there."""
    if not st.toggle("Heat map", on, key=f"{name}_heat", help=LEGEND):
        return 0
    chosen: int = st.slider("Opacity of the heat map", 10, 100, opacity or USUAL, 10, format="%d %%", key=f"{name}_opacity", width=200)
    return chosen


def chosen(name: str) -> int:
    """What stands there, in percent, without drawing it."""
    state = st.session_state
    return int(state.get(f"{name}_opacity", USUAL)) if state.get(f"{name}_heat") else 0


def over(draw: Draw, opacity: int, today: Any) -> Draw:
    """`draw` with the heat map on it. `today`: what decides about the boxes, so that a change of it draws anew."""
    def drawn(key: Any, width: int, boxes: bool) -> bytes:
        try:
            return _heat(int(key), width, opacity / 100, boxes, today if boxes else None)
        except jobs.NotFoundError:
            return draw(key, width, boxes)
    return drawn if opacity else draw


@st.cache_data(max_entries=400, show_spinner=False)      # a map never changes, so no revision: a new row redraws no old picture
def _heat(inspection_id: int, width: int, opacity: float, boxes: bool, today: Any) -> bytes:
    drawn: bytes = jobs.results.heat(inspection_id, width, opacity, boxes)
    return drawn
