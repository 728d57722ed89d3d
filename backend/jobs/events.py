"""Inline runs: what a person decides (promote, correct, review, …), written complete, without a worker.

Each is a small run directory, so that the database can be made again from run directories alone. Here too: what a new data
folder gets. Knows nothing of DuckDB.
"""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from backend import rundir
from backend.config import RECIPES, Demo
from backend.errors import ConfigError
from backend.jobs import locks, runs

SHIFTS = [dict(name="Early", start="06:00", end="14:00"), dict(name="Late", start="14:00", end="22:00"),
          dict(name="Night", start="22:00", end="06:00")]
_adding = threading.Lock()             # two visitors may ask for the demo at once


def record(recipe: str, config: dict[str, Any], plant: str = "real", by: str = "", before: Callable[[Path], object] | None = None) -> str:
    """Write an inline run; it is complete when it appears. `before` it does, its hidden directory is shown to the audit log; where that
    raises, nothing was decided. Raises ConfigError for a plant that is only looked at from here."""
    assert recipe not in RECIPES, recipe
    if plant not in ("real", "demo"):
        raise ConfigError(f"{plant} is looked after by a Diffspect of its own: decide it there.")
    at = rundir.now()
    staged = rundir.create(recipe, config, plant=plant, by=by, state="staged")
    try:
        rundir.write_json(staged / "result.json", {})
        rundir.set_state(staged, "completed", started_at=at, finished_at=at)
        if before is not None:
            before(staged)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return rundir.publish(staged).name


def move_in() -> None:
    """A folder without a calendar gets this machine's; one without any run the demo plant, which reads the calendar."""
    empty = all(rundir.recipe_of(path.name) == "audit" for path in rundir.find())       # the first account may be older than all else
    set_calendar()
    if empty:
        add_demo()


def add_demo() -> str:
    """Queue the demo plant, unless it is there or on its way."""
    with _adding:
        there = demo_run()
        if there is not None:
            return there.name
        clear_demo()
        return rundir.create("demo", Demo().to_json(), plant="demo").name


def clear_demo() -> None:
    """Take away demo plants that were never finished: what is in of them would count beside the new one, twice the days."""
    for path in list(rundir.find("demo")):
        with locks.hold(path / "lock") as taken:
            if taken and rundir.read_json(path / "state.json")["state"] in ("failed", "canceled", "interrupted"):
                shutil.rmtree(path.rename(path.with_name(f".{path.name}")), ignore_errors=True)


def demo_run() -> Path | None:
    """The run that made the demo plant, or is about to."""
    return next((p for p in rundir.find("demo") if runs.state(p)["state"] in (*rundir.OPEN_STATES, "completed")), None)


def set_calendar() -> None:
    """Where no calendar was ever chosen: three shifts in this machine's time zone."""
    if next(rundir.find("calendar"), None) is None:
        record("calendar", dict(time_zone=time_zone(), day_start="06:00", shifts=SHIFTS), by="installation")


def time_zone() -> str:
    """The machine's time zone by its IANA name; UTC where it does not say."""
    told = Path("/etc/timezone")
    names = [os.environ.get("TZ", "").lstrip(":"), told.read_text().strip() if told.exists() else "",
             os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]]
    for name in filter(None, names):
        with suppress(ValueError, KeyError, OSError):            # not a name, not a zone, not readable
            return ZoneInfo(name).key
    return "UTC"
