"""The shift report: what it says, that it can be printed and mailed whatever people typed, and that each shift gets it exactly once."""

import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backend import rundir
from backend.config import ShiftReport
from backend.errors import ConfigError, NotFoundError
from backend.jobs import (
    channels,
    control,
    delivery,
    events,
    messenger,
    report_runs,
    runs,
    senders,
    shift_events,
    shift_facts,
    shift_plan,
    shift_report,
    worker,
)
from backend.quality import drawings, periods
from backend.quality import report as paper
from backend.quality.stages import SavedChart
from backend.records import Filters
from backend.store import queries, shifts
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant

NIGHT = datetime(2026, 6, 9, 20, tzinfo=UTC)              # 22:00 in Berlin; until 04:00 UTC
AFTER = datetime(2026, 6, 10, 4, 30, tzinfo=UTC)
DAY = date(2026, 6, 9)
CALENDAR: dict[str, Any] = dict(time_zone="Europe/Berlin", day_start="06:00", shifts=[
    dict(name=name, start=start, end=end) for name, start, end in
    (("Early", "06:00", "14:00"), ("Late", "14:00", "22:00"), ("Night", "22:00", "06:00"))])
BAD = "L1 <b>&\"'"                                         # names as people type them
KIND, PRODUCT = "pits<img src=x>", "</script><script>alert(1)</script>"


@pytest.fixture
def db(db: Database) -> Database:
    """The store that tests share, of a plant whose nights end in the morning."""
    plant.decide("calendar", **CALENDAR)
    return db


def shift(line: str, back: int, n: int, bad: int, **more: Any) -> list[dict[str, Any]]:
    """n parts of a night, `back` days before the night of the tests, the first of them bad; spread over its eight hours."""
    start = NIGHT - timedelta(days=back)
    return [dict(line=line, product=PRODUCT, captured_at=start + timedelta(minutes=470 * i / n), kept=False,
                 boxes=[(KIND, 0.9)] if i < bad else [], **more) for i in range(n)]


def nights(bad_now: int = 24) -> list[dict[str, Any]]:
    """Four weeks of two lines at 5 %, then a night in which one is at 40 % and the other sent nothing."""
    usual = [row for back in range(1, 29) for line in (BAD, "L2") for row in shift(line, back, 20, 1)]
    return [*usual, *shift(BAD, 0, 60, bad_now)]


def test_it_says_what_happened_in_the_shift(db: Database) -> None:
    run = plant.batch(nights())
    seen = dict(image_id="demo:1:2a:1:pits", kept=True)
    views = [dict(line=BAD, product=PRODUCT, captured_at=NIGHT + timedelta(hours=1), unit_id="U-1", boxes=[(KIND, c)]) for c in (0.95, 0.9)]
    plant.add(run, [views[0] | seen, views[1] | dict(kept=False)])
    plant.decide("note", line=BAD, at=(NIGHT + timedelta(hours=2)).isoformat(), text="Roll <i>changed</i>")
    plant.decide("note", line=BAD, at=(NIGHT - timedelta(hours=2)).isoformat(), text="of the shift before")
    plant.decide("target", line=BAD, measure="defect rate", value=0.1)
    plant.decide("target", line="L2", measure="defect rate", value=0.1)                       # nothing came: nothing is said
    ingest(db)
    found = json.loads(json.dumps(shift_facts.facts(db, "real", DAY, "Night", AFTER)))       # it crosses as a file
    jpegs = [shift_report.picture(p) for p in found["pictures"]]
    html = paper.html(found, jpegs)

    # numbers: as Trends has them, a part that two cameras saw counted once
    seen_by_trends = queries.totals(db, Filters(since=DAY, until=DAY, shift="Night"))
    assert found["totals"]["units"] == seen_by_trends["units"] == 61 and found["totals"]["defective"] == seen_by_trends["defective"] == 25
    assert (found["usual"]["units"], found["usual"]["defective"]) == (28 * 40, 28 * 2)
    assert found["totals"]["ppm"] == 1e6 and found["totals"]["named"] == 1                    # of parts with a number: one, and bad
    assert [(r["name"], r["state"]) for r in found["lines"]] == [(BAD, "act"), ("L2", "none")]
    assert found["fell_silent"] == [] and found["hours"] == 8 and found["start"] == "2026-06-09T22:00:00" and len(found["hours_of"]) == 8

    # words: what to do first, what is missing, what changed in this shift and not before
    assert "Act on L1 &lt;b&gt;" in html and "41 % against usually 5.0 %".replace("41", "41.0") in html
    assert "L2 sent nothing. It worked in this shift in 4 of the 4 weeks before." in html
    assert "00:00 Note on line L1 &lt;b&gt;&amp;&quot;&#x27;: Roll &lt;i&gt;changed&lt;/i&gt;" in html and "of the shift before" not in html
    assert html.count("data:image/jpeg;base64,") == 1 and "1 picture of 25 defective parts" in html and "true rate" not in html

    assert "Target missed: L1 &lt;b&gt;" in html and [t["state"] for t in found["targets"]] == ["missed"]

    # self-contained, and nothing that people typed is markup
    assert not re.search(r"<script|<img src=x|<i>|<b>&|https?://|\son\w+=", html) and "default-src 'none'" in html
    assert "@page" in html and html.count("<svg") == 6                                        # four charts, a small one for each line


