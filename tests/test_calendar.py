"""The plant's clock: shifts over midnight and over both changes of clocks, production days, and what another calendar does to all of it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from backend.errors import NotFoundError
from backend.records import Filters
from backend.store import lines, queries, shifts
from backend.store.calendar import Calendar
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from tests import small_plant as plant

THREE = [dict(name="Early", start="06:00", end="14:00"), dict(name="Late", start="14:00", end="22:00"),
         dict(name="Night", start="22:00", end="06:00")]
BERLIN: dict[str, Any] = dict(time_zone="Europe/Berlin", day_start="06:00", shifts=THREE)
SPRING, AUTUMN = date(2026, 3, 28), date(2026, 10, 24)            # production days whose night crosses the change of clocks


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def hourly(first: datetime, hours: int, **more: Any) -> list[dict[str, Any]]:
    """A picture in the middle of each hour."""
    return [dict(captured_at=first + timedelta(hours=n, minutes=30), **more) for n in range(hours)]


@pytest.mark.parametrize(("zone", "day", "start", "end", "hours"), [
    ("Europe/Berlin", SPRING, "2026-03-28T21:00", "2026-03-29T04:00", 7),
    ("Europe/Berlin", AUTUMN, "2026-10-24T20:00", "2026-10-25T05:00", 9),
    ("Europe/Berlin", date(2026, 6, 9), "2026-06-09T20:00", "2026-06-10T04:00", 8),
    ("America/New_York", date(2026, 11, 1), "2026-11-02T03:00", "2026-11-02T11:00", 8),      # the change was the night before
    ("America/New_York", date(2026, 10, 31), "2026-11-01T02:00", "2026-11-01T11:00", 9),
    ("Asia/Kolkata", SPRING, "2026-03-28T16:30", "2026-03-29T00:30", 8),
])
def test_a_night_shift_is_as_long_as_it_is_in_the_plant(zone: str, day: date, start: str, end: str, hours: float) -> None:
    span = Calendar.from_json({**BERLIN, "time_zone": zone}).span(day, "Night")
    assert (span.start, span.end, span.hours) == (utc(start), utc(end), hours)


def test_a_shift_that_begins_before_the_day_does_belongs_to_the_day_before() -> None:
    plan = Calendar.from_json(dict(time_zone="Europe/Berlin", day_start="06:00", shifts=[dict(name="First", start="05:00", end="13:00")]))
    assert plan.span(date(2026, 6, 9), "First").start == utc("2026-06-10T03:00")
    with pytest.raises(NotFoundError, match="no shift called"):
        plan.span(SPRING, "Second")


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
def test_shifts_end_one_after_the_other_through_a_change_of_clocks(day: date) -> None:
    plan = Calendar.from_json(BERLIN)
    night = plan.span(day, "Night")
    ended = plan.ended(night.end, 48)
    assert ended[0] == night and [s.name for s in ended[:4]] == ["Night", "Late", "Early", "Night"]
    assert all(later.start == earlier.end for later, earlier in zip(ended, ended[1:], strict=False))
    assert plan.ended(night.end - timedelta(seconds=1), 48)[0].name == "Late"


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
def test_every_picture_lies_in_the_shift_it_is_counted_in(db: Database, day: date) -> None:
    """Hour by hour over the weekend of the change: what the store says of a picture is the shift that the calendar has at that moment."""
    plant.decide("calendar", **BERLIN)
    plant.batch(hourly(datetime(day.year, day.month, day.day, tzinfo=UTC), 60))
    ingest(db)
    plan, seen = shifts.plan(db), plant.facts(db, "captured_at, production_day, shift, shift_start")
    for row in seen:
        span = plan.span(row["production_day"], row["shift"])
        assert span.start <= row["captured_at"] < span.end and plan.local(span.start) == row["shift_start"], row
    nights = [row for row in seen if (row["production_day"], row["shift"]) == (day, "Night")]
    assert len(nights) == plan.span(day, "Night").hours == (7 if day == SPRING else 9)
    counted = {(r.day, r.shift): r.units for r in shifts.shifts(db, "real").itertuples()}
    assert counted[day, "Night"] == len(nights) and counted[day, "Early"] == 8
    trend = queries.trend(db, Filters(since=day, until=day), "shift")
    assert trend["inspected"].tolist() == [8, 8, len(nights)]                       # one point a shift, none torn by the hour
    assert queries.trend(db, Filters(since=day, until=day))["inspected"].tolist() == [16 + len(nights)]       # a day of 23 or 25 hours


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
def test_no_line_is_called_silent_because_clocks_changed(db: Database, day: date) -> None:
    """Six weeks of every night; the one of the change came too, the next one did not."""
    plant.decide("calendar", **BERLIN)
    plan = Calendar.from_json(BERLIN)
    nights = [plan.span(day - timedelta(days=back), "Night") for back in range(36)]
    plant.batch([dict(captured_at=n.start + timedelta(minutes=90 + 7 * i)) for n in nights for i in range(4)])
    ingest(db)
    now = nights[0].end + timedelta(minutes=5)
    assert "Nothing" not in lines.lines_now(db, "real", now)["reason"][0]
    later = plan.span(day + timedelta(days=1), "Night").end + timedelta(minutes=5)
    assert "Nothing" in lines.lines_now(db, "real", later)["reason"][0]
    assert shifts.weeks(db, "real", day, "Night") == {"L1": 4}


def test_another_calendar_rebuilds_what_was_sorted_and_undo_brings_it_back(db: Database) -> None:
    plant.decide("calendar", **BERLIN)
    plant.batch([*hourly(utc("2026-10-24T00:00"), 48), dict(captured_at=utc("2026-10-25T01:00"), boxes=[("pits", 0.9)])])
    ingest(db)
    before = plant.tables(db)["facts"]
    asked = Filters(since=AUTUMN, until=AUTUMN, shift="Night")
    assert queries.totals(db, asked)["inspected"] == 10
    change = plant.decide("calendar", time_zone="Asia/Tokyo", day_start="08:00", shifts=[dict(name="Night", start="20:00", end="08:00")])
    ingest(db)
    assert queries.totals(db, asked)["inspected"] == 12 and queries.totals(db, asked)["defective"] == 0      # another night: 11 to 23 UTC
    assert queries.choices(db, "real")["shifts"] == ["Night"] and shifts.plan(db).time_zone == "Asia/Tokyo"
    anew = plant.tables(db)
    rebuild(db)
    assert plant.tables(db) == anew                                                 # as if it had always been so
    plant.decide("undo", run_id=change)
    ingest(db)
    assert plant.tables(db)["facts"] == before
