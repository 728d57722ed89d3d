"""The points of a control chart: its subgroups in the order of time, which of them can be judged, and where another model took over.

Stands between `store.spc`, which counts, and `quality.stages`, which judges. Set aside, shown but never judged: a subgroup still under
way; one so small that a single defect would break the limits; one that another model judged for once (a trial batch is no promotion).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from backend.quality import spc
from backend.quality.stages import Promotion, SavedChart, Step
from backend.records import Filters
from backend.store import spc as counts
from backend.store.database import Database

UNDER_WAY, SMALL, OTHER = "still under way", "too few parts to judge", "judged by another model"
FEWEST = 0.1                   # expected defects: of fewer, a single one lies above three standard errors, and comes by chance once in ten
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Points:
    """`frame`: key, bucket, units and defective (not of g and t), count, size (NaN where the kind has none), aside ('' or why), model."""

    frame: pd.DataFrame
    promotions: list[Promotion]
    steps: dict[str, str]              # key of a promotion -> what both models say of the same pictures

    @property
    def judged(self) -> pd.DataFrame:
        return self.frame[self.frame["aside"] == ""]

    def asked(self, kind: str) -> tuple[list[str], Array, Array | None]:
        """What `quality.stages` asks for: keys, counts, sizes."""
        rows = self.judged
        return rows["key"].tolist(), rows["count"].to_numpy(float), rows["size"].to_numpy(float) if spc.KINDS[kind].sized else None


def points(db: Database, plant: str, chart: SavedChart, clock: counts.Clock, since: str = "") -> Points:
    """Of a chart, from the subgroup `since` on; '': all there are."""
    filters = Filters(plant, chart.line, chart.product, class_name=chart.characteristic)
    if chart.subgroup == "defect":
        frame = counts.gaps(db, filters, clock, since)
    else:
        begin = datetime.fromisoformat(since).date() - timedelta(days=1) if since else None
        frame = counts.subgroups(db, filters.but(since=begin), chart.subgroup, clock)
    frame = frame[frame["key"] >= since].reset_index(drop=True)
    frame = frame.assign(**_measured(chart.kind, frame), aside=np.where(frame["ended"], "", UNDER_WAY))
    _small(frame, chart)
    taken_over = _taken_over(frame)
    steps = {key: counts.step(db, filters, old, new) for key, old, new, _ in taken_over}
    return Points(frame, [Promotion(key, name, _step(steps[key])) for key, _, _, name in taken_over],
                  {key: _told(step) for key, step in steps.items() if step and step["looked"]})


def _measured(kind: str, frame: pd.DataFrame) -> dict[str, Any]:
    """Count and size, as this kind of chart has them. Single values are shares of defective units."""
    match kind[0]:
        case "p":
            return dict(count=frame["defective"], size=frame["units"])
        case "u":
            return dict(count=frame["defects"], size=frame["units"])
        case "i":
            return dict(count=frame["defective"] / frame["units"], size=np.nan)
        case _:
            return dict(count=frame["good" if kind == "g" else "hours"], size=np.nan)


def _small(frame: pd.DataFrame, chart: SavedChart) -> None:
    if not spc.KINDS[chart.kind].sized or frame.empty:
        return
    center = chart.limits.get("center") or frame["count"].sum() / frame["size"].sum()
    if frame["count"].sum():
        frame.loc[(frame["aside"] == "") & (center * frame["size"] < FEWEST) & (frame["size"] < frame["size"].median()), "aside"] = SMALL


def _taken_over(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """(key, old model, new model, its name) of each point from which on another model judges; sets lone ones of another model aside."""
    rows = frame[frame["aside"] == ""]
    models: list[str] = rows["model_id"].tolist()
    found: list[tuple[str, str, str, str]] = []
    current = models[0] if models else ""
    for at, key, name, model, after in zip(rows.index, rows["key"], rows["model"], models, [*models[1:], None], strict=False):
        if model != current and after == current:
            frame.loc[at, "aside"] = OTHER
        elif model != current:
            found.append((str(key), current, model, str(name)))
            current = model
    return found


def _step(found: dict[str, Any] | None) -> Step | None:
    """Its shares as counts of pictures: what limits are moved by."""
    if not found or not found["looked"]:
        return None
    cells = {name: round(found[name] * found["looked"]) for name in ("both", "only_old", "only_new")}
    return Step(max(found["looked"], sum(cells.values())), **cells)


def _told(step: dict[str, Any]) -> str:
    said = (f"Of the same {step['looked']:,} pictures the model before rejects {step['was']:.2%}, the new one {step['would']:.2%} "
            f"({step['low']:+.2%} to {step['high']:+.2%}).")
    return said.replace("%", " %")