def test_a_bar_of_another_shift_does_not_pass_for_this_one(db: Database) -> None:
    """L2 sent nothing in this night and in one four before; its last bar is the night before's."""
    usual = [row for back in range(1, 29) for line in (BAD, "L2") if (line, back) != ("L2", 4) for row in shift(line, back, 20, 1)]
    plant.batch([*usual, *shift(BAD, 0, 60, 24)])
    ingest(db)
    found = json.loads(json.dumps(shift_facts.facts(db, "real", DAY, "Night", AFTER)))
    recent = {r["name"]: r["recent"] for r in found["lines"]}
    assert [p["at"] for p in recent[BAD]] == [f"2026-06-{d:02d}T22:00:00" for d in range(2, 10)]
    assert [p and p["at"][8:10] for p in recent["L2"]] == ["02", "03", "04", None, "06", "07", "08", None]
    frame, html = f'stroke="{drawings.INK}" stroke-dasharray="2 2"', paper.html(found)
    assert html.count(frame) == html.count("Rates of the last shifts; nothing came in this one") == 1
    dark = [re.findall(f'fill="{drawings.INK}"', drawings.spark(r, "")) for r in recent.values()]
    assert [len(d) for d in dark] == [1, 0] and html.count("Rates of the last shifts") == 2


@pytest.mark.parametrize(("day", "missing"), [(DAY, 2), (date(2026, 3, 1), 0)])
def test_an_empty_shift_is_a_report_too(db: Database, day: date, missing: int) -> None:
    plant.batch([r for r in nights() if r["captured_at"] < NIGHT])
    ingest(db)
    found = shift_facts.facts(db, "real", day, "Night", AFTER)
    html = paper.html(found)
    assert paper.SORRY in html and len(found["missing"]) == missing and found["totals"]["rate"] is None
    with pytest.raises(NotFoundError, match="no shift called"):
        shift_facts.facts(db, "real", day, "Siesta")


def test_it_stays_below_what_mail_servers_take(db: Database) -> None:
    plant.batch(shift(BAD, 0, 30, 20) + [dict(line=f"Line {n} " + "x" * 300, captured_at=NIGHT, kept=False) for n in range(200)])
    ingest(db)
    found = shift_facts.facts(db, "real", DAY, "Night", AFTER)
    one = dict(image_id="x", line="L", product="", kind="pits", at="2026-06-09T23:00:00", unit="", file_name="", boxes=[])
    found["pictures"] = [one] * 12
    html = paper.html(found, [b"x" * 1_000_000] * 11 + [None])
    assert found["fell_silent"] == [] and found["missing"] == []                              # 30 parts say nothing about silence
    assert len(html.encode()) < paper.MOST_BYTES and html.count("data:image") == 3
    assert "9 more could not be shown" in html and "And 141 more." in html


def test_who_falls_silent_is_told_and_who_stands_still_is_not_missed(db: Database) -> None:
    early = [r for r in shift(BAD, 0, 120, 5) if r["captured_at"] < NIGHT + timedelta(hours=5)]
    plant.batch([r for r in nights() if r["captured_at"] < NIGHT] + early)
    plant.decide("standstill", line="L2", since=NIGHT.isoformat(), until=AFTER.isoformat(), text="Maintenance")
    ingest(db)
    found = shift_facts.facts(db, "real", DAY, "Night", AFTER)
    assert found["missing"] == [] and found["fell_silent"] == [f"{BAD} sent nothing after 02:57; the shift ended at 06:00."]
    assert paper.headline(found) == ("normal", "A normal shift")


