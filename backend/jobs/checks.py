"""Is whoever inspects still sound? The imaging check as it stands, and what both checks say of an alarm.

    software ─────────────────► stored pictures, stored scores, today's scores              ┐
    store.masters ────────────► imaging: master parts, shift by shift, as single values     ├─► hint: process, camera or model?
    promotions of late ─────────────────────────────────────────────────────────────────────┘

What is compared and how is `quality.reference`'s. Asks no model.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import pandas as pd

from backend.errors import ConfigError
from backend.jobs import software
from backend.quality import reference, spc
from backend.quality.reference import Hint, Steadiness
from backend.quality.spc import Array, Limits
from backend.quality.stages import needed
from backend.store import masters
from backend.store.alerts import LATELY
from backend.store.database import Database
from backend.store.engineering import MODELS

MOST = 60                              # shifts that limits of master parts come from, at most


@dataclass(frozen=True)
class Imaging:
    """Master parts of one line. `measured`: bucket and the three measures, a shift in which a part was missing left out."""

    line: str
    pieces: int
    measured: pd.DataFrame
    found: list[Steadiness]
    last: datetime                     # when one was photographed last, UTC

    @property
    def moved(self) -> list[Steadiness]:
        return [s for s in self.found if s.now]


def imaging(db: Database, plant: str) -> list[Imaging]:
    return _imaging(db, plant, db.revision)


@lru_cache(maxsize=8)
def _imaging(db: Database, plant: str, revision: int) -> list[Imaging]:
    return [_line(str(line), rows) for line, rows in masters.readings(db, plant).groupby("line", sort=True)]


def _line(line: str, rows: pd.DataFrame) -> Imaging:
    """Scores are those of the newest model alone: another inspector sees the same parts otherwise."""
    rows = _in_use(rows)
    measured: dict[str, pd.Series[float]] = {}
    for measure in reference.MEASURES:
        own = rows[rows["model_id"] == rows["model_id"].iloc[-1]] if measure == "score" else rows
        keys, values = reference.by_shift([b.isoformat() for b in own["bucket"]], own["piece"].tolist(), own[measure].to_numpy(float))
        measured[measure] = pd.Series(values, pd.to_datetime(keys))
    readings: dict[str, Array] = {name: np.asarray(values, np.float64) for name, values in measured.items()}
    found = reference.imaging_check(readings, {name: limits for name, values in readings.items() if (limits := _limits(values))})
    frame = pd.DataFrame(measured).rename_axis("bucket").reset_index()
    return Imaging(line, rows["piece"].nunique(), frame, found, rows["captured_at"].max().to_pydatetime())


def _in_use(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the parts that were photographed in the last shifts. A shift is whole where all parts were: one that was put away, or a name
    mistyped once, would leave none whole for ever. A part in another's place, under a name of its own, begins a new chart."""
    newest = rows["bucket"].drop_duplicates().nlargest(reference.RECENT)
    return rows[rows["piece"].isin(rows.loc[rows["bucket"].isin(newest), "piece"])]


def _limits(values: Array) -> Limits | None:
    """From the first shifts, up to 60 of them, but never from the newest. From 20 alone, one point in a hundred lies outside by chance."""
    many = min(MOST, len(values) - reference.RECENT)
    try:
        return spc.fit("i", values[:many]) if many > needed("i") else None
    except ConfigError:                                          # nothing varies: `imaging_check` says so
        return None


# ---- process, camera or model?


def hint(db: Database, plant: str, line: str = "", alarm: bool = True, at: datetime | None = None) -> Hint:
    """Where to look first when the process of a line has an alarm."""
    steady = next((i.found for i in imaging(db, plant) if i.line == line), [])
    checked = software.now()
    return reference.hint(alarm, steady, checked.check if checked else None, _new_model(db, at or datetime.now(UTC)))


def _new_model(db: Database, at: datetime) -> str:
    """The name of a model that was put to use within the last days; '' where none was."""
    with db.cursor() as cursor:
        return str(cursor.execute(
            f"SELECT coalesce(m.name, e.config->>'$.name', '') FROM events e LEFT JOIN ({MODELS}) m "
            "ON m.model_id = (e.config->>'$.model_id') WHERE e.recipe = 'promote' AND NOT e.undone AND e.\"at\" BETWEEN $since AND $until "
            "AND coalesce(m.kind, e.config->>'$.kind', '') <> 'anomaly' ORDER BY e.\"at\" DESC LIMIT 1",
            {"since": at - LATELY, "until": at}).one() or "")
