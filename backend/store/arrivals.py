"""Lines that send nothing though they are planned to work: what "nothing has arrived since 06:10" rests on.

Planned is what somebody said of a line, shift by weekday; where nobody did, a shift in which the line worked on that weekday in at least
three of the four weeks before. A line that is said to stand still is not planned. Silence begins with the last picture, or, where that is
of an earlier time of work, with the first of the planned shifts that follow one another up to now. Outside all shifts nobody waits for
anything. Durations are real ones, also over the change of clocks: moments are UTC, and plant time of them keeps which of two equal hours
it is of (`fold`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from backend.store import calendar, lines
from backend.store.database import Database
from backend.store.spc import Clock

WEEKS, ENOUGH = 4, 3
BACK = timedelta(hours=24)             # how far back silence is followed through planned shifts
Plan = Callable[[str], dict[str, list[int]]]           # line -> shift: weekdays; empty: nobody said


@dataclass(frozen=True)
class Silence:
    """Of one line that is planned now. `last` and `since` are plant time, with its fold."""

    line: str
    since: datetime
    last: datetime
    minutes: float
    shift: str                         # in which it is planned now
    begins: bool                       # silence began with the shift: the last picture is older

    @property
    def words(self) -> str:
        when = f"{self.since:%H:%M}" if self.since.date() == self.last.date() else f"{self.since:%A %H:%M}"
        began = f", when work began; the last picture is of {self.last:%A %H:%M}" if self.begins else ""
        return f"Nothing has arrived from {self.line} since {when}{began}"


def silences(db: Database, plant: str, clock: Clock, planned: Plan, stands_still: Callable[[str, datetime], bool]) -> list[Silence]:
    """Of each line that is planned to work at this moment; a line whose pictures just came has few minutes."""
    plan, local, now = clock.plan, clock.local, clock.now
    if not running(plan, local)[0]:
        return []
    with db.cursor() as cursor:
        last = lines.newest(cursor, plant, plan.time_zone, clock.until)
        came = {(r["line"], r["shift"], r["shift_start"]) for r in cursor.execute(
            "SELECT DISTINCT line, shift, shift_start FROM tallies WHERE plant = ? AND counted AND shift_start >= ?",
            [plant, local - timedelta(days=7 * WEEKS + 2)]).dicts()}
    found = []
    for line, at in sorted(last.items()):
        if stands_still(line, now):
            continue
        if window := _window(plan, line, planned(line), came, local):
            shift, begin = window[0], plan.instant(window[1])
            since = max(begin, at)
            minutes = (now - since).total_seconds() / 60
            found.append(Silence(line, plan.local(since), plan.local(at), max(minutes, 0.0), shift, at < begin))
    return found


def _window(plan: calendar.Calendar, line: str, said: dict[str, list[int]], came: set[tuple[str, str, Any]],
            local: datetime) -> tuple[str, datetime] | None:
    """The shift that runs now, and when the planned shifts began that follow one another up to it; None where none is planned now."""
    name, begin = running(plan, local)
    if not name or not _planned(line, name, begin, said, came):
        return None
    first = begin
    while local - first < BACK:
        before, start = running(plan, first - timedelta(minutes=1))
        if not before or not _planned(line, before, start, said, came):
            break
        first = start
    return name, first


def running(plan: calendar.Calendar, local: datetime) -> tuple[str, datetime]:
    """The shift at a moment of plant time, and when it began; '' outside all shifts."""
    name, since = plan.at(local.hour * 60 + local.minute)
    return name, local.replace(second=0, microsecond=0) - timedelta(minutes=since)


def _planned(line: str, shift: str, start: datetime, said: dict[str, list[int]], came: set[tuple[str, str, Any]]) -> bool:
    if said:
        return start.isoweekday() in said.get(shift, [])
    return sum((line, shift, start - timedelta(days=7 * w)) in came for w in range(1, WEEKS + 1)) >= ENOUGH
