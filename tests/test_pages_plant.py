"""Overview, Trends and Review, each empty, filled and failed, and what a person does on them. Pages run inside the frame."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from backend import errors, jobs, records, rundir
from pages.components import breakdown, charts, filters, text

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("overview", "trends", "review")


@pytest.fixture
def plant_folder(data_folder: Path) -> Iterator[Path]:
    st.cache_data.clear()                            # its key is the revision, which starts again with every folder
    yield data_folder


def page(name: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60).switch_page(f"pages/{name}.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    until = time.monotonic() + 60
    while "Reading the results on this machine" in words(at) and time.monotonic() < until:
        at.run()                                     # as the page does by itself
    assert not at.exception, at.exception
    return at


def words(at: AppTest) -> str:
    said = [e.value for e in (*at.title, *at.markdown, *at.caption, *at.info, *at.error)]
    return " ".join(said + [f"{m.label} {m.value} {m.delta}" for m in at.metric])


def inspect(line: str, days: int = 30, per_day: int = 40, bad: int = 2, until: datetime | None = None, plant: str = "real") -> Path:
    """A finished batch: so many pictures a day, so many of them with a sure detection of one kind."""
    run_dir = rundir.create("inspect", jobs.Inspect(line=line, plant=plant).to_json(), plant=plant)
    until = until or datetime.now(UTC) - timedelta(minutes=5)
    ids = records.inspection_ids(run_dir.name, days * per_day)
    rows = [dict(inspection_id=int(i), plant=plant, image_id=f"demo:{n}:2a:1:pits", file_name=f"{line} {n:05d}.png", unit_id="", line=line,
                 product="Panel", lot="A1", camera="1A", captured_source="typed",
                 captured_at=until - timedelta(days=n // per_day, minutes=n % per_day),
                 ingested_at=until, width=256, height=256, model_id="m", runtime="onnx", counted=True, not_counted_why="", kept=True,
                 kept_share=1.0) for n, i in enumerate(ids)]
    found = [dict(inspection_id=r["inspection_id"], class_name="pits", confidence=0.9, x1=10.0, y1=10.0, x2=60.0, y2=60.0)
             for n, r in enumerate(rows) if n % per_day < bad]
    rundir.write_part(run_dir, "inspections", rows)
    rundir.write_part(run_dir, "detections", found)
    rundir.write_json(run_dir / "result.json", {})
    rundir.set_state(run_dir, "completed", started_at=rundir.now(), finished_at=rundir.now())
    return run_dir


def take_in() -> None:
    """What the house's thread does by itself, now."""
    from backend.jobs import house

    assert house.opened().ingest()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lines: one as always, one whose pits jumped from 5 % to 30 % today. Taken in."""
    from backend.jobs import events, house

    root = tmp_path_factory.mktemp("plant") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root))
        for name in ("SUPERVISOR", "WARM", "MESSENGER"):
            patch.setenv(f"DIFFSPECT_{name}", "off")
        events.set_calendar()
        inspect("Line 1")
        inspect("Line 2", until=datetime.now(UTC) - timedelta(days=2))
        inspect("Line 2", days=1, per_day=200, bad=60)
        take_in()
        house.close()
    return root


@pytest.fixture
def filled(template: Path, plant_folder: Path) -> Path:
    """The two lines, in a folder of its own."""
    shutil.rmtree(plant_folder)                      # its calendar: another would place everything anew
    shutil.copytree(template, plant_folder)
    return plant_folder


# -- the three states ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PAGES)
def test_empty(plant_folder: Path, name: str) -> None:
    at = page(name)
    assert "Nothing inspected yet" in words(at)
    assert [b.label for b in at.button] == ["Show the demo plant"]


@pytest.mark.parametrize("name", PAGES)
def test_failed(plant_folder: Path, name: str) -> None:
    """Another process has the database: one sentence and a button, no traceback."""
    script = ("import sys; from pathlib import Path; from backend.store.database import Database\n"
              f"d = Database(Path({str(plant_folder)!r}) / 'inspection.duckdb'); print('open', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "open\n"
        at = page(name)
        assert other.stdin and not other.stdin.close()
    assert len(at.error) == 1 and "Traceback" not in at.error[0].value
    assert [b.label for b in at.button] == ["Try again"]
    at.button(key="try_again").click().run()         # the other process has gone
    until = time.monotonic() + 60
    while "Reading the results" in words(at) and time.monotonic() < until:
        at.run()                                     # as the page does by itself
    assert not at.error and "Nothing inspected yet" in words(at)


def test_overview_says_whether_today_is_normal(filled: Path) -> None:
    at = page("overview")
    shown = words(at)
    assert "Line 2: act · 1 normal" in shown and "made-up" not in shown
    worst = jobs.results.lines_now("real").iloc[0]
    assert worst["line"] == "Line 2" and worst["state"] == "act"
    assert at.metric[0].label == f"Last 3 shifts: {text.count(worst.defective)} of {text.count(worst.inspected)} defective"
    assert at.metric[0].value == text.percent(worst["defective"] / worst["inspected"])


def test_an_alarm_of_the_whole_plant_is_not_passed_over_where_each_line_is_normal(plant_folder: Path) -> None:
    inspect("Line 1")
    take_in()
    assert "All lines normal" in words(page("overview")) and "but" not in words(page("overview")).split("All lines normal")[1][:5]
    alarm = dict(id="target|x#1", cause="target|x", kind="target", line="", text="The whole plant: defect rate 5.0 %")
    jobs.record("alarm", alarm)
    assert "All lines normal, but 1 alarm of the whole plant is open" in words(page("overview"))
    jobs.record("alarm-rest", dict(cause="target|x", until=(datetime.now(UTC) + timedelta(hours=1)).isoformat()))
    assert ", but" not in words(page("overview"))


def test_overview_totals_carry_their_n(filled: Path) -> None:
    at = page("overview")
    today = next(m for m in at.metric if m.label == "Defect rate")
    assert " of " in str(today.delta) and today.value.endswith("%")


def test_trends_shows_charts_tables_and_pictures(filled: Path) -> None:
    at = page("trends")
    assert len(at.get("plotly_chart")) == 3 and len(at.dataframe) == 3
    assert "Pictures behind these numbers" in words(at)


def test_hours_and_weekdays_are_shown_in_their_order(filled: Path) -> None:
    assert "Monday" in set(page("trends", where="Weekday", period="All").dataframe[1].value["value"])
    hours = list(page("trends", where="Hour").dataframe[1].value["value"])
    assert hours == sorted(hours)


def test_review_shows_one_picture_at_a_time(filled: Path) -> None:
    at = page("review")
    assert "does not change it" in words(at) or "stays as it is" in words(at)


# -- what a person does -------------------------------------------------------------------------------------------------------------

def test_filters_live_in_the_url(filled: Path) -> None:
    at = page("trends", line="Line 2", period="7 days")
    assert at.selectbox(key="line").value == "Line 2"
    rate = next(m for m in at.metric if m.label == "Defect rate")
    seen = jobs.results.totals(jobs.Filters(line="Line 2", since=jobs.results.choices("real")["last_day"] - timedelta(days=6)))
    assert text.count(seen["units"]) in str(rate.delta)


def test_filters_that_fit_nothing_say_so(filled: Path) -> None:
    at = page("trends", kind="pits", line="Line 1", shift="Night", since=str(jobs.results.choices("real")["last_day"]))
    at.selectbox(key="line").set_value("Line 2")
    at.button(key="clear_filters").click().run()
    assert at.selectbox(key="line").value == "" and at.selectbox(key="shift").value == ""


def test_acknowledge_is_recorded_shown_and_undone(filled: Path) -> None:
    at = page("overview")
    at.text_area[0].set_value("Nozzle is being changed <b>")
    next(b for b in at.button if b.label == "Save").click().run()
    assert not at.exception
    assert "Nozzle is being changed" in words(at)
    assert "Nozzle is being changed" in jobs.results.changes("real").iloc[0]["text"]
    at.button(key="undo_last").click().run()
    assert "Nozzle" not in words(at)


def test_review_is_recorded_and_leaves_the_rate_alone(filled: Path) -> None:
    before = jobs.results.totals(jobs.Filters())
    queue = jobs.results.review_queue("real", 30)
    assert len(queue)
    at = page("review")
    at.text_input(key="reviewer").set_value("Kim").run()
    at.button(key="say_good").click().run()
    kept = jobs.results.reviews("real")
    assert kept.iloc[0]["reviewer"] == "Kim" and kept.iloc[0]["verdict"] == "good"
    assert int(kept.iloc[0]["inspection_id"]) == int(queue.iloc[0]["inspection_id"])
    assert jobs.results.totals(jobs.Filters())["defective"] == before["defective"]
    assert f"{len(queue) - 1} to look at" in words(at)
    at.button(key="undo_last").click().run()
    assert jobs.results.reviews("real").empty and f"{len(queue)} to look at" in words(at)


def test_a_sitting_ends_and_another_can_follow(filled: Path) -> None:
    at = page("review")
    for _ in range(30):
        at.button(key="skip").click().run()
    assert "Nothing left to look at" in words(at)
    at.button(key="again").click().run()
    assert "30 to look at" in words(at)


def test_a_damaged_picture_does_not_block_the_review(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> bytes:
        raise errors.ImageError("The file ends too early.")

    monkeypatch.setattr(jobs.results, "picture", broken)
    at = page("review")
    assert "The file ends too early" in words(at)
    at.button(key="say_good").click().run()
    assert len(jobs.results.reviews("real")) == 1


def test_a_long_name_in_the_url_filters(plant_folder: Path) -> None:
    line = "Press shop, hall 3, cell 14, left side, second shift robot " + "A"
    inspect(line)
    inspect("Line 1")
    take_in()
    at = page("trends", line=line)
    assert at.selectbox(key="line").value == line
    at.selectbox(key="line").set_value("Line 1").run()
    at.selectbox(key="line").set_value(line).run()
    assert at.query_params["line"] in (line, [line])


# -- the demo plant -----------------------------------------------------------------------------------------------------------------

def test_while_the_demo_is_built_there_is_progress(plant_folder: Path) -> None:
    jobs.add_demo()
    at = page("overview")
    assert "made-up data" in words(at) and at.get("progress")


def test_the_demo_is_marked_kept_apart_and_removed_with_one_click(plant_folder: Path) -> None:
    inspect("Line 9", plant="demo")
    take_in()
    at = page("overview")
    assert "Demo plant: made-up data" in words(at) and "Look around in three minutes" in words(at)
    inspect("Line 1")
    take_in()
    at = page("overview")                            # real data is there: it comes first, and alone
    assert "Line 1" in words(at) and "Line 9" not in words(at) and "made-up" not in words(at)
    at.segmented_control(key="plant").set_value("demo").run()
    assert "Line 9" in words(at) and "Line 1" not in words(at)
    at.button(key="remove_demo_now").click().run()
    assert "Line 1" in words(at) and jobs.results.plants().get("demo", 0) == 0


def test_tour_steps_tick_themselves_off(plant_folder: Path) -> None:
    inspect("Line 9", plant="demo")
    take_in()
    at = page("overview")
    assert ":material/counter_1:" in words(at) and ":material/check_circle:] Inspect the sample" in words(at)   # a batch is there
    at.switch_page("pages/trends.py")
    at.query_params["line"] = "Line 9"
    at.run().switch_page("pages/overview.py").run()
    assert ":material/counter_1:" not in words(at) and ":material/counter_2:" in words(at)
    at.button(key="tour_close").click().run()
    assert "three minutes" not in words(at)


def test_the_first_visitor_may_come_by_a_deep_link(plant_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the frame has run once, Streamlit runs a page without the frame; the page brings the frame back."""
    monkeypatch.delitem(sys.modules, "pages.components")
    at = AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60).switch_page("pages/trends.py").run()
    assert not at.exception and at.title[0].value == "Trends" and PagesManager.uses_pages_directory is False


