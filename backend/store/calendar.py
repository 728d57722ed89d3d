"""The plant's calendar: its time zone, when its day starts, and its shifts. Default: UTC, three shifts, 06:00.

`clock` turns a calendar into one row per minute of the day, so that a join gives any moment its shift and its production
day. All of it in wall-clock time: on the two days a year when clocks change a night shift is an hour longer or shorter, as
it is in the plant. A shift belongs to the production day on which it began. A limit: where one shift follows another within the hour that
comes twice, what was seen in the second pass of that hour before the change counts for the earlier of the two.
"""

import json
import logging
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

import pyarrow as pa

from backend.errors import ConfigError, NotFoundError
from backend.store.database import Cursor

DAY = 24 * 60
_zones: set[str] = set()                 # that the database knows: asking it again costs more than to count a line's shifts
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shift:
    name: str
    start: int                     # minutes after midnight
    end: int                       # not after start: on the next day

    @property
    def minutes(self) -> int:
        return (self.end - self.start - 1) % DAY + 1

    def since(self, minute: int) -> int | None:
        """Minutes since the shift began, None outside it."""
        gone = (minute - self.start) % DAY
        return gone if gone < self.minutes else None


@dataclass(frozen=True)
class Span:
    """One shift of one production day, as moments in UTC. On the two days a year when clocks change it is longer or shorter."""

    name: str
    day: date
    start: datetime
    end: datetime

    @property
    def hours(self) -> float:
        return (self.end - self.start).total_seconds() / 3600


@dataclass(frozen=True)
class Calendar:
    time_zone: str = "UTC"
    day_start: int = 6 * 60
    shifts: tuple[Shift, ...] = (Shift("Early", 360, 840), Shift("Late", 840, 1320), Shift("Night", 1320, 360))

    @classmethod
    def from_json(cls, config: dict[str, Any]) -> Self:
        """Raises ConfigError. Whether the time zone exists is for `current` to say: the database knows the zones."""
        shifts = tuple(Shift(str(s["name"]), _minute(s["start"]), _minute(s["end"])) for s in config.get("shifts") or [])
        if len({s.name for s in shifts}) < len(shifts) or not all(s.name for s in shifts):
            raise ConfigError("Each shift needs a name of its own.")
        return cls(str(config.get("time_zone") or "UTC"), _minute(config.get("day_start") or "06:00"), shifts)

    def to_json(self) -> dict[str, Any]:
        return {"time_zone": self.time_zone, "day_start": _text(self.day_start),
                "shifts": [{"name": s.name, "start": _text(s.start), "end": _text(s.end)} for s in self.shifts]}

    def at(self, minute: int) -> tuple[str, int]:
        """Shift at a minute of the day and the minutes since it began; outside all shifts: '' and the minutes since the last one
        ended or the day started, so that they never pass for a shift. Where shifts overlap, the one listed first."""
        for shift in self.shifts:
            since = shift.since(minute)
            if since is not None:
                return shift.name, since
        return "", min((minute - edge) % DAY for edge in (self.day_start, *(s.end for s in self.shifts)))

    def clock(self) -> pa.Table:
        """minute, shift, since: one row for each minute of the day."""
        rows = [self.at(m) for m in range(DAY)]
        return pa.table({"minute": pa.array(range(DAY), pa.int16()), "shift": [name for name, _ in rows],
                         "since": pa.array([since for _, since in rows], pa.int16())})

    def span(self, day: date, name: str) -> Span:
        """When the shift of a production day was, or will be. Raises NotFoundError where no shift has that name."""
        shift = next((s for s in self.shifts if s.name == name), None)
        if shift is None:
            raise NotFoundError(f"The plant's calendar has no shift called {name!r}.")
        begin = datetime.combine(day, time()) + timedelta(days=shift.start < self.day_start, minutes=shift.start)
        start, end = (self.instant(at) for at in (begin, begin + timedelta(minutes=shift.minutes)))
        return Span(name, day, start, end)

    def instant(self, local: datetime) -> datetime:
        """A time on the plant's clock as a moment in UTC: of an hour that comes twice the first; one that is skipped is an hour later."""
        return local.replace(tzinfo=ZoneInfo(self.time_zone)).astimezone(UTC)

    def local(self, moment: datetime) -> datetime:
        """A moment on the plant's clock, without a zone as the store keeps it."""
        return moment.astimezone(ZoneInfo(self.time_zone)).replace(tzinfo=None)

    def ended(self, until: datetime, hours: float = 24) -> list[Span]:
        """The shifts that ended within the `hours` before this moment, the newest first."""
        today = self.local(until).date()
        spans = [self.span(today - timedelta(days=back), s.name) for back in range(-1, int(hours // 24) + 3) for s in self.shifts]
        return sorted((s for s in spans if until - timedelta(hours=hours) < s.end <= until), key=lambda s: s.end, reverse=True)

    def complete(self, until: datetime, hours: int = 24) -> list[tuple[str, datetime]]:
        """(name, start) of the shifts that ended within the `hours` before `until` (plant time), newest first."""
        midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
        found = []
        for back in range(hours // 24 + 3):
            for shift in self.shifts:
                start = midnight - timedelta(days=back) + timedelta(minutes=shift.start)
                end = start + timedelta(minutes=shift.minutes)
                if until - timedelta(hours=hours) < end <= until:
                    found.append((shift.name, start))
        return sorted(found, key=lambda s: s[1], reverse=True)


def current(cursor: Cursor, plant: str = "real") -> Calendar:
    """The calendar in force: the latest that makes sense; what makes none is passed over with a warning. One's own plant and the demo share
    it; a plant that is looked after elsewhere (see `lake`) has its own."""
    for event in cursor.execute('SELECT event_id, config FROM events WHERE recipe = \'calendar\' AND NOT undone '
                                "AND (plant = $plant OR plant IN ('real', 'demo') AND $plant IN ('real', 'demo')) "
                                'ORDER BY "at" DESC, event_id DESC', {"plant": plant}).dicts():
        try:
            return check(cursor, event["config"])
        except ConfigError as error:
            _log.warning("The calendar of %s is passed over: %s", event["event_id"], error)
    return Calendar()


def check(cursor: Cursor, config: Any) -> Calendar:
    """The calendar of an event's config (JSON text or dict). Raises ConfigError."""
    try:
        calendar = Calendar.from_json(json.loads(config) if isinstance(config, str) else config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError("The calendar is incomplete: it needs a time zone and, for each shift, a name, a start and an end.") from error
    if calendar.time_zone not in _zones:
        if not cursor.execute("SELECT count(*) FROM pg_timezone_names() WHERE name = ?", [calendar.time_zone]).one():
            raise ConfigError(f"There is no time zone called {calendar.time_zone!r}. It is a name such as Europe/Berlin.")
        _zones.add(calendar.time_zone)
    return calendar


def _minute(text: Any) -> int:
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::00)?", str(text).strip())
    if not found:
        raise ConfigError(f"{text!r} is no time of day; write it as 06:00.")
    return int(found[1]) * 60 + int(found[2])


def _text(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
