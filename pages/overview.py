"""Is today normal? One card per line, then the whole plant in four numbers. For a manager with five seconds and a phone."""

from datetime import timedelta

import streamlit as st

from backend import jobs
from pages.components import cards, plant, text, tour, undo
from pages.components.cached import cached


def overview(shown: str) -> None:
    choices = cached("choices", shown)
    now, last = cached("lines_now", shown), choices["last_day"]        # worst first
    if now.empty:
        plant.uncounted()
        return
    cards.headline(now)
    st.caption(f"Data {cards.data_until(choices['last_captured_at'])}. Times in {plant.zone()}.")
    undo.bar()
    if shown == "demo":
        tour.card(now.iloc[0]["line"], now.iloc[0]["class_name"])
    month = jobs.Filters(plant=shown, since=last - timedelta(days=27), until=last)
    days = cached("trend", month, "day", "line")
    st.html(cards.STYLE)
    grid = st.grid(3, min_column_width=290)
    for row in now.itertuples():
        with grid.cell():
            cards.line(row, days[days["group"] == row.line], shown, last)
    cards.unusual(cached("unusual_trend", month), last)
    cards.totals(cached("totals", jobs.Filters(plant=shown, since=last, until=last)), f"The whole plant, {text.day(last)}")
    cards.totals(cached("totals", month), "The whole plant, last 28 days")


with plant.sound():
    overview(plant.begin("Overview"))