def test_the_clock_is_told_where_it_changed(db: Database) -> None:
    ingest(db)
    spring, autumn = (paper.html(shift_facts.facts(db, "real", day, "Night", AFTER)) for day in (date(2026, 3, 28), date(2026, 10, 24)))
    assert "Clocks were put forward in it, so it had 7 hours." in spring and "Clocks were set back in it, so it had 9 hours." in autumn
    assert "The shift is still under way" in autumn and "under way" not in spring


def test_each_shift_gets_it_once_and_late_data_makes_it_anew(db: Database, tmp_path: Path) -> None:
    plant.decide("channel", name="Board", kind="file", folder="board")
    plant.decide("report-plan", on=True, channels=["Board"])
    plant.batch(nights())
    ingest(db)
    before = shift_plan.look(db, AFTER - timedelta(minutes=25))                                # not before its last pictures are in
    assert [run[:15] for run in before] == ["20260609-040000"]                                 # the night before had none yet
    made = shift_plan.look(db, AFTER)
    assert [run[:22] for run in made] == ["20260610-040000-000001"] and shift_plan.look(db, AFTER) == []
    db.close()                                                                                 # whoever looks next, after a restart
    again = Database()
    ingest(again)
    assert shift_plan.look(again, AFTER + timedelta(minutes=5)) == []
    path = rundir.run_path(made[0])
    rundir.set_state(path, "interrupted")                                                      # its worker was killed
    assert shift_plan.look(again, AFTER + timedelta(minutes=5)) == made and runs.state(path)["attempt"] == 2
    assert worker.main(made[0]) == 0 and (path / "report.html").read_text().startswith("<!doctype html>")
    assert delivery.deliver(datetime.now(UTC)) == 1 and delivery.deliver(datetime.now(UTC)) == 0
    mail = channels.Channel(name="M", kind="mail", server="relay", sender="a@b.example", to=["c@d.example"])
    letter = senders._letter(mail, delivery.message(path))
    assert letter["Subject"] == f"Diffspect: Shift report Night, 2026-06-09: Act on {BAD}"
    attached, = letter.iter_attachments()
    assert attached.get_filename() == "shift-report-2026-06-09-2200-Night.html"
    assert "Pictures are not sent." in attached.get_content() and "data:image/jpeg" not in attached.get_content()
    whole, = senders._letter(replace(mail, pictures=True), delivery.message(path)).iter_attachments()
    assert "Pictures are not sent." not in whole.get_content() and "Worst pictures" in whole.get_content(), "where it is asked for"
    sent = tmp_path / "alerts" / "board" / "shift-report-2026-06-09-2200-Night.html"
    assert sent.read_bytes() == (path / "report.html").read_bytes()

    plant.batch(shift("L2", 0, 40, 2))                                                         # an upload that came an hour late
    ingest(again)
    now = datetime.now(UTC) + timedelta(minutes=1)                                             # editions rest by the clock of the run
    assert due(again, path, now) == ""
    second = due(again, path, now + shift_plan.REST)
    assert second == made[0].replace("-000001-", "-000002-") and worker.main(second) == 0
    html = (rundir.run_path(second) / "report.html").read_text()
    assert "Edition 2: made again because the number of parts changed (60 before): pictures came" in html and "L2 sent nothing" not in html
    assert delivery.deliver(datetime.now(UTC)) == 1 and sent.read_text() == html               # the folder has the newest
    listed = [m for m in report_runs.reports("real") if m.shift == "Night" and m.day == DAY]
    assert [(m.edition, m.state, m.sentence) for m in listed] == [(2, "completed", f"Act on {BAD}"), (1, "completed", f"Act on {BAD}")]

    plant.decide("policy", class_name=KIND, action="minor")                                    # another rule, and as many parts
    ingest(again)
    third = due(again, rundir.run_path(second), now + 3 * shift_plan.REST)
    assert third and worker.main(third) == 0 and delivery.deliver(datetime.now(UTC)) == 0 and sent.read_text() == html
    assert "Edition 3: made again because verdicts changed (26 defective before)" in (
        rundir.run_path(third) / "report.html").read_text()

    plant.decide("report-plan", on=False)
    assert shift_plan.look(again, AFTER + timedelta(hours=8)) == []                            # the early shift: nobody wants it
    again.close()


