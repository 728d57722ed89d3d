"""One day of the demo plant's inspections: pieces, what is wrong with them, and what a detector would have said.

`demo_plant` calls `draw` for each production day with random numbers of that day's own. Pictures are not drawn: an
`image_id` holds the seed of one, and `demo.layout` tells its defects. Confidences, misses and false alarms are drawn
at random, not by a model, which would take hours; a faint defect gets a low confidence, as it would from one.
Knows nothing of run directories.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.random import Generator

from backend.data import demo
from backend.data.demo_defects import CLASSES, SIDE
from backend.data.demo_schedule import CAMERAS, PRODUCTS, Shift
from backend.records import inspection_ids

Array = np.ndarray
FLOOR = 0.05                                     # fainter detections are not logged

# A detector finds a defect whose strength (0..1), give or take NOISE, exceeds the class's hurdle.
HURDLE = np.array([0.06, 0.06, 0.06, 0.03, 0.08, 0.12])
OLD_HURDLE = np.array([0.06, 0.06, 0.06, 0.03, 0.08, 0.42])
NOISE = 0.05
# Share of pictures with a defect on which at least one box passes HURDLE, by class: measured on 4,000 pictures each.
FOUND = np.array([0.96, 0.96, 0.96, 0.98, 0.95, 0.93])
# Share of good pictures with a false alarm that passes, by class (dust looks like pits), and with one that does not.
FALSE_ALARMS = np.array([0.0001, 0.0001, 0.0005, 0.0001, 0.0004, 0.0005])
FAINT_ALARMS = 0.012
ALARM_SIZE = np.array([[40, 40], [24, 20], [16, 13], [40, 16], [50, 50], [46, 40]])


@dataclass(frozen=True)
class Detector:
    """A deployed model, as far as the demo plant's figures go."""

    model_id: str
    thresholds: Array                            # (6,), in the order of CLASSES
    hurdle: Array                                # (6,)


@dataclass
class Boxes:
    """Detections as columns: row of the day, class, confidence, box."""

    row: Array
    kind: Array
    confidence: Array
    xyxy: Array                                  # (n, 4)

    def joined(self, *others: "Boxes") -> "Boxes":
        every = (self, *others)
        return Boxes(*(np.concatenate([getattr(b, name) for b in every]) for name in ("row", "kind", "confidence", "xyxy")))

    def only(self, keep: Array) -> "Boxes":
        return Boxes(self.row[keep], self.kind[keep], self.confidence[keep], self.xyxy[keep])


@dataclass
class Day:
    """The day's columns, one entry an inspection, in order of shift, line and time."""

    day: date
    shifts: list[Shift]
    ids: Array
    shift: Array                                 # index in shifts
    captured: Array                              # microseconds since 1970, UTC
    camera: Array                                # 0 or 1
    unit: Array                                  # number within the shift, or -1 where a picture is a unit of its own
    hits: Array                                  # (n, 6) bool, what is wrong with the piece
    new: Array                                   # bool, inspected by the new model
    image_ids: list[str] = field(default_factory=list)
    boxes: Boxes = field(default_factory=lambda: Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4))))
    queue: Array = field(default_factory=lambda: np.zeros(0, int))                       # rows planted for the review queue


def draw(rng: Generator, run_id: str, day: date, shifts: list[Shift], counts: list[int], queued: list[int],
         model_change: datetime, old: Detector, new: Detector) -> Day:
    """Draw one production day: `counts` pieces in each of its shifts, `queued` of them left for the review queue."""
    drawn = _pieces(rng, run_id, day, shifts, counts, model_change)
    n = len(drawn.ids)
    rates = np.array([(s.rates - FALSE_ALARMS).clip(0) / FOUND for s in shifts])
    drawn.hits = rng.random((n, len(CLASSES))) < rates[drawn.shift]
    doubtful = _plant_queue(rng, drawn, queued)
    seeds = rng.integers(1 << 40, size=n).tolist()
    drawn.image_ids = [_image_id(seed, shifts[s], camera) for seed, s, camera in zip(seeds, drawn.shift, drawn.camera, strict=True)]
    bad = np.flatnonzero(drawn.hits.any(1))
    for row in bad.tolist():
        classes = tuple(c for c, hit in zip(CLASSES, drawn.hits[row], strict=True) if hit)
        drawn.image_ids[row] = drawn.image_ids[row].removesuffix("good") + "+".join(classes)
    drawn.boxes = _detections(rng, drawn, bad.tolist(), old, new).joined(_false_alarms(rng, drawn, doubtful, old, new))
    drawn.boxes = _doubt(rng, drawn.boxes, drawn, old, new)
    return drawn


