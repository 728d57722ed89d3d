"""Which pictures of a plant another model can be shown: those that count in its trends, of the last days, and still on disk.

Reads run directories alone, with what people corrected, took out or put in since, so that it means the pictures that the store counts;
of a picture that came twice the first of these days (one that came earlier still the store leaves out). The days are the plant's own
and end with the newest picture, not with the clock: a plant that stood still is looked back on all the same. Knows nothing of models.
"""

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backend import rundir
from backend.config import Shadow
from backend.data import images
from backend.errors import InputError
from backend.inspection import capture, keeping
from backend.records import SCHEMAS

AHEAD = timedelta(hours=1)              # a camera clock may run ahead of ours by this much, as the overview allows
COLUMNS = ["inspection_id", "image_id", "line", "product", "captured_at", "ingested_at", "counted", "not_counted_why", "kept", "kept_share"]
_SCHEMA = pa.schema([SCHEMAS["inspections"].field(name) for name in COLUMNS])


@dataclass(frozen=True)
class Chosen:
    """Pictures to look at again, and how many of those that count are not among them, and why."""

    since: datetime
    until: datetime
    images: list[str]                   # every beginning of the list is spread evenly over lines and days
    pictures: int                       # that count in these days
    unkept: int                         # were not kept, or lie on disk for a reason of their own
    learned: int                        # the model learned from them
    gone: int                           # were kept and are not on disk any more
    there: int                          # can be looked at; more than `images` where fewer were asked for

    def figures(self) -> dict[str, Any]:
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in asdict(self).items() if k != "images"}


def choose(config: Shadow, now: datetime, learned: set[str]) -> Chosen:
    """`now`: when it was asked; later pictures come from a clock that runs ahead. Raises InputError where no picture counts."""
    rows = _counting(config, now + AHEAD)
    if not rows.num_rows:
        where = ", ".join(filter(None, (config.line, config.product))) or "this plant"
        raise InputError(f"No picture of {where} counts in the trends, so there is nothing to look back on.")
    until = pc.max(rows["captured_at"]).as_py()
    since = first_moment(until, config.days, capture.plant_zone(), capture.day_start())
    rows = _once(_from(rows, since))

    # Out of all that count: what was kept by lot, is not what the model learned from, and still lies there.
    ids: list[str] = rows["image_id"].to_pylist()
    kept = [k and keeping.drawn(i, s) for i, k, s in zip(ids, rows["kept"].to_pylist(), rows["kept_share"].to_pylist(), strict=True)]
    new = [k and i not in learned for i, k in zip(ids, kept, strict=True)]
    there = np.flatnonzero([n and on_disk(i) for i, n in zip(ids, new, strict=True)])

    days = (rows["captured_at"].to_numpy() - np.datetime64(since.replace(tzinfo=None))) // np.timedelta64(1, "D")
    strata = [f"{line}\n{day}" for line, day in zip(rows["line"].to_pylist(), days.tolist(), strict=True)]
    order = there[spread([ids[i] for i in there], [strata[i] for i in there])][:config.pictures]
    return Chosen(since, until, [ids[i] for i in order], pictures=len(ids), unkept=len(ids) - sum(kept), learned=sum(kept) - sum(new),
                  gone=sum(new) - len(there), there=len(there))


def first_moment(last: datetime, days: int, zone: ZoneInfo, day_start: timedelta) -> datetime:
    """UTC start of the first of so many days, the one of `last` included, on the plant's clock."""
    day = (last.astimezone(zone) - day_start).date() - timedelta(days=days - 1)
    return (datetime.combine(day, time(), zone) + day_start).astimezone(UTC)


def on_disk(image_id: str) -> bool:
    """Pictures of the demo plant are drawn when they are wanted."""
    return image_id.startswith("demo:") or images.path_of(image_id) is not None


def spread(ids: list[str], strata: list[str]) -> np.ndarray:
    """An order, (n,) places, of which every beginning holds the same share of each stratum; within one by lot, always the same.

    Not every n-th: cameras take turns, and every second picture would be of one camera.
    """
    lot = np.array([int(hashlib.sha256(i.encode()).hexdigest()[:12], 16) / 2**48 for i in ids])
    _, stratum, size = np.unique(np.array(strata, str), return_inverse=True, return_counts=True)
    by_lot = np.lexsort((lot, stratum))
    rank = np.empty(len(ids))
    rank[by_lot] = np.arange(len(ids)) - (np.cumsum(size) - size)[stratum[by_lot]]
    return np.lexsort((lot, (rank + lot) / size[stratum]))


# ---- from run directories