def test_a_picture_from_the_future_hides_no_shift(db: Database) -> None:
    plant.batch([*shift(BAD, 0, 20, 1), dict(line=BAD, captured_at=AFTER + timedelta(days=4000), kept=False)])
    ingest(db)
    counted = {(c.day, c.shift): c.figures["units"] for c in shift_plan._counted(db, AFTER)}
    assert counted[DAY, "Night"] == 20


def test_what_was_taken_back_is_told_and_a_made_up_promotion_is_not(db: Database) -> None:
    begun = datetime.now(UTC)
    rule = plant.decide("policy", class_name="pits", action="reject", threshold=0.9)
    plant.decide("undo", run_id=rule)
    plant.model()
    ingest(db)
    with db.cursor() as cursor:                                # as the demo plant's history has them
        cursor.execute("INSERT INTO events VALUES ('d-1', 'd', 'promote', 'demo', $at, '{\"model_id\": \"m1\"}', 'Mia', FALSE)",
                       {"at": datetime.now(UTC)})
    span = replace(shifts.plan(db).span(DAY, "Night"), start=begun, end=datetime.now(UTC) + timedelta(minutes=1))
    rows = shifts.decided(db, "real", span.start, span.end)
    said = [re.sub(r"\d\d:\d\d", "12:00", c["text"]) for c in shift_events.changes(rows, shifts.plan(db), span)]
    assert said == ["Pits: rejected from 90% (taken back at 12:00).", "Taken back: Pits: rejected from 90%."]


def test_charts_by_day_and_week_speak_too(db: Database) -> None:
    span = shifts.plan(db).span(DAY, "Night")
    def said(by: str, at: str, current: bool) -> int:
        alarm = control.Alarm(at, at, at, "high", ("much",), current, True)
        watched = control.Watched(SavedChart(line=BAD, subgroup=by), [], pd.DataFrame(), [], [alarm])
        return len(shift_events.called_by_charts([watched], shifts.plan(db), span))
    assert said("day", "2026-06-09T06:00:00", True) == said("week", "2026-06-08T06:00:00", True) == 1
    assert said("shift", "2026-06-09T22:00:00", False) == 1
    assert said("day", "2026-06-08T06:00:00", False) == said("shift", "2026-06-10T06:00:00", True) == 0     # over before; began after


def due(db: Database, made: Path, now: datetime) -> str:
    """What the schedule has to do for the night of the tests; its clock stands elsewhere than that of the run."""
    span = shifts.plan(db).span(DAY, "Night")
    count = next(c for c in shift_plan._counted(db) if (c.day, c.shift) == (DAY, "Night"))
    return shift_plan._due(db, span, count, report_runs._made(made), now)


def test_by_hand_and_by_asking_whoever_has_the_database(db: Database, tmp_path: Path) -> None:
    plant.batch(nights())
    ingest(db)
    run = rundir.create("shift-report", ShiftReport(day="2026-06-09", shift="Night").to_json())
    shift_report.answer(db)                                                                    # the app's turn
    assert rundir.read_json(run / "facts.json")["facts"]["totals"]["units"] == 60
    wrong = rundir.create("shift-report", ShiftReport(day="2026-06-09", shift="Siesta").to_json())
    shift_report.answer(db)
    assert worker.main(wrong.name) == 1 and "no shift called" in runs.state(wrong)["message"]
    with pytest.raises(ConfigError, match="both the day and the shift"):
        shift_report.asked(db, ShiftReport(day="2026-06-09"))
    db.close()
    out = tmp_path / "out"
    done = worker.foreground(ShiftReport(day="2026-06-09", shift="Night", out=str(out)), "real", lambda _: None)
    told = rundir.read_json(done / "result.json")
    assert told["sentence"] == f"Act on {BAD}" and told["figures"]["units"] == 60
    assert Path(told["file"]) == out / "shift-report-2026-06-09-2200-Night.html" and Path(told["file"]).stat().st_size > 5000


