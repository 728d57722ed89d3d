"""Trends in full: figures, two periods with the interval of their difference, bars that narrow the page, and an address for each view."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs
from backend.jobs import house, two_periods
from pages.components import breakdown, charts, filters
from tests import small_plant as plant
from tests import test_pages_engineering as engineering

ROOT = Path(__file__).resolve().parents[1]
LAST = date(2026, 6, 10)


@pytest.fixture
def filled(data_folder: Path) -> Iterator[Path]:
    """Two weeks of two lines, 40 numbered parts a day each, 5 % bad; on line <2> pits are 30 % in the second week."""
    st.cache_data.clear()
    plant.batch([dict(line=line, captured_at=plant.NOON - timedelta(days=day, minutes=n), unit_id=f"{line} {day} {n}", kept=False,
                      boxes=[("pits" if n % 2 else "scratch", 0.9)] * (n < (12 if line == "<2>" and day < 7 else 2)))
                 for line in ("L1", "<2>") for day in range(14) for n in range(40)])
    house.opened().ingest()
    yield data_folder


def page(**query: str) -> AppTest:
    return engineering.page("trends", **query)


def words(at: AppTest) -> str:
    return " ".join(e.value for e in (*at.markdown, *at.caption, *at.info, *at.code)).replace("\\", "")


def test_a_week_against_the_week_before_and_bars_that_narrow(filled: Path) -> None:
    at = page(period="7 days", against="The days before", compare_by="Line")
    figures = {m.label: m.value for m in at.metric}
    assert figures["Defect rate"] == "18 %" and figures["Good first time"] == "82 %" and figures["Defects per part"] == "0.175"
    assert figures["Defective per million"] == "175,000"                            # every part has a number
    said = words(at)
    assert "18 % (98 of 560): 12 points more than the 7 days before" in said and "surely more" in said
    rows = next(d.value for d in at.dataframe if "said" in d.value)
    assert rows["name"].tolist() == ["▲ <2>", "L1"] and "chance alone explains that" in rows["said"][1]

    # a tap on a bar: everything is of that line, the other bar stays to be tapped
    at.session_state["line"] = "<2>"
    at.run()
    assert {m.label: m.value for m in at.metric}["Defect rate"] == "30 %" and "Line: \\<2\\>" in at.button(key="drop_line").label
    table = next(d.value for d in at.dataframe if "value" in d.value)
    assert sorted(table["value"]) == ["<2>", "L1"]
    assert "line=%3C2%3E" in at.code[0].value and "against=The+days+before" in at.code[0].value      # the address says all of it
    at.button(key="drop_line").click().run()
    assert {m.label: m.value for m in at.metric}["Defect rate"] == "18 %" and at.selectbox(key="line").value == ""
    at.button(key="filters_back").click().run()
    assert at.selectbox(key="line").value == "<2>"
    at.button(key="clear_filters").click().run()
    at.button(key="filters_back").click().run()
    assert at.selectbox(key="line").value == "<2>" and at.segmented_control(key="period").value == "7 days"

    # any other period; all of the past has none before it
    at = page(period="All", against="The days before")
    assert "Choose a shorter period above" in words(at)
    at = page(since=str(LAST), against="Another period", then_since=str(LAST - timedelta(days=8)), then_until=str(LAST - timedelta(days=9)))
    assert "than in the other period (5.0 %)" in words(at)


def test_another_model_is_a_line_on_the_trend_and_so_is_taking_it_back(filled: Path) -> None:
    engineering.model("m1", "first <b>try</b>")
    house.opened().ingest()
    model = dict(model_id="m1", name="first <b>try</b>", kind="detector")
    jobs.record("promote", model)
    assert "M1" not in words(page(period="All")), "it came after all that there is"
    plant.batch([dict(line="L1", captured_at=datetime.now(UTC), unit_id="now", kept=False, boxes=[])])
    house.opened().ingest()
    at = page(period="All")
    assert re.search(r":violet-badge\[M1\] .*: Model first <b>try</b> was put to use", words(at))
    lines = [s for s in json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]["shapes"] if s["line"].get("dash") == "dash"]
    assert len(lines) == 1 and lines[0]["x0"] == lines[0]["x1"]
    jobs.undo(jobs.results.changes("real", 1, "promote")["run_id"][0])
    at = page(period="All")
    assert re.search(r":violet-badge\[M2\] .*: Taken back: Model first .*:violet-badge\[M1\] .*: Model first", words(at), re.DOTALL)
    assert jobs.results.put_to_use("demo").empty, "which has a model of its own"


def test_periods_side_by_side(filled: Path) -> None:
    now = jobs.Filters(since=LAST - timedelta(days=6))
    then = two_periods.before(now, LAST)
    assert (then.since, then.until) == (LAST - timedelta(days=13), LAST - timedelta(days=7))
    found = jobs.results.compared(now, then, "class_name")
    sides = [(s.name, s.found.now.k, s.found.before.k, s.found.sure) for s in found.sides]
    assert sides == [("pits", 49, 14, True), ("scratch", 49, 14, True)]
    assert found.sides[0].found.spread > 1.1                                        # two are looked at together
    narrow = jobs.results.compared(now.but(line="L1"), then.but(line="L1")).found
    assert not narrow.sure and narrow.value == 0
    known = jobs.results.per_million(now.but(class_name="pits"))
    assert (known.k, known.n) == (49, 560)


def test_a_tap_becomes_a_filter_and_the_same_again_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, object] = {"chart": {"selection": {"points": [{"customdata": "pits"}]}}, "rows": {"selection": {"rows": [1]}}}
    monkeypatch.setattr(st, "session_state", state)
    breakdown._narrow("kind", "chart", [])
    breakdown._narrow("kind", "chart", [])                                          # one tap, told twice by a run that was overtaken
    breakdown._narrow("line", "rows", ["L1", "L2"])
    assert (state["kind"], state["line"]) == ("pits", "L2")
    breakdown._narrow("kind", "chart", [])
    assert (state["kind"], state["line"]) == ("", "L2")
    filters.back()
    filters.back()
    assert (state["kind"], state["line"]) == ("pits", "")
    filters.narrow(since=LAST, until=LAST)
    assert state["since"] == LAST
    filters.back()
    assert state["since"] is None


def test_what_is_chosen_is_told_by_more_than_colour() -> None:
    frame = pd.DataFrame(dict(value=["a", "b"], inspected=10, defective=[1, 2], rate=[0.1, 0.2], low=0.0, high=0.4))
    figure = charts.bars(frame, "a")
    assert list(figure.data[0].y) == ["b", "▶ a"] and [a.text for a in figure.layout.annotations] == ["20 % (2 of 10)", "10 % (1 of 10)"]
    kinds = pd.DataFrame(dict(class_name=["pits", "dent"], defects=[1500, 10], units=[9, 1], share=[0.9, 0.1], cumulative=[0.9, 1.0],
                              minor=[False, False]))
    figure = charts.pareto(kinds, "dent")
    assert list(figure.layout.xaxis.ticktext) == ["pits<br><b>1,500</b>", "▶ dent<br><b>10</b>"]
    assert list(figure.data[1].text) == ["", "100%"] and figure.layout.xaxis.fixedrange
