"""Marks on a picture, as a layout wrote them, and the boxes and the mask they become: absolute pixels of the upright picture.

Between the layouts (which only read text) and the importer (which knows each picture's size). What had to be changed is
said in notes, never done silently. Knows nothing of splits or snapshots.
"""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.data.files import Entry
from backend.errors import InputError

MASK_WHITE = 127                   # masks are anti-aliased: white is above the middle
MIN_SPECK = 4                      # connected white pixels; fewer is dust of the resampling, not a defect
MOST_REGIONS = 10_000              # of one mask; more is noise, and would cost a gigabyte for each four million
Mask = np.ndarray[Any, np.dtype[np.bool_]]
_TOUCHING = np.ones((3, 3), bool)  # diagonal neighbours belong together


@dataclass(frozen=True)
class Box:
    """x1 < x2, y1 < y2, inside the picture. `source` is 'box', 'mask' or 'image': a label of the whole picture, not of a place."""

    class_name: str
    x1: float
    y1: float
    x2: float
    y2: float
    source: str = "box"


@dataclass(frozen=True)
class Mark:
    """One mark as it was written: corners in pixels, corners as shares of the picture, or a mask to look into.

    A mask with class '' is one that should be empty, since its picture lies in a folder of good ones. A bare mark says that
    there is a defect, and nothing of where; with a mask, it says which pixels are defective, and other marks say what they are.
    """

    class_name: str
    corners: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    shares: bool = False
    mask: Entry | None = None
    bare: bool = False
    source: str = "box"                # of the boxes that corners become


@dataclass
class Notes:
    """What a person should know, gathered by kind: 'Boxes cut at the picture's edge: 12, for example a, b, c.'"""

    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, what: str, *names: str) -> None:
        self.names[what].extend(names)

    def lines(self) -> list[str]:
        return [f"{what}: {len(n):,} ({'for example ' if len(n) > 3 else ''}{', '.join(n[:3])})." if n else f"{what}."
                for what, n in self.names.items()]


def look(marks: tuple[Mark, ...], size: tuple[int, int], name: str, notes: Notes) -> tuple[list[Box], Mask | None]:
    """The boxes of one picture of this size (width, height), and its masks united, (H, W), if it shows a defect.

    The mask of a defect is kept though it be empty, and one that nobody outlined gets an empty one: the picture carries no
    box then, and yet is none of the good ones.
    Raises InputError where a mask cannot be read.
    """
    found: list[Box] = []
    united: Mask | None = None
    for mark in marks:
        if mark.bare:
            white = np.zeros(size[::-1], bool) if mark.mask is None else _fitted(read_mask(mark.mask), size)
            united = white if united is None else united | white
            continue
        if mark.mask is None:
            found += _from_corners(mark, size, name, notes)
            continue
        white = read_mask(mark.mask)
        boxes = _from_mask(mark, white, size, name, notes)
        if mark.class_name:
            white = _fitted(white, size)
            united = white if united is None else united | white
        found += boxes
    return found, united


def _fitted(white: Mask, size: tuple[int, int]) -> Mask:
    """A mask at its picture's size."""
    from PIL import Image  # here and below: who only reads snapshots needs no image code

    image = Image.fromarray(white)
    return white if image.size == size else np.asarray(image.resize(size, Image.Resampling.NEAREST))


def _from_corners(mark: Mark, size: tuple[int, int], name: str, notes: Notes) -> list[Box]:
    width, height = size
    x1, y1, x2, y2 = (c * s for c, s in zip(mark.corners, (width, height) * 2 if mark.shares else (1, 1, 1, 1), strict=True))
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
        notes.add("Boxes without an area, left out", name)
        return []
    clipped = Box(mark.class_name, max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2), mark.source)
    if clipped.x2 <= clipped.x1 or clipped.y2 <= clipped.y1:
        notes.add("Boxes wholly outside their picture, left out", name)
        return []
    if max(-x1, -y1, x2 - width, y2 - height) > 1e-3 * max(size):     # less is rounding in relative labels
        notes.add("Boxes that reached beyond their picture, cut at its edge", name)
    return [clipped]


def _from_mask(mark: Mark, white: Mask, size: tuple[int, int], name: str, notes: Notes) -> list[Box]:
    assert mark.mask is not None
    try:
        regions, specks = components(white)
    except InputError as error:
        raise InputError(f"Its mask {mark.mask.name} cannot be used. {error}") from error
    if not mark.class_name:
        if regions:
            notes.add("Good pictures whose mask is not empty; the mask was ignored", name)
        return []
    if specks:
        notes.add(f"Masks with specks of fewer than {MIN_SPECK} pixels, which were dropped", name)
    if not regions:
        notes.add("Pictures of a defect whose mask is empty, or dust only; they carry no box", name)
    height, width = white.shape
    if (width, height) != size:
        notes.add("Masks of another size than their picture; their boxes were scaled", name)
    across, down = size[0] / width, size[1] / height
    return [Box(mark.class_name, x1 * across, y1 * down, x2 * across, y2 * down, "mask") for x1, y1, x2, y2 in regions]


def read_mask(entry: Entry) -> Mask:
    """A mask as booleans, (H, W). Masks drawn with 0 and 1 count 1 as white. Raises InputError."""
    try:
        from backend.data.images import decode

        grey = np.asarray(decode(entry.read(), entry.name).convert("L"))
    except InputError as error:
        raise InputError(f"Its mask {entry.name} cannot be used. {error}") from error
    return np.asarray(grey > (0 if grey.max() == 1 else MASK_WHITE))


def components(white: Mask) -> tuple[list[tuple[int, int, int, int]], int]:
    """Boxes of the connected white regions, and how many specks were too small to be one. Raises InputError for noise."""
    from scipy import ndimage  # pages read snapshots too, which know boxes

    labelled, n = ndimage.label(white, structure=_TOUCHING)
    large = np.bincount(labelled.ravel(), minlength=n + 1) >= MIN_SPECK
    large[0] = False
    if (regions := int(large.sum())) > MOST_REGIONS:
        raise InputError(f"It has {regions:,} separate white regions; a mask has at most {MOST_REGIONS:,}.")
    numbers = np.where(large, large.cumsum(), 0)       # specks get no box: there may be millions
    boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(numbers[labelled], regions)]
    return boxes, n - regions


def coco_content(entry: Entry) -> dict[str, Any] | None:
    """What stands in a COCO file; None where it is none."""
    try:
        content = json.loads(entry.read())
    except (InputError, ValueError, RecursionError):
        return None
    fits = isinstance(content, dict) and isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list)
    return content if fits else None
