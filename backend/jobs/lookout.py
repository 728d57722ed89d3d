"""The lookout: opens an alarm once per cause and closes it when its cause is normal again.

Whoever has the database looks: the app's process while there is one, page open or not, else the messenger, a child of the supervisor
(`messenger`). Both take in what is new first, so an alarm that was opened before a kill is known and not opened again; DuckDB lets one
process have the file, so nobody opens one beside. An alarm and its end are inline runs, and what is sent of them is `delivery`'s. One that
opened while its cause rested, and goes on unseen when the rest is over, is written down again, to be sent then.
"""

import logging
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from backend import rundir
from backend.jobs import alarms, checks, conditions, events, runs
from backend.quality.alertness import Condition, to_open
from backend.store import ingest, queries
from backend.store.database import Database

EVERY_S = 30.0                         # between two looks; nothing changes in a plant that a person has to know sooner
PROCESS = ("target", "chart", "rise")  # alarms of the process: of these it is asked whether camera or model may be the cause
_looking = threading.Lock()
_log = logging.getLogger(__name__)


def look(db: Database, at: datetime | None = None) -> list[str]:
    """Evaluate all plants; returns the runs that were written. The database has taken in all there is."""
    with _looking:
        made = [run for plant in _plants(db) for run in evaluate(db, plant, at)]
        if made:
            ingest.ingest(db, made)
        return made


def _plants(db: Database) -> list[str]:
    """With data; not the demo plant while it is being built, nor one that never asked for anything and has nothing open."""
    building = any(runs.state(p)["state"] in rundir.OPEN_STATES for p in rundir.find("demo"))
    return [plant for plant, n in queries.plants(db).items() if n and not (plant == "demo" and building)]


def evaluate(db: Database, plant: str, at: datetime | None = None) -> list[str]:
    """Open what is new, tell of what rests no more, close what is over."""
    known = alarms.alarms(db, plant)
    open_alarms = {a.cause: a for a in known if a.is_open}
    found, unknown = conditions.conditions(db, plant, at)
    now = at or datetime.now(UTC)
    made = [events.record("alarm", _config(db, plant, c, known, now), plant, "lookout") for c in to_open(found, open_alarms)]
    made += [events.record("alarm", _config(db, plant, c, known, now) | dict(id=open_alarms[c.cause].alarm_id), plant, "lookout")
             for c in found if _woken(c, open_alarms.get(c.cause), now)]
    there = {c.cause for c in found}
    for cause, alarm in open_alarms.items():
        if cause not in there and alarm.kind not in unknown:
            made.append(events.record("alarm-over", dict(
                alarm=alarm.alarm_id, cause=cause, kind=alarm.kind, line=alarm.line, text=conditions.why_over(db, plant, alarm, at),
                was=alarm.text, quiet=alarm.quiet or alarm.rests(now)), plant, "lookout"))
    return made


def _woken(condition: Condition, alarm: alarms.Alarm | None, now: datetime) -> bool:
    """Whether something is to be sent of an open alarm of which nothing was."""
    return alarm is not None and alarm.quiet and condition.on and condition.send and not alarm.rests(now) and not alarm.seen_at


def _config(db: Database, plant: str, condition: Condition, known: list[alarms.Alarm], now: datetime) -> dict[str, Any]:
    """What is written down of an alarm. `quiet`: its cause rests, so nothing is sent."""
    config = asdict(condition) | dict(since=condition.since.isoformat(), query=dict(condition.query))
    del config["on"], config["send"]
    rests = any(a.rests(now) for a in known if a.cause == condition.cause)
    config |= dict(id=f"{condition.cause}#{1 + sum(a.cause == condition.cause for a in known)}", quiet=rests or not condition.send)
    if condition.kind in PROCESS:
        try:
            hint = checks.hint(db, plant, condition.line, at=now)
            config |= dict(hint=hint.words, reasons=list(hint.reasons))
        except Exception:                                        # an alarm without a hint is better than none
            _log.exception("Where to look first could not be said.")
    return config
