"""Targets, alert rules and alarms of a plant, as they stand now: each an event that later events change, see `store.alerts`.

An alarm is open until its cause is normal again (`alarm-over`), whether or not somebody has seen it; seen is who looked and what they said;
a cause that rests is still watched and shown, and nothing is sent of it. Knows nothing of what makes an alarm.
"""

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pandas as pd

from backend.errors import ConfigError
from backend.quality.alertness import ALWAYS, KINDS, AlertRule
from backend.quality.targets import MEASURES, Target, short
from backend.store import rises
from backend.store.alerts import events
from backend.store.database import Database

__all__ = ["ALWAYS", "KINDS", "MEASURES", "Alarm", "AlertRule", "Target"]
_Owned = TypeVar("_Owned", Target, AlertRule)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alarm:
    """`since`: when its cause began; `opened`: when it was noticed; all moments are UTC."""

    alarm_id: str
    cause: str
    kind: str
    text: str
    since: datetime
    opened: datetime
    line: str = ""
    product: str = ""
    class_name: str = ""
    page: str = "overview"             # where its pictures are seen, and the query of that page
    query: dict[str, str] = field(default_factory=dict)
    hint: str = ""                     # process, camera or model?
    reasons: tuple[str, ...] = ()
    key: str = ""                      # of a control chart: the point at which it spoke
    quiet: bool = False                # nothing was sent of it
    over: datetime | None = None
    over_text: str = ""
    seen_by: str = ""
    seen_text: str = ""
    seen_at: datetime | None = None
    seen_run: str = ""                 # what undo takes
    rests_until: datetime | None = None
    rests_by: str = ""
    rest_run: str = ""

    @property
    def short(self) -> str:
        """For keys of a page: names of lines that are not ASCII, or differ by a dash, keep theirs apart."""
        return short(self.alarm_id)

    @property
    def is_open(self) -> bool:
        return self.over is None

    def rests(self, at: datetime) -> bool:
        return self.rests_until is not None and at < self.rests_until


def targets(db: Database, plant: str) -> list[Target]:
    return _in_force(Target, events(db, plant, "target"))


def rules(db: Database, plant: str) -> list[AlertRule]:
    return _in_force(AlertRule, events(db, plant, "alert"))


def _in_force(kind: type[_Owned], rows: list[dict[str, Any]]) -> list[_Owned]:
    found: dict[tuple[str, ...], _Owned] = {}
    for row in rows:
        try:
            one = kind.from_json({k: v for k, v in row["config"].items() if k != "by"})
        except (ConfigError, TypeError) as error:
            _log.warning("What was set by %s is passed over: %s", row["event_id"], error)
            continue
        found[one.owner] = one
    return sorted((one for one in found.values() if not one.removed), key=lambda one: one.owner)


def standstills(db: Database, plant: str) -> list[dict[str, Any]]:
    """run_id, line ('': the whole plant), since and until (UTC), text, by; oldest first."""
    found = []
    for row in events(db, plant, "standstill"):
        since, until = (_moment(row["config"].get(n)) for n in ("since", "until"))
        if since and until:
            found.append(dict(run_id=row["run_id"], line=str(row["config"].get("line") or ""), since=since, until=until,
                              text=str(row["config"].get("text") or ""), by=_by(row)))
    return found


def alarms(db: Database, plant: str) -> list[Alarm]:
    """All of them, open ones first, then the newest. The state of each follows from later events."""
    found: dict[str, Alarm] = {}
    rests: dict[str, dict[str, Any]] = {}
    for row in events(db, plant, "alarm", "alarm-over", "alarm-seen", "alarm-rest"):
        config = row["config"]
        match row["recipe"]:
            case "alarm":
                new = _opened(row)
                known = found.get(new.alarm_id)                  # told again, once its cause rests no more
                found[new.alarm_id] = replace(known, quiet=known.quiet and new.quiet) if known else new
            case "alarm-rest":
                rests[str(config.get("cause"))] = dict(rests_until=_moment(config.get("until")), rests_by=_by(row), rest_run=row["run_id"])
            case _ if str(config.get("alarm")) in found:
                alarm = found[str(config["alarm"])]
                found[alarm.alarm_id] = _over(alarm, row) if row["recipe"] == "alarm-over" else _seen(alarm, row)
    every = [replace(a, **rests.get(a.cause, {})) for a in found.values()]
    return sorted(every, key=lambda a: (not a.is_open, -a.opened.timestamp()))


def raised(rows: pd.DataFrame, known: list[Alarm], now: datetime) -> pd.DataFrame:
    """States of lines, so that none with an open alarm reads as normal; one at rest is in nobody's way. What somebody said of the alarm
    stands beside, as an acknowledgement does."""
    open_ = {a.line: a for a in reversed(known) if a.is_open and a.line and not a.rests(now)}
    found: list[dict[str, Any]] = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    for row in found:
        alarm = open_.get(row["line"])
        if alarm and row["state"] == "normal":
            row |= dict(state="look", reason=f"{alarm.text.rstrip('.')}. {row['reason']}",
                        acknowledged=row["acknowledged"] or (f"{alarm.seen_text} ({alarm.seen_by})" if alarm.seen_at else ""))
    return pd.DataFrame(rises.worst_first(found), columns=rows.columns)


def _opened(row: dict[str, Any]) -> Alarm:
    config = row["config"]
    text: dict[str, Any] = {n: str(config.get(n) or "") for n in ("cause", "kind", "text", "line", "product", "class_name", "hint", "key")}
    return Alarm(str(config.get("id") or row["event_id"]), since=_moment(config.get("since")) or row["at"], opened=row["at"],
                 page=str(config.get("page") or "overview"), query={str(k): str(v) for k, v in (config.get("query") or {}).items()},
                 reasons=tuple(map(str, config.get("reasons") or ())), quiet=bool(config.get("quiet")), **text)


def _over(alarm: Alarm, row: dict[str, Any]) -> Alarm:
    return alarm if alarm.over else replace(alarm, over=row["at"], over_text=str(row["config"].get("text") or ""))


def _seen(alarm: Alarm, row: dict[str, Any]) -> Alarm:
    return replace(alarm, seen_by=_by(row), seen_text=str(row["config"].get("text") or ""), seen_at=row["at"], seen_run=row["run_id"])


def _by(row: dict[str, Any]) -> str:
    return str(row["config"].get("by") or row["by"] or "")


def _moment(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
