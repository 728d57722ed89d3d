"""Shift reports by schedule: after each shift of the real plant, once; and anew where its numbers changed, with the cause: `parts` came
late or were taken out, or `verdicts` on them changed, as by a new threshold. That is nobody's news: such an edition is not sent.

Whoever has the database looks (`look`): the app's process, page open or not, else the messenger. A report that is due becomes a run
that comes with its facts; the supervisor's worker makes the file of it. The name of the run follows from shift and edition, so a report
comes about once, whoever is killed in between. What people want of reports is `report_runs`; sending them is `delivery`'s.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from backend import rundir
from backend.config import ShiftReport
from backend.jobs import report_runs, runs, shift_facts
from backend.jobs.report_runs import Made
from backend.jobs.shift_events import WEEKS
from backend.store import shifts
from backend.store.calendar import Span
from backend.store.database import Database

PLANT = "real"                         # the demo plant stands still: nothing ends there
WAIT = timedelta(minutes=10)           # after the end of a shift, for its last pictures
BACK_H = 48                            # shifts that ended longer ago get no first report: nobody waits for it
ANEW_H = 72                            # nor a new one, whatever comes late
REST = timedelta(minutes=20)           # before the second edition, and twice as long before each next: late pictures rarely come alone
TRIES = 3                              # of one edition, where its worker fails or is killed
_log = logging.getLogger(__name__)


def look(db: Database, at: datetime | None = None) -> list[str]:
    """Make the runs that are due; returns their ids. The database has taken in all there is."""
    now = at or datetime.now(UTC)
    if not report_runs.plan().on:
        return []
    counted = {(r.day, r.shift): r for r in _counted(db, now)}
    made = dict(reversed(list(report_runs.editions(now - timedelta(hours=ANEW_H + 24)))))      # of several editions the newest
    found = [_due(db, span, counted.get((span.day, span.name)), made.get(key_of(span)), now)
             for span in reversed(shifts.plan(db).ended(now - WAIT, ANEW_H))]
    return [run_id for run_id in found if run_id]


@dataclass(frozen=True)
class Count:
    """What there is of one shift."""

    day: date
    shift: str
    figures: dict[str, int]


def _counted(db: Database, now: datetime | None = None) -> Iterator[Count]:
    frame = shifts.shifts(db, PLANT, ANEW_H // 24 + 2, now)
    for day, shift, *figures in zip(frame["day"], frame["shift"], *(frame[n] for n in ("units", "defective", "defects")), strict=True):
        yield Count(day, str(shift), dict(zip(("units", "defective", "defects"), map(int, figures), strict=True)))


def _due(db: Database, span: Span, count: Count | None, last: Made | None, now: datetime) -> str:
    """The run that has to be made for a shift; '' where there is nothing to do."""
    if last is None:
        missed = count is None and any(n >= WEEKS for n in shifts.weeks(db, PLANT, span.day, span.name).values())
        return _make(db, span, dict(number=1, before=0), now) if (count or missed) and now - span.end <= timedelta(hours=BACK_H) else ""
    if last.state in ("failed", "interrupted") and runs.state(rundir.run_path(last.run_id))["attempt"] < TRIES:
        runs.resume(last.run_id)
        return last.run_id
    figures = count.figures if count else dict.fromkeys(("units", "defective", "defects"), 0)
    rests = now - last.at < REST * 2 ** (last.edition - 1)
    if last.state != "completed" or last.figures in (None, figures) or rests:
        return ""
    assert last.figures is not None
    before = last.figures
    return _make(db, span, dict(number=last.edition + 1, before=before["units"], defective_before=before["defective"],
                                cause=report_runs.VERDICTS if before["units"] == figures["units"] else report_runs.PARTS), now)


def _make(db: Database, span: Span, edition: dict[str, Any], now: datetime) -> str:
    """A run with its facts, whole when it appears."""
    run_id = f"{span.end:%Y%m%d-%H%M%S}-{edition['number']:06d}-shift-report-{key_of(span)}"
    config = ShiftReport(day=span.day.isoformat(), shift=span.name, plant=PLANT)
    found = shift_facts.facts(db, PLANT, span.day, span.name, now)
    staged = rundir.create("shift-report", config.to_json(), plant=PLANT, by=report_runs.SCHEDULE, state="staged", run_id=run_id)
    rundir.write_json(staged / "facts.json", dict(facts=found, edition=edition))
    try:
        return rundir.publish(staged).name
    except OSError:                                              # somebody else was faster
        _log.info("%s is there already.", run_id)
        return ""


def key_of(span: Span) -> str:
    """Six digits that stand for a shift of the real plant; another calendar makes other shifts of other times."""
    return hashlib.sha256(f"{PLANT} {span.start.isoformat()} {span.end.isoformat()} {span.name}".encode()).hexdigest()[:6]