def _counting(config: Shadow, latest: datetime) -> pa.Table:
    """Rows that count, of the days asked for and perhaps a day more; the newest run first, so that what ended before need not be read."""
    said, margin = Said(), timedelta(days=config.days + 1)
    found, newest = [_SCHEMA.empty_table()], datetime(1, 1, 3, tzinfo=UTC) + margin
    for path in rundir.find():
        rows = _only(said.corrected(path.name, _inspections(path, config.plant, newest - margin)), config, latest)
        if rows.num_rows:
            newest = max(newest, pc.max(rows["captured_at"]).as_py())
            found.append(_from(rows, newest - margin))
    return pa.concat_tables(found)


def _inspections(path: Path, plant: str, begin: datetime) -> pa.Table:
    """Of one run; none where it is another plant's, or had ended before `begin`: nothing is taken after it was inspected."""
    try:
        parts = rundir.parts(path, "inspections")
        if parts and rundir.read_json(path / "job.json")["plant"] == plant:
            ended = rundir.read_json(path / "state.json")["finished_at"]
            if ended is None or datetime.fromisoformat(ended) + AHEAD >= begin:
                return pa.concat_tables([rundir.read_part(p, COLUMNS) for p in parts])
    except (OSError, ValueError, KeyError):              # taken away meanwhile, or damaged, which the store names: Arrow's are ValueErrors
        pass
    return _SCHEMA.empty_table()


def _only(rows: pa.Table, config: Shadow, latest: datetime) -> pa.Table:
    """Those of the line and product asked for that count, as `facts` has it."""
    counts = pc.and_(pc.or_(rows["counted"], pc.equal(rows["not_counted_why"], "no line")), pc.not_equal(rows["line"], ""))
    for name in ("line", "product"):
        if wanted := getattr(config, name):
            counts = pc.and_(counts, pc.equal(rows[name], wanted))
    return rows.filter(pc.and_(counts, pc.less_equal(rows["captured_at"], _moment(latest))))


def _from(rows: pa.Table, since: datetime) -> pa.Table:
    return rows.filter(pc.greater_equal(rows["captured_at"], _moment(since)))


def _moment(at: datetime) -> pa.Scalar:
    return pa.scalar(at, _SCHEMA.field("captured_at").type)


def _once(rows: pa.Table) -> pa.Table:
    """Of a picture that came more than once the first; in the order of time."""
    rows = rows.sort_by([("ingested_at", "ascending"), ("inspection_id", "ascending")])
    seen: dict[str, int] = {}
    for n, image_id in enumerate(rows["image_id"].to_pylist()):
        seen.setdefault(image_id, n)
    return rows.take(pa.array(seen.values(), pa.int64())).sort_by([("captured_at", "ascending"), ("inspection_id", "ascending")])


class Said:
    """What people said of batches and pictures since: other details, taken out of trends, put in. The latest word on each thing holds."""

    def __init__(self) -> None:
        self._of: dict[str | int, dict[str, tuple[str, Any]]] = {}          # of a run or a picture: field -> (when, what)
        taken_back, self._zone = rundir.undone(), capture.plant_zone()
        for path in rundir.completed("correct", "exclude", "include"):      # newest first
            if path.name not in taken_back:
                config, recipe = rundir.read_json(path / "job.json")["config"], rundir.recipe_of(path.name)
                fields = config.get("fields") or {} if recipe == "correct" else {"counted": recipe == "include"}
                for key in config.get("inspection_ids") or [config.get("run_id")]:
                    self._of.setdefault(key, {}).update({k: (path.name, v) for k, v in fields.items() if k not in self._of[key]})

    def corrected(self, run_id: str, rows: pa.Table) -> pa.Table:
        ids = set(rows["inspection_id"].to_pylist()) if any(isinstance(key, int) for key in self._of) else set()
        if run_id not in self._of and self._of.keys().isdisjoint(ids):
            return rows
        return pa.Table.from_pylist([self._fixed(run_id, row) for row in rows.to_pylist()], _SCHEMA)

    def _fixed(self, run_id: str, row: dict[str, Any]) -> dict[str, Any]:
        whole, own = self._of.get(run_id, {}), self._of.get(row["inspection_id"], {})
        said = {k: max(d[k] for d in (whole, own) if k in d)[1] for k in whole.keys() | own.keys()}
        if "counted" in said:
            row |= {"not_counted_why": ""}
        at = self._read(said.pop("captured_at", None)) or row["captured_at"]
        return row | {k: v for k, v in said.items() if k in row and v is not None} | {"captured_at": at}

    def _read(self, text: Any) -> datetime | None:
        """A time without an offset is plant time."""
        try:
            at = datetime.fromisoformat(str(text))
        except ValueError:
            return None
        return (at if at.tzinfo else at.replace(tzinfo=self._zone)).astimezone(UTC)