def _image_id(seed: int, shift: Shift, camera: int) -> str:
    return demo.image_id(seed, shift.line[-1], shift.product, camera + 1)


def _pieces(rng: Generator, run_id: str, day: date, shifts: list[Shift], counts: list[int], model_change: datetime) -> Day:
    """Who was inspected when. Line 3 looks at both sides of a piece: two pictures, one unit."""
    captured, camera, unit = [], [], []
    for shift, count in zip(shifts, counts, strict=True):
        both = shift.line == "Line 3"
        pieces = np.repeat(np.arange((count + 1) // 2), 2)[:count] if both else np.arange(count)
        at = np.sort(shift.moments(rng.random(count if not both else (count + 1) // 2)))[pieces]
        captured.append(round(shift.start.timestamp() * 1e6) + (at * 1e6).astype(np.int64))
        camera.append(np.arange(count) % 2 if both else rng.integers(2, size=count))
        unit.append(pieces if both else np.full(count, -1))
    which = np.repeat(np.arange(len(shifts)), counts)
    times = np.concatenate(captured)
    return Day(day, shifts, inspection_ids(f"{run_id}:{day}", len(which)), which, times, np.concatenate(camera), np.concatenate(unit),
               np.zeros((len(which), len(CLASSES)), bool), times >= model_change.timestamp() * 1e6)


def _plant_queue(rng: Generator, drawn: Day, queued: list[int]) -> Array:
    """Choose good pieces for the review queue; every other one gets a defect, to be found just below the threshold.

    Returns the rows that stay good and get a false alarm there.
    """
    rows = []
    for s, count in enumerate(queued):
        clean = np.flatnonzero((drawn.shift == s) & ~drawn.hits.any(1))
        rows.append(rng.permutation(clean)[:count])
    drawn.queue = np.concatenate(rows)
    faint = drawn.queue[::2]
    drawn.hits[faint, rng.choice(len(CLASSES), size=len(faint), p=[0.1, 0.1, 0.3, 0.1, 0.1, 0.3])] = True
    return drawn.queue[1::2]


def _of(drawn: Day, rows: Array, kinds: Array, old: Array, new: Array) -> Array:
    """A figure of the model that inspected each row, for each row's class; old and new are (6,)."""
    figure: Array = np.where(drawn.new[rows], new[kinds], old[kinds])
    return figure


def _detections(rng: Generator, drawn: Day, bad: list[int], old: Detector, new: Detector) -> Boxes:
    """What the model says of real defects: boxes a little off, sure of plain ones, silent on some."""
    seen = [(row, CLASSES.index(d.class_name), d.strength, *box[1:]) for row in bad for d, box in demo.layout(drawn.image_ids[row])]
    table = np.array(seen, float).reshape(-1, 7)
    rows, kinds = table[:, 0].astype(int), table[:, 1].astype(int)
    threshold = _of(drawn, rows, kinds, old.thresholds, new.thresholds)
    margin = table[:, 2] + NOISE * rng.standard_normal(len(rows)) - _of(drawn, rows, kinds, old.hurdle, new.hurdle)
    sure = threshold + (0.97 - threshold) * (1 - np.exp(-2.2 * margin.clip(0)))
    confidence = np.where(margin > 0, sure, threshold * np.exp(2.5 * margin.clip(None, 0)) * 0.999)
    size = np.tile(table[:, 5:] - table[:, 3:5], 2)
    xyxy = table[:, 3:] + (0.4 + 0.025 * size) * rng.standard_normal((len(rows), 4)).clip(-2, 2)
    boxes = Boxes(rows, kinds, confidence, xyxy.clip(0, SIDE))
    return boxes.only(confidence >= FLOOR)


def _false_alarms(rng: Generator, drawn: Day, doubtful: Array, old: Detector, new: Detector) -> Boxes:
    """What the model says of good pieces: now and then a defect, more often a doubt below the threshold."""
    u, n = rng.random(len(drawn.ids)), len(CLASSES)
    u[drawn.hits.any(1) | np.isin(np.arange(len(u)), drawn.queue)] = 1.0
    u[doubtful] = FALSE_ALARMS.sum()
    kinds = np.searchsorted(FALSE_ALARMS.cumsum()[:-1], u, side="right")
    rows = np.flatnonzero(u < FALSE_ALARMS.sum() + FAINT_ALARMS)
    passes = u[rows] < FALSE_ALARMS.sum()
    kinds = np.where(passes, kinds[rows], rng.choice(n, size=len(rows), p=FALSE_ALARMS / FALSE_ALARMS.sum()))
    threshold = _of(drawn, rows, kinds, old.thresholds, new.thresholds)
    confidence = threshold * np.where(passes, 1.01 + 1.2 * rng.random(len(rows)) ** 2, 0.2 + 0.79 * rng.random(len(rows)))
    half: Array = ALARM_SIZE[kinds] * rng.uniform(0.35, 0.7, (len(rows), 2))
    centre: Array = half + rng.random((len(rows), 2)) * (SIDE - 2 * half)
    boxes = Boxes(rows, kinds, confidence.clip(None, 0.97), np.concatenate([centre - half, centre + half], 1))
    return boxes.only(boxes.confidence >= FLOOR)


def _doubt(rng: Generator, boxes: Boxes, drawn: Day, old: Detector, new: Detector) -> Boxes:
    """Bring the confidences of the planted review queue just below the threshold."""
    near = np.isin(boxes.row, drawn.queue)
    threshold = _of(drawn, boxes.row, boxes.kind, old.thresholds, new.thresholds)
    boxes.confidence = np.where(near, threshold * rng.uniform(0.8, 0.99, len(boxes.row)), boxes.confidence)
    return boxes


def reviewable(drawn: Day, old: Detector, new: Detector) -> list[dict[str, Any]]:
    """Inspections a person would have looked at: top confidence near the threshold; with the truth, as verdict."""
    boxes = drawn.boxes
    ratio = boxes.confidence / _of(drawn, boxes.row, boxes.kind, old.thresholds, new.thresholds)
    top: dict[int, float] = {}
    for row, r in zip(boxes.row.tolist(), ratio.tolist(), strict=True):
        top[row] = max(r, top.get(row, 0.0))
    return [dict(inspection_id=int(drawn.ids[row]), captured_at=datetime.fromtimestamp(drawn.captured[row] / 1e6, UTC),
                 class_name=CLASSES[int(drawn.hits[row].argmax())] if drawn.hits[row].any() else "")
            for row, r in top.items() if 0.7 <= r <= 1.6]


def inspections_table(drawn: Day, now: datetime, old: Detector, new: Detector) -> pa.Table:
    """The day as rows of `inspections`."""
    n, shifts = len(drawn.ids), drawn.shifts
    view = 2 * drawn.shift + drawn.camera
    cameras = pa.array([c for s in shifts for c in CAMERAS[s.line]]).take(pa.array(view))
    arrived = np.minimum(drawn.captured + 2_000_000 + drawn.captured % 5_000_000, round(now.timestamp() * 1e6))
    names = [f"{c}-{drawn.day:%y%m%d}-{i:05d}.png" for i, c in enumerate(cameras.to_pylist())]
    units = [f"{shifts[s].lot}-{u:04d}" if u >= 0 else "" for s, u in zip(drawn.shift.tolist(), drawn.unit.tolist(), strict=True)]

    def of_shift(values: list[str]) -> pa.Array:
        return pa.array(values).take(pa.array(drawn.shift))

    def same(value: Any, kind: pa.DataType | None = None) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), n)

    return pa.table({
        "inspection_id": drawn.ids, "plant": same("demo"), "image_id": drawn.image_ids, "file_name": names, "unit_id": units,
        "line": of_shift([s.line for s in shifts]), "product": of_shift([PRODUCTS[s.product] for s in shifts]),
        "lot": of_shift([s.lot for s in shifts]), "camera": cameras,
        "captured_at": pa.array(drawn.captured, pa.timestamp("us", "UTC")), "captured_source": same("demo"),
        "ingested_at": pa.array(arrived, pa.timestamp("us", "UTC")), "width": same(SIDE), "height": same(SIDE),
        "model_id": pa.array([old.model_id, new.model_id]).take(pa.array(drawn.new.astype(int))), "runtime": same("demo"),
        "counted": same(True), "not_counted_why": same(""), "kept": same(True), "kept_share": same(1.0)})


def detections_table(drawn: Day) -> pa.Table:
    """The day's boxes as rows of `detections`."""
    b = drawn.boxes
    order = np.lexsort((-b.confidence, b.row))
    x1, y1, x2, y2 = b.xyxy[order].T
    return pa.table({"inspection_id": drawn.ids[b.row[order]], "class_name": pa.array(CLASSES).take(pa.array(b.kind[order])),
                     "confidence": b.confidence[order], "x1": x1, "y1": y1, "x2": x2, "y2": y2})
