"""Since when, where and what: the defect rate over time, what it is made of, and the pictures behind every bar and point.

Filters live in the URL. A tap on a bar, or on its row in the table, narrows all of the page; a tap on a point in time the pictures below.
"""

from typing import Any

import streamlit as st

from backend import jobs
from pages.components import (
    breakdown,
    cards,
    charts,
    control_cards,
    filters,
    gallery,
    history,
    plant,
    review_rate,
    tour,
    trend_compare,
    trend_figures,
    undo,
)
from pages.components.cached import cached, lately


def trends(shown: str) -> None:
    choices = cached("choices", shown)
    if cached("lines_now", shown, lately()).empty:
        plant.uncounted()
        return
    undo.bar()
    asked = filters.bar(shown, choices)
    filters.chips()
    head(shown, choices)
    totals = cached("totals", asked)
    if not totals["inspected"]:
        st.info("Nothing was inspected that fits these filters. Clear them, or choose a longer period.", icon=":material/filter_alt_off:")
        return
    trend_figures.totals(totals, filters.said(asked).capitalize(), asked)
    review_rate.card(shown)
    control_cards.of(asked)
    trend_compare.show(asked, choices)
    follow(asked)


def head(shown: str, choices: dict[str, Any]) -> None:
    """How old the data is, whose clock it is, and what was changed by whom."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trend_head"):
        st.caption(f"Data {cards.data_until(choices['last_captured_at'])}", width="content")
        history.clock()
        history.changes(shown)
        filters.share()


def follow(asked: jobs.Filters) -> None:
    """Charts, and the pictures behind what was tapped, right below the chart that was tapped last."""
    over_time = breakdown.trend(asked)
    near = st.container()
    unusual = breakdown.unusual(asked)
    near_unusual = st.container()
    breakdown.parts(asked)
    picked = {**over_time, **unusual}
    if asked.line:
        tour.done("line")
    if picked or st.session_state.get("behind_open") is not None:
        tour.done("picture")
    places = {"trend": near, "unusual": near_unusual} if over_time or unusual else {}
    with places.get(breakdown.last_touched()) or st.container():
        breakdown.said(asked, picked)
        gallery.behind(asked.but(**picked), "Unusual pictures" if unusual else "Pictures behind these numbers")
    charts.let_touch_scroll()


with plant.sound():
    trends(plant.begin("Trends"))
