"""`told.json` in the data folder: what only the database knows, left there by whoever has it for whoever has not.

The app writes it, or the messenger where there is no app; the supervisor reads it, for metrics. Only where DIFFSPECT_METRICS asks for them.
"""

import os
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from backend import rundir
from backend.config import data_root

if TYPE_CHECKING:
    from backend.store.database import Database

EVERY_S = 10.0
_next = [0.0]


def wanted() -> bool:
    return bool(os.environ.get("DIFFSPECT_METRICS"))


def tell(db: "Database", taken_in: str) -> None:
    """`taken_in`: when the last look at all runs began; what was on disk then is in."""
    if not wanted() or time.monotonic() < _next[0]:
        return
    from backend.jobs import alarms
    from backend.store import newest, queries

    _next[0] = time.monotonic() + EVERY_S
    lines = [row | dict(at=row["at"].isoformat()) for row in newest.last_pictures(db)]
    there = [plant for plant, n in queries.plants(db).items() if n]
    open_alarms = {plant: Counter(a.kind for a in alarms.alarms(db, plant) if a.is_open) for plant in there}
    rundir.write_json(data_root() / "told.json", dict(taken_in=taken_in, lines=lines, alarms=open_alarms))


def read() -> dict[str, Any]:
    """taken_in (datetime or None), lines (plant, line, at as datetime), alarms (plant -> kind -> how many)."""
    try:
        said = rundir.read_json(data_root() / "told.json")
        lines = [row | dict(at=datetime.fromisoformat(row["at"])) for row in said["lines"]]
        return dict(taken_in=datetime.fromisoformat(said["taken_in"]), lines=lines, alarms=dict(said["alarms"]))
    except (OSError, ValueError, KeyError, TypeError):
        return dict(taken_in=None, lines=[], alarms={})