# -- parts --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("value", "said"), [(23 / 2904, "0.8 %"), (0.0594, "5.9 %"), (0.12, "12 %"), (0, "0 %"), (0.0008, "0.08 %"),
                                             (0.00004, "0.004 %"), (float("nan"), "–"), (0.973, "97.3 %"), (1.0, "100 %")])
def test_percent_has_the_digits_a_person_can_use(value: float, said: str) -> None:
    assert text.percent(value) == said


def test_share_shows_its_n() -> None:
    assert text.share(23, 2904) == "0.8 % (23 of 2,904)" and text.share(0, 0) == "nothing inspected"


def test_line_breaks_where_a_shift_is_missing() -> None:
    when = pd.to_datetime(["2026-11-01 06:00", "2026-11-01 14:00", "2026-11-02 06:00", "2026-11-02 14:00", "2026-11-02 22:00"])
    frame = pd.DataFrame(dict(bucket=when, inspected=10, defective=1, rate=0.1, low=0.0, high=0.4, defects=1))
    line = next(t for t in charts.trend(frame, "shift").data if t.mode == "lines+markers")
    assert list(pd.isna(line.y)) == [False, False, True, False, False, False]


def test_a_chart_never_catches_the_wheel_or_the_finger() -> None:
    frame = pd.DataFrame(dict(value=["a", ""], inspected=10, defective=[1, 2], rate=[0.1, 0.2], low=0.0, high=0.4))
    figure = charts.bars(frame)
    assert figure.layout.xaxis.fixedrange and figure.layout.yaxis.fixedrange
    assert list(figure.data[0].customdata) == ["", "a"] and list(figure.data[0].y) == ["(none)", "a"]     # from below


