"""A picture with its boxes or its heat map, encoded for the browser: asked for here, decoded and drawn in a cell (see `cells`).

Which boxes are drawn the store says (today's rules), or a threshold that a person is trying out. Knows nothing of pages.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pandas as pd

from backend import rundir
from backend.errors import NotFoundError
from backend.jobs import cells
from backend.jobs.gone import explained
from backend.store import engineering, queries, shadow
from backend.store.database import Database

SMALL = 400                             # pixels wide: 5 to 20 kB each, and 600 of them are kept
_MARK = dict(class_name="", x1=0.0, y1=0.0, x2=0.0, y2=0.0, confidence=None, passes=True, action="reject")     # what is drawn of a box


def picture(db: Database, inspection_id: int | None, image_id: str | None, boxes: bool, width: int | None,
            threshold: float | Mapping[str, float] | None, format: str, snapshot_id: str = "") -> bytes:
    if inspection_id is not None:
        image_id = queries.image_id(db, inspection_id)
        found = passing(rows(queries.detections(db, [inspection_id])), threshold) if boxes else []
    else:
        assert image_id is not None, "an inspection or an image"
        found = _labels(db, image_id, snapshot_id) if boxes else []
    with explained(db, inspection_id):
        return _encoded(image_id, found, width, format)


def _encoded(image_id: str, found: list[dict[str, Any]], width: int | None, format: str) -> bytes:
    if width is None or width > SMALL:
        return drawn(image_id, found, width, format)
    from backend.data import images

    marks = tuple(tuple(d.get(name, usual) for name, usual in _MARK.items()) for d in found)
    return _small(image_id, images.path_of(image_id) is not None, marks, width, format)


@lru_cache(maxsize=600)
def _small(image_id: str, kept: bool, marks: tuple[tuple[Any, ...], ...], width: int, format: str) -> bytes:
    """A list shows its pictures again whenever something came in: 14 ms each, unless what they show is the same as before. `kept` is part
    of the question, so that a picture which was removed is shown no more."""
    return drawn(image_id, [dict(zip(_MARK, mark, strict=True)) for mark in marks], width, format)


def drawn(image_id: str, found: list[dict[str, Any]], width: int | None = None, format: str = "jpeg") -> bytes:
    """Raises NotFoundError where the picture was not kept, ImageError."""
    return cells.ask("shown", image_id, _marks(found), width, format, of=_contents(image_id))


def beside(parts: list[tuple[str, list[dict[str, Any]]]], width: int | None, format: str) -> bytes:
    """Several pictures of one size in one, each with its boxes; `width` of each. Raises NotFoundError, ImageError."""
    return cells.ask("beside", [(image_id, _marks(found), width) for image_id, found in parts], format,
                     of=_contents(*(image_id for image_id, _ in parts)))


def _contents(*image_ids: str) -> tuple[str, ...]:
    """What is drawn, for `cells.ask`: an id stands for its content; a picture that was removed is another question."""
    from backend.data import images

    return tuple(f"{i} {images.path_of(i) is not None}" for i in image_ids)


def _marks(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of boxes, what is drawn of them: no more goes over the line."""
    return [{name: d.get(name, usual) for name, usual in _MARK.items()} for d in found]


def looked_back(db: Database, run_id: str, inspection_id: int, whose: str, boxes: bool, width: int | None, format: str) -> bytes:
    """As recorded (was), as the other model has it (would), or both side by side, a wide picture one above the other; `width` of all."""
    image_id, both = queries.image_id(db, inspection_id), whose == "both"
    found = {"was": queries.detections(db, [inspection_id]), "would": shadow.boxes(db, run_id, inspection_id)}
    each = [(image_id, passing(rows(frame)) if boxes else []) for name, frame in found.items() if both or name == whose]
    with explained(db, inspection_id):
        return beside(each, width // (1 + both) if width else None, format)


def heat(db: Database, inspection_id: int, width: int | None, opacity: float, boxes: bool, format: str) -> bytes:
    """The picture with its heat map, coloured from the model's own pixel threshold on."""
    seen = queries.anomaly_map(db, inspection_id)
    found = passing(rows(queries.detections(db, [inspection_id]))) if boxes else []
    with explained(db, inspection_id):
        image_id = queries.image_id(db, inspection_id)
        return cells.ask("veiled", image_id, _marks(found), seen["values"], _start(seen["model_id"]), opacity, width, format,
                         of=_contents(image_id))


def _start(model_id: str) -> float:
    """Which value of a packed map the model's pixel threshold is; the middle where the model is gone."""
    try:
        head = rundir.read_json(rundir.find_model(model_id, "anomaly") / "model.json")
    except NotFoundError:
        return 128.0
    low, high = head["map_range"]
    return float(255 * (head["pixel_threshold"] - low) / max(high - low, 1e-12))


def passing(detections: list[dict[str, Any]], threshold: float | Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """Detections to draw: those that pass, or that would with another threshold (for all classes, or for some)."""
    if threshold is None:
        return [d for d in detections if d["passes"]]
    at = threshold if isinstance(threshold, Mapping) else {}
    flat = None if isinstance(threshold, Mapping) else threshold
    return [{**d, "passes": True} for d in detections
            if d["action"] != "ignore" and d["side"] >= d["min_side"]
            and d["confidence"] >= (at.get(d["class_name"], d["threshold"]) if flat is None else flat)]


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _labels(db: Database, image_id: str, snapshot_id: str) -> list[dict[str, Any]]:
    """Labels of this dataset, or of the newest that has the picture; a person drew them, so they carry no confidence."""
    try:
        snapshot = snapshot_id or engineering.newest_snapshot_of(db, image_id)
    except NotFoundError:
        return []
    return [{**row, "confidence": None} for row in rows(engineering.labels(db, snapshot, [image_id]))]
