"""Control charts on their page: empty, made, frozen, alarmed, explained, put away; what Overview and Trends say of them; the figure.

The plant: three shifts of eight hours a day up to now, 40 plates each, one in 20 with pits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.jobs import control, house
from backend.jobs.control import Watched
from backend.jobs.points import Points
from backend.jobs.trial import Trial
from backend.quality import alarms
from backend.quality.stages import Promotion
from pages.components import control_figure, control_view
from tests import small_plant as plant

ROOT = Path(__file__).resolve().parents[1]
USUAL = [2, 1, 3, 2, 2, 1, 2, 4, 1, 2]
SIZE = 40


@pytest.fixture(autouse=True)
def _false_alarms_roughly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within a tenth, from a sixteenth of the simulated points: half a second less for each chart that is tried."""
    alarms.run_length.cache_clear()
    monkeypatch.setattr(alarms, "RUNS", 1 << 6)
    yield
    alarms.run_length.cache_clear()


@pytest.fixture
def folder(data_folder: Path) -> Iterator[Path]:
    st.cache_data.clear()                            # its key is the revision, which starts again with every folder
    plant.model("m1")
    yield data_folder


def starts(n: int) -> list[datetime]:
    """Of the last n shifts that are over, in UTC."""
    now = datetime.now(UTC)
    edge = (now - timedelta(hours=6)).replace(minute=0, second=0, microsecond=0)
    last = edge - timedelta(hours=edge.hour % 8 - 6) - timedelta(hours=8)
    return [last - timedelta(hours=8 * (n - 1 - i)) for i in range(n)]


def shifts(bad: Sequence[int], line: str = "Line 1", **more: Any) -> None:
    """So many shifts up to now, of whose plates so many have pits; taken in."""
    plant.batch([dict(captured_at=at + timedelta(minutes=10 * i), line=line, boxes=[("pits", 0.9)] if i < k else []) | more
                 for at, k in zip(starts(len(bad)), bad, strict=True) for i in range(SIZE)])
    assert house.opened().ingest()