@pytest.mark.parametrize("day", ["29.11.2026", "0001-01-01", "9999-12-31", "2026-02-30"])
def test_what_is_no_day_is_refused_and_hides_no_report(data_folder: Path, day: str) -> None:
    with pytest.raises(ConfigError, match="2026-11-29|1970 to 9000"):
        ShiftReport(day=day, shift="Night")
    rundir.create("shift-report", ShiftReport(day="2026-06-09", shift="Night").to_json() | dict(day=day))       # by an older program
    assert [m.shift for m in report_runs.reports("real")] == ["Night"]


def test_a_report_that_cannot_be_answered_stops_no_other_and_no_alarm(db: Database) -> None:
    wrong = rundir.create("shift-report", ShiftReport(day="2026-06-09", shift="Siesta").to_json())
    damaged, good = (rundir.create("shift-report", ShiftReport(day="2026-06-09", shift="Night").to_json()) for _ in range(2))
    (damaged / "job.json").write_text("{")
    ingest(db)
    shift_report.answer(db)
    told = [rundir.read_json(run / "facts.json") for run in (wrong, damaged, good)]
    assert ["error" in known for known in told] == [True, True, False] and told[1]["attempt"] == 1
    (good / "state.json").unlink()
    (good / "state.json").mkdir()                                                              # now nobody can be answered
    with pytest.raises(IsADirectoryError):
        shift_report.answer(db)
    db.close()
    plant.batch([dict(line="L1", captured_at=datetime.now(UTC) - timedelta(hours=2))])
    plant.decide("alert", kind="silence", minutes=30, planned={name: [1, 2, 3, 4, 5, 6, 7] for name in ("Early", "Late", "Night")})
    assert messenger.look() and len(list(rundir.find("alarm"))) == 1
    shutil.rmtree(good)

    # taken up again, it is asked anew, although the app wrote the error of the first attempt once more
    assert worker.main(wrong.name) == 1 and "Siesta" in runs.state(wrong)["message"]
    rundir.write_json(wrong / "facts.json", told[0])
    rundir.write_json(wrong / "job.json", rundir.read_json(wrong / "job.json") | dict(config=ShiftReport(
        day="2026-06-09", shift="Night").to_json()))
    runs.job.cache_clear()                                                    # job.json never changes, but here
    runs.resume(wrong.name)
    assert worker.main(wrong.name) == 0 and (wrong / "report.html").exists()


def test_a_shift_has_ended_also_when_its_hour_comes_again(db: Database) -> None:
    plant.decide("calendar", time_zone="Europe/Berlin", day_start="06:00", shifts=[dict(name="Night", start="22:00", end="02:15")])
    ingest(db)
    again = datetime(2026, 10, 25, 1, 5, tzinfo=UTC)                                           # the second 02:05
    assert shift_report.last(db, "demo", shift_plan.shifts.plan(db), again).day == date(2026, 10, 24)


def test_a_difference_is_told_with_its_interval() -> None:
    """Newcombe's own example (Statistics in Medicine 17, 1998, table II): 56 of 70 against 48 of 80."""
    found = periods.difference((56, 70), (48, 80))
    assert [found.low, found.value, found.high] == pytest.approx([0.0524, 0.2, 0.3339], abs=5e-5)
    assert periods.sentence(found) == "20 points more than before (60.0 %): surely more, by 5.2 to 33 points"
    same = periods.sentence(periods.difference((11, 500), (20, 1000)), "last week")
    assert same.startswith("0.2 points more than last week (2.0 %): chance alone explains that")
    uneven = [(40, 100), (0, 100), (0, 100), (0, 100), (0, 100)]                               # days as they come: once all is bad
    apart = periods.difference((75, 500), (40, 500), [(15, 100)] * 5, uneven)
    assert not apart.sure and apart.uneven and "not sure, for days differ as much among themselves" in periods.sentence(apart)
    assert periods.difference((75, 500), (40, 500), uneven, [(8, 100)] * 5).sure                # a change within the week is no spread
    assert periods.sentence(periods.difference((0, 0), (1, 10))) == "nothing was inspected"


def test_what_is_wanted_is_a_decision_like_any(db: Database) -> None:
    assert report_runs.plan() == report_runs.Plan(True, [])
    run = events.record("report-plan", dict(on=False, channels=[]))
    assert not report_runs.plan().on
    events.record("undo", dict(run_id=run))
    assert report_runs.plan().on
