"""Alarms: what opens one and what does not, one per cause, once through restarts, over by itself, seen and at rest by a person.

The plant: line L1, three shifts of eight hours a day from Monday 1 June on, 20 plates each, one with pits; the present moment is given.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backend import rundir
from backend.errors import ConfigError
from backend.jobs import alarms, conditions, lookout
from backend.jobs.alarms import Alarm
from backend.jobs.trial import trial
from backend.quality import alarms as false_alarms
from backend.quality.alertness import AlertRule, Condition, rule_for, to_open
from backend.quality.stages import SavedChart
from backend.quality.targets import Target, judge
from backend.store import annotations, arrivals, calendar, decisions, lines
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from tests import small_plant as plant

MONDAY = datetime(2026, 6, 1, 6, 0, tzinfo=UTC)
SIZE = 20


@pytest.fixture
def db(db: Database) -> Database:
    """The store that tests share, of a plant with one model."""
    plant.model("m1")
    return db


def shifts(bad: Sequence[int], first: int = 0, size: int = SIZE, **more: object) -> None:
    """So many shifts in a row of plates, evenly apart and the last 24 minutes before the end, of which so many have pits."""
    step = 456 / (size - 1)
    plant.batch([dict(captured_at=MONDAY + timedelta(hours=8 * (first + n), minutes=step * i), line="L1",
                      boxes=[("pits", 0.9)] if i < k else []) | more for n, k in enumerate(bad) for i in range(size)])


def at(shift: float) -> datetime:
    return MONDAY + timedelta(hours=8 * shift)


def look(db: Database, moment: datetime) -> list[Alarm]:
    """Take in, look, and all alarms of the plant."""
    ingest(db)
    lookout.look(db, moment)
    return alarms.alarms(db, "real")


def told(found: Sequence[Alarm]) -> list[tuple[str, bool]]:
    return [(a.text, a.is_open) for a in found]


# ---- rules and targets


def test_targets_are_met_missed_or_too_near_to_say() -> None:
    target = Target(line="L1", value=0.02)
    assert [judge(target, k, 500).state for k in (5, 12, 30)] == ["met", "near", "missed"] and judge(target, 1, 3, 50).state == "few"
    assert judge(target, 30, 500).words == "Defect rate 6.0 % (30 of 500), target at most 2.0 %"
    good = Target(measure="good first time", value=0.98)
    assert [judge(good, k, 500).state for k in (5, 12, 30)] == ["met", "near", "missed"]
    assert "94.0 % (470 of 500)" in judge(good, 30, 500).words
    assert target.target_id != good.target_id and good.where == "the whole plant" and Target(line="L1", value=0.5).owner == target.owner
    with pytest.raises(ConfigError):
        Target(value=1.5)
    with pytest.raises(ConfigError, match="Weekdays"):
        AlertRule(planned={"Early": [8]})


def test_the_rule_on_one_line_goes_first_and_one_cause_opens_once() -> None:
    every, own = AlertRule(minutes=60), AlertRule(line="L1", minutes=240)
    assert rule_for([every, own], "silence", "L1") is own and rule_for([every, own], "silence", "L2") is every
    assert rule_for([own], "rise", "L1") is None
    seen = [Condition("rise", cause, "…", MONDAY, on) for cause, on in (("a", True), ("a", True), ("b", False), ("c", True))]
    assert [c.cause for c in to_open(seen, {"c"})] == ["a"]


# ---- nothing arrives


def test_silence_is_an_alarm_once_and_over_when_pictures_come(db: Database) -> None:
    shifts([0] * 84, size=2)                                                  # four weeks, up to Monday morning
    plant.decide("alert", kind="silence", minutes=60)
    last = at(84) - timedelta(minutes=24)
    assert told(look(db, last + timedelta(minutes=59))) == []
    found, = look(db, last + timedelta(minutes=61))
    assert found.text == "Nothing has arrived from L1 since 05:36" and found.is_open and found.line == "L1" and found.since == last
    assert (found.page, found.query) == ("trends", {"line": "L1"}) and "silence" in found.cause

    # Overview does not call the line normal meanwhile.
    row = alarms.raised(lines.lines_now(db, "real", last + timedelta(minutes=61)), [found], last).iloc[0]
    assert row["state"] == "look" and row["reason"].startswith("Nothing has arrived from L1 since 05:36. As usual:")
    resting = replace(found, rests_until=last + timedelta(hours=1))
    assert alarms.raised(lines.lines_now(db, "real", last + timedelta(minutes=61)), [resting], last).iloc[0]["state"] == "normal"

    # Restarted, looked at again and again, made anew from the runs: it stays one.
    rebuild(db)
    assert len(look(db, last + timedelta(hours=5))) == 1

    # Pictures come: it is over by itself. Silent again: another alarm of the same cause.
    shifts([1], first=84)
    over, = look(db, at(85))
    assert over.over and over.over_text == "Pictures arrive again."
    again = look(db, at(85) + timedelta(hours=3))
    assert [a.is_open for a in again] == [True, False] and again[0].cause == over.cause and again[0].alarm_id != over.alarm_id


def test_nobody_waits_where_no_shift_runs_or_none_is_planned(db: Database) -> None:
    plant.decide("calendar", time_zone="Europe/Berlin", day_start="06:00", shifts=[dict(name="Day", start="06:00", end="14:00")])
    workdays = [d for d in range(28) if d % 7 < 5]
    for d in workdays:
        plant.batch([dict(captured_at=MONDAY - timedelta(hours=2) + timedelta(days=d, hours=h), line="L1") for h in range(8)])
    plant.decide("alert", kind="silence", minutes=45)
    friday = MONDAY + timedelta(days=25, hours=5)                             # 13:00 in Berlin, the last picture was at 13:00
    assert told(look(db, friday + timedelta(minutes=30))) == []
    for moment, why in ((friday + timedelta(hours=6), "no shift runs in the evening"), (friday + timedelta(days=2), "it is Sunday")):
        assert not list(conditions.conditions(db, "real", moment)[0]), why
    monday = MONDAY + timedelta(days=28) - timedelta(hours=2)                 # 06:00 in Berlin
    plant.decide("standstill", line="L1", since=(monday - timedelta(hours=1)).isoformat(), until=(monday + timedelta(hours=2)).isoformat(),
                 text="Holiday")
    assert told(look(db, monday + timedelta(hours=1))) == [], "the line stands still"
    found, = look(db, monday + timedelta(hours=3))
    assert found.text.startswith("Nothing has arrived from L1 since Monday 06:00, when work began; the last picture is of Friday 13:00")
    assert told(look(db, monday + timedelta(hours=20))) == [(found.text, True)], "it stays while nothing came, also after the shift"
    plant.decide("alert", kind="silence", minutes=45, planned={"Day": [2, 3]})
    plan = calendar.Calendar("Europe/Berlin", 360, (calendar.Shift("Day", 360, 840),))
    assert arrivals._window(plan, "L1", {"Day": [2, 3]}, set(), datetime(2026, 6, 29, 8)) is None
    assert arrivals._window(plan, "L1", {"Day": [2, 3]}, set(), datetime(2026, 6, 30, 8)) == ("Day", datetime(2026, 6, 30, 6))


@pytest.mark.parametrize("came", ["00:40", "01:20"])                         # in Berlin 02:40 and 02:20, of the first and the second 02:00
def test_in_the_hour_that_comes_twice_silence_is_as_long_as_it_is(db: Database, came: str) -> None:
    plant.decide("calendar", time_zone="Europe/Berlin", day_start="06:00", shifts=[dict(name="Night", start="22:00", end="06:00")])
    last = datetime.fromisoformat(f"2026-10-25T{came}:00+00:00")
    plant.batch([dict(captured_at=last, line="L1")])
    plant.decide("alert", kind="silence", minutes=20, planned={"Night": [1, 2, 3, 4, 5, 6, 7]})
    assert told(look(db, last + timedelta(minutes=15))) == []
    found, = look(db, last + timedelta(minutes=25))
    assert found.since == last and found.text == f"Nothing has arrived from L1 since {'02:40' if came == '00:40' else '02:20'}"
    assert told(look(db, last + timedelta(hours=6))) == [(found.text, True)], "it stays while nothing came"


# ---- targets, charts, rises


def test_a_missed_target_stays_one_alarm_until_a_shift_meets_it(db: Database) -> None:
    shifts([1, 1, 8])
    plant.decide("target", line="L1", value=0.08)
    assert told(look(db, at(3.1))) == [], "nobody asked to be told"
    plant.decide("alert", kind="target", least=10)
    found, = look(db, at(3.1))
    assert found.text == ("L1: Defect rate 40.0 % (8 of 20), target at most 8.0 %, in the shift from Monday 1 June, 22:00")
    assert found.query == {"line": "L1", "since": "2026-06-01"} and found.hint == "It cannot be said yet where to look first."
    shifts([9, 2], first=3)                                                   # the last, 10 %: chance may explain it
    assert told(look(db, at(5.1))) == [(found.text, True)]
    shifts([1], first=5)
    over, = look(db, at(6.1))
    assert over.over and over.over_text == "The newest shift meets the target."
    plant.decide("target", line="L1", value=0.08, removed=True)
    shifts([9], first=6)
    assert len(look(db, at(7.1))) == 1 and alarms.targets(db, "real") == []


def test_a_chart_alarm_outlives_a_change_of_model(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_alarms, "RUNS", 1 << 4)
    shifts([1, 2, 0, 1, 1, 2, 1, 0, 1, 2] * 2 + [1])
    ingest(db)
    key = [(MONDAY + timedelta(hours=8 * n)).replace(tzinfo=None).isoformat() for n in range(40)]
    chart = trial(db, "real", SavedChart(line="L1", since=key[0], until=key[19]), at(21.1)).chart
    run = rundir.run_path(plant.decide("chart", **chart.to_json())) / "job.json"
    rundir.write_json(run, rundir.read_json(run) | {"created_at": at(20.5).isoformat(timespec="microseconds")})
    plant.decide("alert", kind="chart")
    shifts([9], first=21)
    found, = look(db, at(22.1))
    assert found.kind == "chart" and "More defects than chance explains since Monday 8 June, 06:00" in found.text
    assert found.query == {"chart": chart.chart_id} and found.page == "control"

    # Another model takes over: the new stage is provisional and says nothing yet, so nobody knows whether the process is back.
    plant.model("m2")
    shifts([1, 1, 0], first=22, model_id="m2")
    assert told(look(db, at(25.1))) == [(found.text, True)]
    plant.decide("alarm-seen", alarm=found.alarm_id, text="Roll 3", by="Kim")
    seen, = look(db, at(25.2))
    assert not seen.is_open and (seen.seen_by, seen.seen_text) == ("Kim", "Roll 3")


def test_a_rise_and_what_a_person_lets_rest(db: Database) -> None:
    shifts([1] * 30 + [9, 9, 9])
    plant.decide("alert", kind="rise", line="L1")
    found, = look(db, at(33.1))
    assert found.text.startswith("L1: Pits are up: 45.0 % against usually 5.0 %") and found.class_name == "pits" and not found.quiet
    plant.decide("alarm-rest", alarm=found.alarm_id, cause=found.cause, until=at(60).isoformat(), by="Kim")
    shifts([0, 0, 0], first=33)
    resting, = look(db, at(36.1))
    assert not resting.is_open and resting.rests(at(59)) and not resting.rests(at(61)) and resting.rests_by == "Kim"
    shifts([9, 9, 9], first=36)
    again = look(db, at(39.1))[0]
    assert again.is_open and again.quiet and again.rests(at(39.1)), "it is shown, and nothing is sent of it"
    said = decisions.changes(db, "real")["text"].tolist()
    assert any(s.startswith("An alarm rests until 2026-06-21") for s in said) and any(s.startswith("Alarm rule on L1 set") for s in said)


def test_what_cannot_be_looked_at_closes_nothing(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shifts([1, 1, 8])
    plant.decide("target", line="L1", value=0.08)
    plant.decide("alert", kind="target", least=10)
    plant.decide("alert", kind="a kind that there is not")
    assert told(look(db, at(3.1)))
    monkeypatch.setitem(conditions.KINDS, "target", lambda asked: 1 / 0)
    assert [a.is_open for a in look(db, at(3.2))] == [True]
    monkeypatch.undo()


# ---- notes at a moment


def test_notes_are_changed_and_taken_away_by_later_events(db: Database) -> None:
    first = plant.decide("note", line="L1", at=at(2).isoformat(), text="Roll changed")
    plant.decide("note", at=at(1).isoformat(), text="New lamp", by="Kim")
    plant.decide("note", line="L2", at=at(3).isoformat(), text="Other line")
    ingest(db)
    found = annotations.annotations(db, "real", "L1")
    assert found[["number", "text", "by", "edited"]].values.tolist() == [[1, "New lamp", "Kim", False], [2, "Roll changed", "", False]]
    edit = plant.decide("note", of=first, line="L1", at=at(4).isoformat(), text="Roll 3 changed")
    ingest(db)
    found = annotations.annotations(db, "real", since=at(1.5))
    assert found["text"].tolist() == ["Other line", "Roll 3 changed"] and found["edited"].tolist() == [False, True]
    assert found["note_id"].tolist()[1] == first
    shifts([0], first=3, size=2)
    ingest(db)
    assert lines.lines_now(db, "real", at(4))["note"].tolist() == ["Roll 3 changed"], "on its card too"
    gone = plant.decide("note", of=first, removed=True)
    ingest(db)
    assert lines.lines_now(db, "real", at(4))["note"].tolist() == [""]
    assert "Roll 3 changed" not in annotations.annotations(db, "real")["text"].tolist()
    plant.decide("undo", run_id=gone)
    plant.decide("undo", run_id=edit)
    ingest(db)
    assert "Roll changed" in annotations.annotations(db, "real")["text"].tolist()