def page(name: str = "control", **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60).switch_page(f"pages/{name}.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    assert not at.exception, at.exception
    return at


def words(at: AppTest) -> str:
    said = " ".join(e.value for e in (*at.title, *at.markdown, *at.caption, *at.info, *at.warning, *at.error))
    return said.replace("\\", "")


def new(line: str = "Line 1", **more: str) -> AppTest:
    return page(charts_view="New chart", watch_line=line, **more)


def trial(line: str = "Line 1", **more: Any) -> Trial:
    return jobs.results.control_trial("real", jobs.SavedChart(line=line, **more))


def frozen(line: str = "Line 1", **more: Any) -> jobs.SavedChart:
    """A chart saved some days ago, with limits from the oldest 21 shifts."""
    points = trial(line).watched.frame
    chart = trial(line, since=points["key"].iloc[0], until=points["key"].iloc[20], **more).chart
    assert chart.limits
    job = rundir.run_path(plant.decide("chart", **chart.to_json())) / "job.json"
    rundir.write_json(job, rundir.read_json(job) | {"created_at": (starts(9)[0] + timedelta(minutes=1)).isoformat(timespec="microseconds")})
    assert house.opened().ingest()
    return chart


def charted() -> list[Watched]:
    return jobs.results.control_charts("real")


# ---- before there is a chart


def test_no_chart_yet_leads_to_the_first_one(folder: Path) -> None:
    shifts(USUAL)
    at = page()
    assert "No control chart yet" in words(at)
    at.button(key="make_first").click().run()
    assert "A control chart belongs to one line" in words(at) and not at.get("plotly_chart")
    at.selectbox(key="watch_line").set_value("Line 1").run()
    assert not at.exception and "needs 20 shifts; 10 so far" in words(at)


def test_it_can_be_watched_before_there_are_limits(folder: Path) -> None:
    shifts(USUAL[:6])
    at = new()
    assert at.button(key="save_chart").label == "Watch it without limits for now"
    at.button(key="save_chart").click().run()
    assert not at.exception and "Too early to judge: needs 20 shifts; 6 so far" in words(at)
    assert "1 of 1 still too early to judge" in words(at) and charted()[0].chart.since == ""
    at.button(key="undo_last").click().run()
    assert "No control chart yet" in words(at) and charted() == []


def test_nothing_that_fits_says_so(folder: Path) -> None:
    shifts(USUAL[:3])
    shifts([0] * 3, line="Line 2")
    assert "Nothing was found that fits" in words(new("Line 2", watch_kind="pits", watch_what="Good parts between two defects"))


# ---- limits are frozen


def test_limits_are_frozen_from_the_proposed_period_and_undone(folder: Path) -> None:
    shifts(USUAL * 3)
    at = new()
    assert "22 shifts in the period" in words(at) and "false alarm" in words(at) and "Nothing speaks for wider limits" in words(at)
    assert "Nothing but chance in the last 30 shifts" in words(at)
    at.text_input(key="freeze_who").set_value("Kim")
    at.button(key="save_chart").click().run()
    assert not at.exception and "All calm: nothing but chance" in words(at) and "limits are frozen" in words(at)
    saved, = charted()
    assert saved.saves[0].by == "Kim" and "Limits were frozen by Kim" in words(at)
    assert saved.chart.limits["subgroups"] == 22 and at.query_params["chart"] in (saved.chart_id, [saved.chart_id])
    assert "Control chart of Line 1: limits were frozen." in jobs.results.changes("real")["text"].tolist()
    at.button(key="undo_last").click().run()
    assert charted() == []


def test_what_is_left_out_needs_a_reason(folder: Path) -> None:
    shifts([*USUAL, 16, *USUAL, *USUAL])
    at = new()
    assert "1 of these stands out" in words(at) and "Find out why" in words(at)
    at.button(key="leave_out_all").click().run()
    assert at.button(key="save_chart").disabled and "Say why each of them is left out" in words(at)
    at.text_input[0].set_value("A trial with other steel").run()
    assert not at.button(key="save_chart").disabled and "stands out:" not in words(at)
    at.button(key="save_chart").click().run()
    saved, = charted()
    assert list(saved.chart.excluded.values()) == ["A trial with other steel"]
    assert "1 left out: A trial with other steel" in words(at)


def test_a_period_is_chosen_by_days(folder: Path) -> None:
    shifts(USUAL * 4)
    at = new()
    first = at.date_input[0].value
    at.date_input[0].set_value(first + timedelta(days=2)).run()
    assert not at.exception and at.date_input[0].value == first + timedelta(days=2)
    at.button(key="save_chart").click().run()
    assert charted()[0].chart.since[:10] == (first + timedelta(days=2)).isoformat()


def test_evidence_is_followed_in_one_tap(folder: Path) -> None:
    shifts([1, 12, 2, 13, 1, 11, 2, 14, 3, 12] * 4)
    at = new()
    assert "Limits that allow for it raise fewer false alarms" in words(at)
    at.button(key="allow_spread").click().run()
    assert at.toggle(key="watch_spread").value and not [b for b in at.button if b.key == "allow_spread"]
    at.selectbox(key="watch_weight").set_value(0.2).run()
    assert not at.exception and not [m for m in at.multiselect if m.key == "watch_rules"]
    at.button(key="save_chart").click().run()
    chart = charted()[0].chart
    assert (chart.kind, chart.weight, chart.rules, "'" in chart.limits["kind"]) == ("p'", 0.2, ["beyond"], True)


def test_a_rare_defect_is_counted_by_the_good_parts_between(folder: Path) -> None:
    plant.batch([dict(captured_at=starts(30)[n // 100] + timedelta(minutes=n % 100), line="Line 1",
                      boxes=[("crack", 0.9)] if n % 97 == 5 else []) for n in range(3000)])
    house.opened().ingest()
    at = new(watch_kind="crack")
    assert "too few for a chart of shares" in words(at)
    at.button(key="count_gaps").click().run()
    assert not at.exception and not [s for s in at.selectbox if s.key == "watch_every"]
    at.button(key="save_chart").click().run()
    assert not at.exception and charted()[0].chart.kind == "g" and "Line 1, crack, good parts between" in words(at)


def test_rules_come_with_their_false_alarms(folder: Path) -> None:
    shifts(USUAL * 3)
    at = new()
    def said() -> str:
        return next(m.value for m in at.markdown if "false alarm" in m.value)

    usual = said()
    at.multiselect(key="watch_rules").set_value(["beyond", "nine", "trend", "two of three", "four of five"]).run()
    assert said() != usual
    at.multiselect(key="watch_rules").set_value([]).run()
    assert "the usual two hold" in words(at) and said() == usual


# ---- what it says


@pytest.fixture
def alarmed(folder: Path) -> jobs.SavedChart:
    """Line 1: six times as many since three shifts; Line 2 as always."""
    shifts([*USUAL * 3, 13, 12, 14])
    shifts(USUAL * 3, line="Line 2")
    frozen("Line 2")
    return frozen()


def test_a_manager_sees_in_one_line_that_something_changed(alarmed: jobs.SavedChart) -> None:
    at = page()
    since = starts(3)[0]
    headline = next(m.value for m in at.markdown if m.value.startswith("### "))
    assert "Line 1: more defects than chance explains" in headline and headline.endswith("1 calm")
    assert f"More defects than chance explains since {since:%A} {since.day} {since:%B}, {since:%H:%M}" in words(at)
    assert "Last 35 % (14 of 40), usually 5.0 %" in words(at) and "Going on" in words(at) and "3 in a row above the limits" in words(at)
    first_read = words(at).split("Limits and changes")[0].lower()
    assert not [word for word in ("sigma", "σ", "p-chart", "laney", "standard error", "subgroup", "nelson") if word in first_read]


def test_an_alarm_is_explained_by_name_and_taken_back(alarmed: jobs.SavedChart) -> None:
    at = page()
    assert "Not explained yet" in words(at)
    asked = next(n for n, a in enumerate(at.text_area) if a.label == "What was it?")          # another form notes things on charts
    at.text_area[asked].set_value("Roll 3 is worn <b>; being changed")
    next(i for i in at.text_input if (i.key or "").startswith("who_")).set_value("Kim")
    [b for b in at.button if b.label == "Save"][asked].click().run()
    assert not at.exception and "Roll 3 is worn" in words(at) and "(Kim)" in words(at) and "Not explained yet" not in words(at)
    assert "What stood out on Line 1: Roll 3 is worn" in jobs.results.changes("real").iloc[0]["text"]
    next(b for b in at.button if b.label == "Undo" and b.key.startswith("unsay_")).click().run()
    assert "Roll 3" not in words(at) and "Not explained yet" in words(at)


def test_which_chart_and_how_much_of_it_stand_in_the_url(alarmed: jobs.SavedChart) -> None:
    other = jobs.SavedChart(line="Line 2")
    at = page(chart=other.chart_id, window="All")
    assert "#### Line 2, all defects, by shift" in [m.value.replace("\\", "") for m in at.markdown]
    assert len(at.dataframe[0].value) == 30
    at.button(key=f"see_{alarmed.chart_id}").click().run()
    assert at.query_params["chart"] in (alarmed.chart_id, [alarmed.chart_id])
    assert list(at.dataframe[0].value["Found"])[:2] == ["35 % (14 of 40)", "30 % (12 of 40)"]
    assert list(at.dataframe[0].value["Remark"])[:4] == ["stands out"] * 3 + [""]
    assert "#### Line 1" in words(page(chart="of no chart"))


def test_an_alarm_leads_to_its_pictures(alarmed: jobs.SavedChart) -> None:
    at = page()
    next(b for b in at.button if b.label == "See its pictures").click().run()
    assert not at.exception and "13 pictures" in words(at) and "(13 of 40)" in words(at)
    at.button(key="control_unpick").click().run()
    assert "13 pictures" not in words(at)


def test_overview_and_trends_agree_with_the_chart(alarmed: jobs.SavedChart) -> None:
    at = page("overview")
    assert "Line 1: act" in words(at) and "More defects than chance explains since " in words(at)
    assert next(r for r in jobs.results.lines_now("real").itertuples() if r.line == "Line 1").chart == alarmed.chart_id
    assert "More defects than chance explains" in words(page("trends", line="Line 1"))
    assert "chance" not in words(page("trends", line="Line 1", shift="Early")) + words(page("trends")), "mixed: a plain trend"


def test_a_quality_engineer_finds_figures_and_rules(alarmed: jobs.SavedChart) -> None:
    at = page()
    assert "Rules, on standardised values" not in words(at)
    at.session_state["control_expert"] = True
    at.run()
    assert not at.exception and "Share of units defective (p)" in words(at) and "Centre 0.05" in words(at)
    assert "nine in a row on one side" in words(at) and "a month" in words(at) or "months" in words(at)


def test_a_chart_is_put_away_and_comes_back(alarmed: jobs.SavedChart) -> None:
    at = page()
    at.button(key="ask_retire").click().run()
    at.button(key="retire_yes").click().run()
    assert not at.exception and [w.chart.line for w in charted()] == ["Line 2"]
    assert "Control chart of Line 1: put away." in jobs.results.changes("real").iloc[0]["text"]
    at.button(key="undo_last").click().run()
    assert len(charted()) == 2


def test_another_kind_takes_the_place_of_the_old_chart(alarmed: jobs.SavedChart) -> None:
    at = page()
    at.button(key="refreeze").click().run()
    assert at.selectbox(key="watch_line").value == "Line 1" and "This chart is there already" in words(at)
    at.selectbox(key="watch_what").set_value("u").run()
    assert "Put the old chart away: Line 1, all defects, by shift" in at.checkbox(key="put_old_away").label.replace("\\", "")
    at.button(key="save_chart").click().run()
    assert not at.exception and sorted((w.chart.line, w.chart.kind) for w in charted()) == [("Line 1", "u"), ("Line 2", "p")]
    at.button(key="undo_last").click().run()
    assert sorted((w.chart.line, w.chart.kind) for w in charted()) == [("Line 1", "p"), ("Line 2", "p")]


def test_another_model_and_other_rules_are_told_as_what_they_are(folder: Path) -> None:
    shifts(USUAL * 3)
    frozen()
    plant.model("m2")
    plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.5, min_side=0)
    plant.batch([dict(captured_at=at + timedelta(hours=24, minutes=10 * i), line="Line 1", boxes=[("pits", 0.9)] if i < 4 else [],
                      model_id="m2") for at in starts(3) for i in range(SIZE)])
    house.opened().ingest()
    w, = jobs.results.control_charts("real", datetime.now(UTC) + timedelta(hours=30))
    assert [s.why for s in w.stages] == ["Limits were frozen", "Model m2 was put to use"] and w.stages[1].provisional
    st.cache_data.clear()
    figure = control_figure.figure(w)
    assert [a.text for a in figure.layout.annotations] == ["new model", "rules changed", "limits come from here"]
    assert len(w.changes) == 1


def test_a_long_name_is_shown_whole_enough_and_never_interpreted(folder: Path) -> None:
    line = "Press shop <b>hall 3</b>, cell 14, left side, second shift robot " + "A" * 60
    shifts(USUAL * 3, line=line)
    at = new(line)
    assert not at.exception and at.selectbox(key="watch_line").value == line
    at.button(key="save_chart").click().run()
    assert not at.exception and "<b>hall" in words(at) and not [m for m in at.markdown if "<b>hall" in m.value]


# ---- the figure


def watched(**more: Any) -> Watched:
    """Twenty-four points on a chart of 5 %, the third last far beyond; a run below; one left out; the last under way."""
    n = np.array([*[5, 6, 4, 5, 7, 3] * 2, *[4] * 9, 20, 6, 9])
    frame = pd.DataFrame(dict(key=[f"2026-06-{d:02d}T06:00:00" for d in range(1, 25)], bucket=pd.date_range("2026-06-01T06", periods=24),
                              units=100, defective=n, count=n, size=100, aside=[""] * 23 + ["still under way"], model="m", model_id="m"))
    frame = frame.assign(over=frame["bucket"] + timedelta(hours=8))
    chart = jobs.SavedChart(line="L", since="2026-06-01", until="2026-06-20", excluded={"2026-06-02T06:00:00": "a trial"},
                            limits=dict(kind="p", center=0.05))
    promotions = [Promotion("2026-06-23T06:00:00", "B")] if more.pop("promoted", False) else []
    return control.watch([control.Save(replace(chart, **more))], Points(frame, promotions, {}))


def test_shapes_tell_what_colour_tells() -> None:
    figure = control_figure.figure(watched())
    points, aside = (t for t in figure.data if "markers" in t.mode)
    assert list(points.marker.symbol) == ["circle", "x", *["circle"] * 9, *["diamond-open"] * 10, "diamond", "circle"]
    assert aside.marker.symbol == "circle-open" and list(aside.customdata) == ["2026-06-24T06:00:00"] and len(points.customdata) == 23
    assert {t.line.dash for t in figure.data if t.mode == "lines"} == {"solid", "7px,4px"}
    assert figure.layout.xaxis.fixedrange and figure.layout.yaxis.fixedrange, "neither wheel nor finger is caught"
    assert len(control_figure.figure(watched(), last=10).data[-2].x) == 9


def test_provisional_limits_are_dotted_and_stages_do_not_join() -> None:
    w = watched(promoted=True, limits={})
    assert [s.provisional for s in w.stages] == [True, True]
    figure = control_figure.figure(w)
    assert {t.line.dash for t in figure.data if t.mode == "lines" and not np.isnan(np.array(t.y, float)).all()} == {"solid", "2px,4px"}
    assert "new model" in [a.text for a in figure.layout.annotations]


@pytest.mark.parametrize(("kind", "value", "said"), [
    ("p", 5, "5.0 % (5 of 100)"), ("u", 5, "0.050 per part (5 on 100)"), ("g", 1046, "1,046 good parts"), ("t", 30.93, "30.9 hours"),
    ("i", 0.05, "5.0 %")])
def test_numbers_in_words(kind: str, value: float, said: str) -> None:
    w = replace(watched(), chart=replace(watched().chart, kind=kind, limits={}))
    assert control_figure.amount(w, value, 100) == said and control_figure.one(w, float("nan")) == "none"


@pytest.mark.parametrize(("kind", "value", "said", "scale"), [
    ("g", 1046, "1,046 good parts", "+1.5 standard errors"), ("t", 30.93, "30.9 hours", "+1.5 standard errors"),
    ("i", 0.05, "5.0 %", "150 %")])
def test_what_was_found_is_told_as_it_is_by_a_chart_of_averages_too(kind: str, value: float, said: str, scale: str) -> None:
    """Averages are of standard errors, those of single values of the values themselves."""
    w = watched()
    w = replace(w, chart=replace(w.chart, kind=kind, limits={}, weight=0.2, rules=["beyond"]))
    assert control_figure.amount(w, value, float("nan")) == said and control_figure.one(w, 1.5) == scale


def test_limits_in_words() -> None:
    assert control_figure.said(watched()) == "Usual: 5.0 %. By chance alone: up to 12 %."
    assert control_figure.usual(watched(limits={}, kind="u")) == "0.046 per part"


def test_single_values_bring_their_moving_range() -> None:
    w = watched()
    frame = w.frame.assign(count=w.frame["count"] / 100, size=np.nan)
    chart = replace(w.chart, kind="i", limits=dict(kind="i", center=0.05, sigma=0.02))
    single = control.watch([control.Save(chart)], Points(frame.drop(columns=["value", "center", "low", "high", "stage", "out"]), [], {}))
    figure = control_figure.figure(single)
    ranges, most = (t for t in figure.data if t.yaxis == "y2")
    assert ranges.y[1] == pytest.approx(0.01) and most.y[0] == pytest.approx(0.02 * 1.128 * 3.267)
    assert len({t.xaxis for t in figure.data}) == 2, "one below the other, over the same time"


def test_a_point_means_its_shift(folder: Path) -> None:
    shifts = [dict(name="Early", start="06:00", end="14:00"), dict(name="Night", start="22:00", end="06:00")]
    calendar = dict(day_start="06:00", shifts=shifts)
    assert control_view.shift_of(datetime(2026, 6, 17, 2, 30), calendar) == (date(2026, 6, 16), "Night")
    assert control_view.shift_of(datetime(2026, 6, 17, 6, 0), calendar) == (date(2026, 6, 17), "Early")
    assert control_view.shift_of(datetime(2026, 6, 17, 15, 0), calendar) == (date(2026, 6, 17), "")
    assert control_view.span(datetime(2026, 6, 15), "week") == dict(since=date(2026, 6, 15), until=date(2026, 6, 21))
    assert control_view.span(datetime(2026, 6, 15), "day") == dict(since=date(2026, 6, 15), until=date(2026, 6, 15))