def test_pareto_sets_minor_kinds_apart() -> None:
    frame = pd.DataFrame(dict(class_name=["stain", "pits", "scratch"], defects=[90, 50, 10], units=[90, 40, 10], share=[0.6, 0.33, 0.07],
                              cumulative=[float("nan"), 0.83, 1.0], minor=[True, False, False]))
    bars, running = charts.pareto(frame).data
    assert list(bars.x) == ["pits", "scratch", "stain (minor)"] and list(running.x) == ["pits", "scratch"]


def test_a_picked_shift_means_its_production_day(plant_folder: Path) -> None:
    """The night shift that began on Monday 22:00 is Monday's."""
    assert breakdown._span("2026-11-16T22:00:00", "shift") == dict(since=date(2026, 11, 16), until=date(2026, 11, 16), shift="Night")
    assert breakdown._span("2026-11-16T00:00:00", "week") == dict(since=date(2026, 11, 16), until=date(2026, 11, 22))


def test_names_in_charts_are_escaped_and_come_back_raw() -> None:
    raw, safe = "<a href=x>b</a>", "&lt;a href=x&gt;b&lt;/a&gt;"
    rated = pd.DataFrame(dict(value=[raw], inspected=10, defective=[1], rate=[0.1], low=0.0, high=0.4))
    kinds = pd.DataFrame(dict(class_name=[raw], defects=[9], units=[9], share=[1.0], cumulative=[1.0], minor=[False]))
    pairs = pd.DataFrame(dict(kind=[raw], n=[1], group=[raw]))
    bar, column, stack = charts.bars(rated).data[0], charts.pareto(kinds).data[0], charts.stacked(pairs, "kind", "n", "group").data[0]
    assert list(bar.y) == list(column.x) == list(stack.x) == [safe]
    assert list(bar.customdata) == list(column.customdata) == [raw] and list(stack.customdata[0]) == [raw, raw]
    assert stack.name == charts.scatter(pairs, "n", "n", "group").data[0].name == safe


def test_every_filter_has_its_word() -> None:
    assert set(filters.FIELDS) == set(filters.LABELS)
    assert {f for f, _, _ in filters.FIELDS.values()} <= set(jobs.Filters.__dataclass_fields__)


def test_a_demo_that_is_built_but_not_in_the_charts_yet_is_not_nothing(plant_folder: Path) -> None:
    from backend.jobs import house

    opened = house.opened()
    assert opened.ingest()
    with opened._ingesting:                                      # else it may be in before the page is drawn
        run = rundir.create("demo", jobs.Demo().to_json(), plant="demo")
        rundir.set_state(run, "completed", finished_at=rundir.now())
        at = page("review")
    assert run.exists() and at.get("progress") and "Nothing inspected" not in words(at)


def test_a_first_day_is_a_point_on_a_calendar() -> None:
    """Plotly alone would stretch one point over microseconds."""
    day = pd.Timestamp("2026-03-02")
    one = pd.DataFrame(dict(bucket=[day], inspected=[20], defective=[2], rate=[0.1], low=[0.03], high=[0.3], defects=[3]))
    first, last = charts.trend(one, "day").layout.xaxis.range
    assert pd.Timestamp(first) <= day - pd.Timedelta("6D") and pd.Timestamp(last) > day
