"""A picture with its boxes or its heat map, encoded for the browser: drawn here in the dashboard's process, by Pillow alone.

Which boxes are drawn the store says (today's rules), or a threshold that a person is trying out. Knows nothing of pages.
"""

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pandas as pd

from backend import rundir
from backend.errors import NotFoundError
from backend.store import engineering, queries, shadow
from backend.store.database import Database

if TYPE_CHECKING:
    from PIL.Image import Image

ENCODINGS: dict[str, dict[str, Any]] = {"webp": dict(quality=85, method=2), "jpeg": dict(quality=90), "png": dict(compress_level=3)}
WEBP_SIDE = 16_383                      # the format's limit
SMALL = 400                             # pixels wide: 5 to 20 kB each, and 600 of them are kept
_MARK = dict(class_name="", x1=0.0, y1=0.0, x2=0.0, y2=0.0, confidence=None, passes=True, action="reject")     # what is drawn of a box


def picture(db: Database, inspection_id: int | None, image_id: str | None, boxes: bool, width: int | None,
            threshold: float | Mapping[str, float] | None, format: str) -> bytes:
    if inspection_id is not None:
        image_id = queries.image_id(db, inspection_id)
        found = passing(rows(queries.detections(db, [inspection_id])), threshold) if boxes else []
    else:
        assert image_id is not None, "an inspection or an image"
        found = _labels(db, image_id) if boxes else []
    from backend.data import images

    if width is None or width > SMALL:
        return encode(drawn(image_id, found, width), format)
    marks = tuple(tuple(d.get(name, usual) for name, usual in _MARK.items()) for d in found)
    return _small(image_id, images.path_of(image_id) is not None, marks, width, format)


@lru_cache(maxsize=600)
def _small(image_id: str, kept: bool, marks: tuple[tuple[Any, ...], ...], width: int, format: str) -> bytes:
    """A list shows its pictures again whenever something came in: 14 ms each, unless what they show is the same as before. `kept` is part
    of the question, so that a picture which was removed is shown no more."""
    return encode(drawn(image_id, [dict(zip(_MARK, mark, strict=True)) for mark in marks], width), format)


def drawn(image_id: str, found: list[dict[str, Any]], width: int | None = None) -> "Image":
    """Raises NotFoundError where the picture was not kept."""
    from backend.data import images
    from backend.inspection import annotate

    return annotate.draw(images.load(image_id), found, width)


def looked_back(db: Database, run_id: str, inspection_id: int, whose: str, boxes: bool, width: int | None, format: str) -> bytes:
    """As recorded (was), as the other model has it (would), or both side by side, a wide picture one above the other; `width` of all."""
    image_id, both = queries.image_id(db, inspection_id), whose == "both"
    found = {"was": queries.detections(db, [inspection_id]), "would": shadow.boxes(db, run_id, inspection_id)}
    each = [drawn(image_id, passing(rows(frame)) if boxes else [], width // (1 + both) if width else None)
            for name, frame in found.items() if both or name == whose]
    return encode(together(each), format)


def together(each: "list[Image]") -> "Image":
    """Pictures of one size side by side, wide ones one above the other."""
    from PIL import Image

    wide = each[0].width > 2 * each[0].height
    step = max(4, each[0].width // 50) + (each[0].height if wide else each[0].width)
    size = (each[0].width, step * (len(each) - 1) + each[0].height) if wide else (step * (len(each) - 1) + each[0].width, each[0].height)
    whole = Image.new("RGB", size, (128, 128, 128))
    for n, one in enumerate(each):
        whole.paste(one, (0, n * step) if wide else (n * step, 0))
    return whole


def heat(db: Database, inspection_id: int, width: int | None, opacity: float, boxes: bool, format: str) -> bytes:
    """The picture with its heat map, coloured from the model's own pixel threshold on."""
    from backend.data import images
    from backend.inspection import annotate
    from backend.inspection import heat as heats

    seen = queries.anomaly_map(db, inspection_id)
    whole = images.load(queries.image_id(db, inspection_id))
    shown = heats.lay(annotate.draw(whole, [], width), seen["values"], opacity, _start(seen["model_id"]))
    scale = shown.width / whole.width
    found = passing(rows(queries.detections(db, [inspection_id]))) if boxes else []
    found = [{**d, **{side: d[side] * scale for side in ("x1", "y1", "x2", "y2")}} for d in found]
    return encode(annotate.draw(shown, found), format)


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


def encode(image: "Image", format: str = "webp") -> bytes:
    out, longest = BytesIO(), max(image.size)
    if format == "webp" and longest > WEBP_SIDE:
        image = image.resize((max(1, image.width * WEBP_SIDE // longest), max(1, image.height * WEBP_SIDE // longest)))
    image.save(out, format.upper(), **ENCODINGS[format])
    return out.getvalue()


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _labels(db: Database, image_id: str) -> list[dict[str, Any]]:
    """Labels of the newest dataset that has the picture; a person drew them, so they carry no confidence."""
    try:
        snapshot = engineering.newest_snapshot_of(db, image_id)
    except NotFoundError:
        return []
    return [{**row, "confidence": None} for row in rows(engineering.labels(db, snapshot, [image_id]))]
