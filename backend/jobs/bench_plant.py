"""A plant of any size for `bench dashboard`: run directories as inspections leave them, drawn from a seed, a day at a time.

Six lines, three shifts, 500 pictures a shift and line: a larger plant is one with a longer past, and its last days are those of a smaller
one. On two lines a part has two sides, two pictures; on a third, parts carry serial numbers and 2 % of them come again two shifts later;
every 5,000th picture came twice. Pits on Line 2 drift in the last month, a second model took over 100 days before the end, an anomaly
model looks since 60. Nothing is drawn but rows: of a picture that is kept, no file is there. Each day is one run with one part a table, so
a stopped preparation goes on with the day it was at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from backend import rundir
from backend.jobs import events
from backend.records import inspection_ids

Array = np.ndarray[Any, np.dtype[Any]]
LINES, PER_SHIFT, BATCH = 6, 500, 500
DAY = 3 * LINES * PER_SHIFT
PRODUCTS = ("Plate", "Frame", "Cover", "Bracket")
CLASSES = ("crack", "dent", "pits", "scale", "scratch", "stain")
SHARES = np.array([0.06, 0.1, 0.28, 0.1, 0.31, 0.15])
DETECTIONS = 0.3                               # raw ones a picture; one in seven passes
PASSING = 0.15
NEW_SINCE, ODD_SINCE, DRIFT_SINCE = 100, 60, 30                # days before the end
THRESHOLDS = (0.5, 0.4, 0.3, 0.6, 0.3, 0.5)
MODELS = ("bench-old", "bench-new", "bench-odd")
MORNING = "-061500-000000-"                    # in the name of a drawn day's run
CALENDAR = dict(time_zone="Europe/Berlin", day_start="06:00", shifts=events.SHIFTS)


@dataclass(frozen=True)
class Plan:
    """How large a past, drawn from which seed, and its last production day. Days are counted back from that, 0."""

    rows: int
    seed: int
    last: date

    @property
    def days(self) -> int:
        return -(-self.rows // DAY)

    def day(self, back: int) -> date:
        return self.last - timedelta(days=back)

    def size(self, back: int) -> int:
        """All days are full but the first of the past."""
        return DAY if back != self.days - 1 else self.rows - (self.days - 1) * DAY

    def run_id(self, back: int) -> str:
        """Of the morning after, as a plant that hands its pictures over once a day would have it."""
        return f"{self.day(back) + timedelta(days=1):%Y%m%d}{MORNING}inspect-{self.seed % 16**6:06x}"


def prepare(plan: Plan) -> Iterator[int]:
    """Write what is not there yet; yields the number of pictures written or found, day by day."""
    if next(rundir.find("calendar"), None) is None:
        events.record("calendar", CALENDAR, by="installation")
    if next(rundir.find("train-detector"), None) is None:
        _models()
    there = {p.name for p in rundir.find("inspect")}
    done = 0
    for back in reversed(range(plan.days)):
        if plan.run_id(back) not in there:
            rundir.publish(staged(plan, back))
        done += plan.size(back)
        yield done


def _models() -> None:
    """Two detectors and an anomaly model, as trainings leave them; the second detector is the one in use."""
    run = rundir.create("train-detector", {"name": "bench"})
    at = datetime.now(UTC)
    rundir.write_part(run, "models", [dict(
        model_id=model, name=model, kind="anomaly" if model == "bench-odd" else "detector", created_at=at, snapshot_id="", imgsz=224,
        classes=list(CLASSES), metrics="{}", settings="{}") for model in MODELS])
    rundir.write_part(run, "model_thresholds", [
        *(dict(model_id=m, class_name=c, threshold=t) for m in MODELS[:2] for c, t in zip(CLASSES, THRESHOLDS, strict=True)),
        dict(model_id="bench-odd", class_name="unusual", threshold=0.97)])
    _end(run, {})
    events.record("promote", dict(model_id="bench-new", name="bench-new"))


def staged(plan: Plan, back: int) -> Path:
    """The run of a day, written whole, not yet seen by anybody."""
    rng = np.random.default_rng([plan.seed, back])
    run = rundir.create("inspect", dict(line="", name=f"{plan.day(back)}"), state="staged", run_id=plan.run_id(back))
    drawn = inspections(rng, plan, back)
    rundir.write_part(run, "detections", detections(rng, drawn, back), 1)
    if back < ODD_SINCE:
        rundir.write_part(run, "anomalies", _anomalies(rng, drawn), 1)
    rundir.write_part(run, "inspections", drawn, 1)
    _end(run, dict(inspected=drawn.num_rows))
    return run


def late(n: int = 20) -> Path:
    """A few more pictures of one line and the last day there is: what a page that stays open gets to show."""
    newest = next(p for p in rundir.find("inspect") if MORNING in p.name)
    rows = rundir.rows(newest, "inspections")
    rows = rows.filter(pc.equal(rows["line"], "Line 1")).slice(0, n)
    run = rundir.create("inspect", dict(line="Line 1", name="late"), state="staged")
    fresh = {"inspection_id": inspection_ids(run.name, rows.num_rows), "image_id": _hashes(np.random.default_rng(), rows.num_rows)}
    for column, values in fresh.items():
        rows = rows.set_column(rows.schema.get_field_index(column), column, pa.array(values))
    rundir.write_part(run, "inspections", rows, 1)
    _end(run, dict(inspected=rows.num_rows))
    return rundir.publish(run)


def _end(run: Path, result: dict[str, Any]) -> None:
    rundir.write_json(run / "result.json", result)
    rundir.set_state(run, "completed", started_at=rundir.now(), finished_at=rundir.now())


def inspections(rng: np.random.Generator, plan: Plan, back: int) -> pa.Table:
    """A day's pictures in the order of time."""
    n, day = plan.size(back), plan.day(back)
    cell = np.repeat(np.arange(3 * LINES), PER_SHIFT)[:n]                       # shift × line
    place = np.tile(np.arange(PER_SHIFT), 3 * LINES)[:n]
    line, shift = cell % LINES, cell // LINES
    piece = np.where(line >= 4, place // 2, place)                              # two sides of one piece, a second apart
    starts = np.array([_begin(day, s) for s in range(3)])
    seconds = (piece + rng.random(n) * 0.5) * (8 * 3600 - 60) / np.where(line >= 4, PER_SHIFT // 2, PER_SHIFT) + (place % 2) * (line >= 4)
    captured = ((starts[shift] + seconds) * 1e6).astype(np.int64)
    order = np.argsort(captured, kind="stable")
    line, shift, place, piece, captured = (a[order] for a in (line, shift, place, piece, captured))
    serial = shift * PER_SHIFT + piece
    again = (line == 3) & (shift == 2) & (rng.random(n) < 0.06)                 # 2 % of the line's parts, seen two shifts before
    serial = np.where(again, piece, serial)
    named = line >= 3
    lots = [f"{'ABCDEF'[k]}{day:%y%m%d}" for k in range(LINES)]
    units = [f"{lots[k]}-{s:04d}" if has else "" for k, s, has in zip(line.tolist(), serial.tolist(), named.tolist(), strict=True)]
    camera = np.where(line >= 4, 2 * line + place % 2, 2 * line + rng.integers(2, size=n))
    new = np.full(n, back < NEW_SINCE)

    def pick(words: list[str] | tuple[str, ...], at: Array) -> pa.Array:
        return pa.array(words).take(pa.array(at))

    def same(value: Any, kind: pa.DataType | None = None) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), n)

    return pa.table({
        "inspection_id": _ids(plan, back, n), "plant": same("real"), "image_id": _hashes(rng, n),
        "file_name": [f"cam{c}-{day:%y%m%d}-{i:05d}.jpg" for i, c in enumerate(camera.tolist())], "unit_id": units,
        "line": pick([f"Line {k + 1}" for k in range(LINES)], line),
        "product": pick(PRODUCTS, (line + day.toordinal() // 7) % len(PRODUCTS)), "lot": pick(lots, line),
        "camera": pick([f"cam{k}" for k in range(2 * LINES)], camera),
        "captured_at": pa.array(captured, pa.timestamp("us", "UTC")), "captured_source": same("exif"),
        "ingested_at": pa.array(captured + 60_000_000, pa.timestamp("us", "UTC")), "width": same(1280), "height": same(1024),
        "model_id": pick(MODELS, new.astype(int)), "runtime": same("openvino"), "counted": same(True), "not_counted_why": same(""),
        "kept": pa.array(rng.random(n) < 0.3), "kept_share": same(0.3)})


def detections(rng: np.random.Generator, drawn: pa.Table, back: int) -> pa.Table:
    """What the model says of them: most of it below its threshold."""
    n = drawn.num_rows
    rows = np.repeat(np.arange(n), rng.poisson(DETECTIONS, n))
    kinds = rng.choice(len(CLASSES), size=len(rows), p=SHARES)
    passes = rng.random(len(rows)) < PASSING
    drifting = (kinds == CLASSES.index("pits")) & (np.array(drawn["line"].to_pylist())[rows] == "Line 2")
    passes |= drifting & (rng.random(len(rows)) < max(0.0, DRIFT_SINCE - back) / DRIFT_SINCE * 0.2)
    threshold = np.array(THRESHOLDS)[kinds]
    u = rng.random(len(rows))
    x, y, w, h = (low + span * rng.random(len(rows)) for low, span in ((0, 1000), (0, 800), (8, 200), (8, 200)))
    return pa.table({
        "inspection_id": drawn["inspection_id"].take(pa.array(rows)), "class_name": pa.array(CLASSES).take(pa.array(kinds)),
        "confidence": np.where(passes, threshold + (0.99 - threshold) * u, 0.05 + (threshold - 0.051) * u),
        "x1": x, "y1": y, "x2": x + w, "y2": y + h})


def _anomalies(rng: np.random.Generator, drawn: pa.Table) -> pa.Table:
    n = drawn.num_rows
    return pa.table({"inspection_id": drawn["inspection_id"], "model_id": pa.repeat("bench-odd", n), "anomaly_score": rng.random(n) ** 0.5,
                     "side": pa.repeat(pa.scalar(64, pa.int32()), n), "anomaly_map": pa.nulls(n, pa.binary())})


def _begin(day: date, shift: int) -> float:
    """Seconds since 1970 at which a shift begins, clock changes and all."""
    local = datetime(day.year, day.month, day.day, (6, 14, 22)[shift], tzinfo=ZoneInfo(str(CALENDAR["time_zone"])))
    return local.timestamp()


def _ids(plan: Plan, back: int, n: int) -> Array:
    """A key for each 500, as batches have them: ids are no order of time."""
    return np.concatenate([inspection_ids(f"{plan.seed}/{back}/{k}", min(BATCH, n - k)) for k in range(0, n, BATCH)])


def _hashes(rng: np.random.Generator, n: int) -> pa.Array:
    """Names of contents that nobody has, 64 hex digits each; every 5,000th picture is the one before it again."""
    digits = np.frombuffer(rng.bytes(32 * n).hex().encode(), np.uint8).reshape(n, 64).copy()
    twice = np.arange(4999, n, 5000)
    digits[twice] = digits[twice - 1]
    offsets = np.arange(0, 64 * (n + 1), 64, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(digits)])
