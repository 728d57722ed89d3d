"""Is today normal? One card per line, then the whole plant in four numbers. For a manager with five seconds and a phone."""

from datetime import timedelta

import streamlit as st

from backend import jobs
from pages.components import alert_strip, annotation_marks, cards, other_plants, plant, text, tour, trend_figures, undo
from pages.components.cached import cached, lately


def overview(shown: str) -> None:
    choices = cached("choices", shown)
    now, last = cached("lines_now", shown, lately()), choices["last_day"]        # worst first
    if now.empty:
        plant.uncounted()
        return
    cards.headline(now, alert_strip.of_no_line(shown))
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="overview_head"):
        st.caption(f"Data {cards.data_until(choices['last_captured_at'])}. Times in {plant.zone()}.", width="content")
        plant.link("report", "Report of the last shift", icon=":material/summarize:")
    undo.bar()
    alert_strip.show(shown)
    if shown == "demo":
        tour.card(now.iloc[0]["line"], now.iloc[0]["class_name"])
    month = jobs.Filters(plant=shown, since=last - timedelta(days=27), until=last)
    days = cached("trend", month, "day", "line")
    st.html(cards.STYLE)
    marks = annotation_marks.inside(shown, since=month.since)
    grid = st.grid(3, min_column_width=290)
    for row in now.itertuples():
        with grid.cell():
            cards.line(row, days[days["group"] == row.line], shown, last, marks)
    annotation_marks.table(marks, shown, "", "overview", "Noted in the last 28 days")
    cards.unusual(cached("unusual_trend", month), last)
    trend_figures.week(shown, last)
    for asked, label in ((month.but(since=last), text.day(last)), (month, "last 28 days")):
        trend_figures.totals(cached("totals", asked), f"The whole plant, {label}", asked)
    if shown == "real":
        other_plants.lines()


with plant.sound():
    overview(plant.begin("Overview"))
