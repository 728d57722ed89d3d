"""Boxes that people drew: what they said of each picture, the newest word on it, and what such a word may look like.

What a person drew of one picture, or what came back from CVAT of many, is an inline run `label`: {"pictures": [{image_id, file_name, width,
height, boxes, unit, of}], "reviewer", "source"}. No box is a word too: the picture shows no defect. The newest word on a picture holds,
unless it was taken back. From files alone: knows nothing of pages, of DuckDB, of CVAT or of the datasets that are made of it (`relabel`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir
from backend.data.files import printable
from backend.data.marks import Box
from backend.errors import ConfigError

RECIPE = "label"
MIN_SIDE = 1.0                     # pixels; smaller is a slip of the mouse
MOST_BOXES = 2000                  # of one picture


@dataclass(frozen=True)
class Labelled:
    """The newest word on one picture."""

    image_id: str
    file_name: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    unit: str                      # what it is a view of, where that is known: all views stay in one split
    of: str                        # the dataset (a snapshot's id) that it was a picture of when it was labelled, '' where of none
    run_id: str


def checked(pictures: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same pictures, boxes cut at the edge, names fit to be shown. Raises ConfigError where one cannot be understood."""
    found = []
    for one in pictures:
        if not one.get("image_id") or min(one["width"], one["height"]) < 1:
            raise ConfigError("A picture without content or size cannot be labelled.")
        if len(one["boxes"]) > MOST_BOXES:
            raise ConfigError(f"{one['file_name']} has more than {MOST_BOXES:,} boxes.")
        boxes = [_box(b, one["width"], one["height"], one["file_name"]) for b in one["boxes"]]
        found.append(dict(image_id=str(one["image_id"]), file_name=printable(str(one["file_name"])), width=int(one["width"]),
                          height=int(one["height"]), unit=str(one.get("unit") or ""), of=str(one.get("of") or ""), boxes=boxes))
    if not found:
        raise ConfigError("There is no picture to label.")
    return found


def _box(box: list[Any], width: int, height: int, name: str) -> list[Any]:
    kind, corners = printable(str(box[0]).strip())[:60], [float(v) for v in box[1:5]]
    if not kind:
        raise ConfigError(f"A box on {name} has no kind. Give it one, or take it away.")
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise ConfigError(f"A box on {name} has no place.")
    x1, y1, x2, y2 = (round(min(max(v, 0.0), float(most)), 2) for v, most in zip(corners, (width, height) * 2, strict=True))
    if x2 - x1 < MIN_SIDE or y2 - y1 < MIN_SIDE:
        raise ConfigError(f"A box on {name} is smaller than a pixel, or lies outside the picture.")
    return [kind, x1, y1, x2, y2]


def labelled(plant: str, only: set[str] | None = None) -> dict[str, Labelled]:
    """By image id the newest word on each picture that people of a plant labelled; `only`: of these runs."""
    taken_back = {_job(path)["config"].get("run_id") for path in rundir.find("undo")} if only is None else set()
    found: dict[str, Labelled] = {}
    for path in reversed(list(rundir.find(RECIPE))):                     # oldest first: a later word replaces an earlier one
        job = _job(path)
        if path.name not in taken_back and job["plant"] == plant and (only is None or path.name in only):
            for one in job["config"].get("pictures", []):
                said = Labelled(one["image_id"], one["file_name"], one["width"], one["height"],
                                tuple(Box(*b) for b in one["boxes"]), one.get("unit", ""), one.get("of", ""), path.name)
                before = found.get(said.image_id, said)      # who corrects a picture in a dataset, or elsewhere, says nothing of its unit,
                found[said.image_id] = replace(said, unit=said.unit or before.unit, of=before.of)       # and it stays where it was from
    return found


@lru_cache(maxsize=20_000)
def _job(path: Path) -> dict[str, Any]:
    """An inline run is complete when it appears and never changes. A damaged one says nothing; the store names it."""
    try:
        job: dict[str, Any] = rundir.read_json(path / "job.json")
        return job if isinstance(job["config"], dict) else {"config": {}, "plant": ""}
    except (OSError, ValueError, KeyError):
        return {"config": {}, "plant": ""}
