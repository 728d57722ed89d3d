"""Shift reports as run directories: what a person wants of them, which were made, and which are to be sent. From files alone, never DuckDB.

A report by schedule has a name that follows from its shift and edition: `<end of the shift>-<edition>-shift-report-<key of the shift>`.
What a person wants is an inline run `report-plan`; the newest that was not taken back holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Config
from backend.jobs import runs

BARE = "report-without-pictures.html"     # beside report.html: what leaves the house unless a channel asks for pictures
SCHEDULE = "schedule"                  # who asked for a report that nobody asked for
PARTS, VERDICTS = "parts", "verdicts"  # why there is a new edition: another number of parts; other verdicts on as many


@dataclass(frozen=True)
class Plan(Config):
    """`to_json` is the config of a `report-plan`."""

    on: bool = True
    channels: list[str] = field(default_factory=list)          # names of channels that each report is sent to


@dataclass(frozen=True)
class Made:
    """One edition of a report. `figures`: None while it is not made."""

    run_id: str
    day: date | None                   # None: the last shift was asked for, and is not known yet; or what was asked for is no day
    shift: str
    edition: int
    at: datetime
    state: str
    message: str
    sentence: str
    status: str                        # act | look | normal
    figures: dict[str, int] | None
    scheduled: bool


def plan() -> Plan:
    """The plan in force; until somebody says otherwise reports are made, and sent nowhere."""
    return _planned()[0]


def _planned() -> tuple[Plan, datetime]:
    """And since when it holds. Asked every few seconds: read again only where a run has come or gone."""
    root = rundir.runs_root()
    return _read(root, root.stat().st_mtime_ns if root.exists() else 0)


@lru_cache(maxsize=4)
def _read(root: Path, changed_ns: int) -> tuple[Plan, datetime]:
    taken_back = rundir.undone()
    path = next((p for p in rundir.find("report-plan") if p.name not in taken_back), None)
    if path is None:
        return Plan(), datetime.min.replace(tzinfo=UTC)
    job = runs.job(path)
    return Plan.from_json(job["config"]), datetime.fromisoformat(job["created_at"])


def channels(path: Path) -> list[str]:
    """Names of the channels that a report goes to: those made by schedule since people asked for it, once they are made; not those that
    are new by their verdicts alone."""
    wanted, since = _planned()
    job = runs.job(path)
    due = job["by"] == SCHEDULE and runs.state(path)["state"] == "completed" and datetime.fromisoformat(job["created_at"]) >= since
    return wanted.channels if due and wanted.channels and not _old_news(path) else []


def _old_news(path: Path) -> bool:
    """Of a first edition nothing is read: it is asked every few seconds."""
    return int(path.name[16:22]) > 1 and rundir.read_json(path / "facts.json")["edition"].get("cause") == VERDICTS


def editions(since: datetime) -> Iterator[tuple[str, Made]]:
    """Reports that the schedule made of shifts that ended since then, the newest shift and edition first, each with its shift's key."""
    oldest = f"{since:%Y%m%d}"
    for path in rundir.find("shift-report"):
        if path.name < oldest:
            return
        if runs.job(path)["by"] == SCHEDULE:
            yield path.name[-6:], _made(path)


def _made(path: Path) -> Made:
    job, state = runs.job(path), runs.state(path)
    done: dict[str, Any] = rundir.read_json(path / "result.json") if (path / "result.json").exists() else {}
    scheduled, day = job["by"] == SCHEDULE, str(done.get("day") or job["config"]["day"])
    return Made(path.name, _day(day), str(done.get("shift") or job["config"]["shift"]),
                int(path.name[16:22]) if scheduled else 1, datetime.fromisoformat(job["created_at"]), state["state"], state["message"],
                str(done.get("sentence") or ""), str(done.get("status") or ""), done.get("figures"), scheduled)


def _day(text: str) -> date | None:
    """A run of an older program may have failed by its day: that must not hide the others."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def reports(plant: str, limit: int = 30) -> list[Made]:
    """Reports that were made, by schedule or by a person, the last made first."""
    found: list[Made] = []
    for path in rundir.find("shift-report"):
        if len(found) < limit and runs.job(path)["plant"] == plant:
            found.append(_made(path))
    return sorted(found, key=lambda m: m.at, reverse=True)
