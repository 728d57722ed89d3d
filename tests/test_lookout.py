"""When the lookout looks, and what it says of an alarm that is over: why, and never that all is well where nobody knows.

The plant is that of `test_alerts`: line L1, shifts of eight hours from Monday 1 June on, 20 plates each, one with pits.
"""

from datetime import datetime, timedelta, tzinfo

import numpy as np
import pytest

from backend import rundir
from backend.jobs import alarms, conditions, lookout
from backend.jobs.alarms import Alarm
from backend.jobs.trial import trial
from backend.quality import alarms as false_alarms
from backend.quality.stages import SavedChart
from backend.store import alerts, lines
from backend.store import spc as counts
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant
from tests.test_alerts import MONDAY, at, look, shifts

CALM = [1, 2, 0, 1, 1, 2, 1, 0, 1, 2] * 2 + [1]


@pytest.fixture
def db(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    plant.model("m1")
    monkeypatch.setattr(false_alarms, "RUNS", 1 << 4)
    return db


def charted(db: Database) -> SavedChart:
    """Calm shifts, a chart with limits from them, and somebody who wants to be told."""
    shifts(CALM)
    ingest(db)
    key = [(MONDAY + timedelta(hours=8 * n)).replace(tzinfo=None).isoformat() for n in (0, 19)]
    chart = trial(db, "real", SavedChart(line="L1", since=key[0], until=key[1]), at(21.1)).chart
    run = rundir.run_path(plant.decide("chart", **chart.to_json())) / "job.json"
    rundir.write_json(run, rundir.read_json(run) | {"created_at": at(20.5).isoformat(timespec="microseconds")})
    plant.decide("alert", kind="chart")
    return chart


def it_is(moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of whoever looks without being told the time."""
    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:          # type: ignore[override]
            return moment.astimezone(tz)

    for module in (conditions, lookout, counts, lines):
        monkeypatch.setattr(module, "datetime", Clock)


def ended(db: Database, moment: datetime) -> str:
    """How the one alarm ended, looked at now."""
    found, = look(db, moment)
    assert not found.is_open
    return found.over_text


def opened(db: Database, moment: datetime) -> Alarm:
    found, = look(db, moment)
    assert found.is_open
    return found


def test_a_chart_speaks_at_the_end_of_a_shift_though_nothing_more_comes_in(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    charted(db)
    shifts([9], first=21)
    ingest(db)
    revision = db.revision
    it_is(at(21.98), monkeypatch)
    lookout.look(db)
    assert alarms.alarms(db, "real") == [] and db.revision == revision, "the shift is still under way"
    it_is(at(22.01), monkeypatch)
    lookout.look(db)
    found, = alarms.alarms(db, "real")
    assert found.kind == "chart" and "since Monday 8 June, 06:00" in found.text


def test_a_line_that_stands_still_sends_no_pictures_again(db: Database) -> None:
    shifts([0] * 84, size=2)
    plant.decide("alert", kind="silence", minutes=60)
    opened(db, at(84.1))
    plant.decide("standstill", line="L1", since=at(84).isoformat(), until=at(90).isoformat(), text="Holiday")
    assert ended(db, at(84.2)) == "The line is said to stand still."


def test_a_target_that_is_taken_away_is_not_met(db: Database) -> None:
    shifts([1, 1, 8])
    plant.decide("target", line="L1", value=0.08)
    plant.decide("alert", kind="target", least=10)
    opened(db, at(3.1))
    plant.decide("target", line="L1", value=0.08, removed=True)
    assert ended(db, at(3.2)) == "The target was taken away."


def test_a_rule_that_holds_for_another_line_asks_for_nothing_here(db: Database) -> None:
    shifts([1] * 30 + [9, 9, 9])
    for line in ("L1", "L2"):
        plant.decide("alert", kind="rise", line=line)
    opened(db, at(33.1))
    plant.decide("alert", kind="rise", line="L1", removed=True)
    assert ended(db, at(33.2)) == "Nobody asks for this any more."


def test_a_chart_that_is_put_away_has_not_calmed_down(db: Database) -> None:
    chart = charted(db)
    shifts([9], first=21)
    opened(db, at(22.1))
    plant.decide("retire", chart=chart.chart_id, line="L1")
    assert ended(db, at(22.2)) == "The chart was put away."


def test_of_what_another_model_judges_nobody_knows_whether_it_went_on(db: Database) -> None:
    charted(db)
    shifts([9], first=21)
    found = opened(db, at(22.1))
    plant.model("m2")
    shifts([1, 1, 0], first=22, model_id="m2")
    opened(db, at(25.1))
    plant.decide("alarm-seen", alarm=found.alarm_id, text="Roll 3", by="Kim")
    assert ended(db, at(25.2)) == "Another model judges since, so nobody knows whether it went on."


def test_pictures_of_a_missed_target_are_those_of_the_production_day(db: Database) -> None:
    """A shift that begins before the day does belongs to the day before."""
    plant.decide("calendar", time_zone="UTC", day_start="08:00", shifts=[dict(name="First", start="06:00", end="14:00")])
    shifts([8])
    plant.decide("target", line="L1", value=0.08)
    plant.decide("alert", kind="target", least=10)
    found = opened(db, at(1.1))
    assert {f["production_day"].isoformat() for f in plant.facts(db)} == {"2026-05-31"} == {found.query["since"]}


def test_what_opened_while_its_cause_rested_is_told_when_the_rest_is_over(db: Database) -> None:
    shifts([1] * 30 + [9, 9, 9])
    plant.decide("alert", kind="rise", line="L1")
    first = opened(db, at(33.1))
    plant.decide("alarm-rest", alarm=first.alarm_id, cause=first.cause, until=at(39.5).isoformat(), by="Kim")
    shifts([0, 0, 0], first=33)

    def told() -> list[str]:
        return [job["id"] for run in rundir.find("alarm") if not (job := rundir.read_json(run / "job.json")["config"])["quiet"]]

    assert ended(db, at(36.1))
    shifts([9, 9, 9], first=36)
    again, _ = look(db, at(39.1))
    assert again.is_open and again.quiet and told() == [first.alarm_id]
    awake, _ = look(db, at(39.6))
    assert (awake.alarm_id, awake.quiet, awake.since) == (again.alarm_id, False, again.since)
    assert told() == [again.alarm_id, first.alarm_id]
    look(db, at(39.7))
    assert told() == [again.alarm_id, first.alarm_id], "once"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_the_newest_picture_of_each_line_is_that_of_all_rows(db: Database, zone: str) -> None:
    """Of lines that stopped, that go on, whose clock runs ahead, and through the night in which clocks are set back."""
    plant.decide("calendar", time_zone=zone, day_start="06:00", shifts=[
        dict(name="Long", start="20:00", end="10:00"), dict(name="Day", start="06:00", end="20:00")])
    back, rng = datetime.fromisoformat("2026-10-25T00:00:00+00:00"), np.random.default_rng(0)
    plant.batch([dict(captured_at=back + timedelta(minutes=int(m)), line=line, counted=bool(m % 7))
                 for line, first, last in (("stopped", -60_000, -50_000), ("runs", -9000, 600), ("ahead", -9000, 9000),
                                           ("future", 700, 900))
                 for m in rng.integers(first, last, 60)])
    ingest(db)
    for hours in (-900, -700, -30, -0.4, 0.6, 1.2, 1.9, 3, 11.8, 13, 100, 200):
        until = back + timedelta(hours=hours)
        with db.cursor() as cursor:
            rows = cursor.execute("SELECT line, max(captured_at) AS last FROM facts WHERE counted AND captured_at <= ? GROUP BY line",
                                  [until]).dicts()
        assert alerts.came(db, "real", until) == {r["line"]: r["last"] for r in rows}, hours
