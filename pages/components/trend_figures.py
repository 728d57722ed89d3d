"""A selection in numbers: defect rate, good first time, defects per part, defective per million where parts have numbers, inspected.

Each with what it counts, and with where the true value may lie. Overview shows the same of the plant's last day and month.
"""

from datetime import date, timedelta
from typing import Any

import streamlit as st

from backend import jobs
from backend.jobs import two_periods
from pages.components import plant, text, words
from pages.components.cached import cached


def totals(now: dict[str, Any], label: str, asked: jobs.Filters) -> None:
    """Four numbers, or five."""
    parts = text.count(now["units"])
    figures = [("Defect rate", text.percent(now["rate"]), f"{text.count(now['defective'])} of {parts}"),
               ("Good first time", text.percent(now["good_first_time"]), f"of {parts} parts"),
               ("Defects per part", f"{now['defects_per_unit']:.3f}" if now["units"] else "–", f"{text.count(now['defects'])} defects"),
               ("Pictures", text.count(now["inspected"]), f"of {parts} parts")] if now["units"] else []
    if now["units"] and (known := cached("per_million", asked)).n:
        figures.insert(3, ("Defective per million", text.three(known.rate), f"{text.three(known.low)} to {text.three(known.high)}"))
    st.markdown(f"##### {label}")
    grid = st.grid(len(figures) or 1, min_column_width=150)
    for name, value, of in figures:
        grid.metric(name, value, of, delta_color="off", delta_arrow="off", border=True)
    if now["units"]:
        st.caption(f"From so many parts the rate is known to lie between {text.percent(now['low'])} and {text.percent(now['high'])}, "
                   "19 times out of 20, as the model counts.")


def week(shown: str, last: date) -> None:
    """The last seven days against the seven before in one sentence, and the way to all of it. Nothing in a plant's first week."""
    now = jobs.Filters(plant=shown, since=last - timedelta(days=6), until=last)
    found = cached("compared", now, two_periods.before(now, last), "", "the 7 days before")
    if not found.found.before.n or not found.found.now.n:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="week_against_week"):
        st.markdown(f"{icon(found)}Last 7 days: {text.percent(found.found.now.rate)} defective, {words.plain(found.sentence, 300)}.",
                    width="content")
        plant.link("trends", "Compare", icon=":material/compare_arrows:", period="7 days", against="The days before")


def icon(found: two_periods.Compared) -> str:
    """Up, down, or neither: no word without it, and never it alone."""
    if not found.found.sure:
        return ":material/trending_flat: "
    return ":red[:material/trending_up:] " if found.found.low > 0 else ":green[:material/trending_down:] "
