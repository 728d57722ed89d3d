"""What `synthesize` leaves on disk: images with their masks, labels for a detector, the progress of a run, its preview.

Stands behind the recipe. Knows nothing of how an image was made.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from backend import rundir
from backend.data import marks
from backend.synthesis import masks
from backend.synthesis.blend import Image, Mask
from backend.synthesis.methods import Made

ROWS, CELL = 6, 160              # of the preview; pixels of a cell


@dataclass
class Progress:
    """What is made so far, as the lines of `done.jsonl` tell it. `attempts` are counted class by class."""

    attempts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    items: list[dict[str, Any]] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)                                            # items of each class
    labels: list[list[dict[str, Any]]] = field(default_factory=list)
    rejected: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))        # class: reason: number

    def add(self, line: dict[str, Any]) -> None:
        self.attempts, self.seconds = Counter(line["attempts"]), self.seconds + line["seconds"]
        self.items += line["items"]
        self.kept.update(item["class_name"] for item in line["items"])
        self.labels += line["labels"]
        for class_name, reasons in line["rejected"].items():
            self.rejected[class_name].update(reasons)

    def reasons(self) -> dict[str, int]:
        """How many attempts were refused, and why."""
        return dict(sum(self.rejected.values(), Counter[str]()))


# ---- progress

def append(file: Path, line: dict[str, Any]) -> None:
    """One more line, on disk: all that it names is there already."""
    with open(file, "a") as f:
        f.write(json.dumps(line) + "\n")
        f.flush()
        os.fsync(f.fileno())


def taken_up(file: Path) -> Progress:
    """From the lines that are whole; half of one, which a kill left, is cut off."""
    progress = Progress()
    whole, end, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")
    for line in whole.splitlines():
        progress.add(json.loads(line))
    if file.exists():
        rundir.write_bytes(file, (whole + end).encode())
    return progress


# ---- images and labels

def write(folder: Path, number: int, made: Made) -> dict[str, Any]:
    """An image, and its mask beside it; how the artifact's head names them."""
    file, beside = f"{number:06d}.png", "" if made.mask is None else f"{number:06d}_mask.png"
    Pillow.fromarray(made.image).save(folder / file)
    if made.mask is not None:
        masks.write(folder / beside, made.mask)
    height, width = made.image.shape[:2]
    covered = covering(made)
    return dict(file=file, mask=beside, width=width, height=height, boxes=[_corners(label) for label in made.labels],
                boxes_from=made.boxes_from, exact=made.exact and made.mask is not None, area=round(float(covered.mean()), 6))


def covering(made: Made) -> Mask:
    """Where the defects are: the mask, or else the boxes."""
    if made.mask is not None:
        return made.mask
    covered = np.zeros(made.image.shape[:2], bool)
    for _, x1, y1, x2, y2 in map(_corners, made.labels):
        covered[int(y1):int(np.ceil(y2)), int(x1):int(np.ceil(x2))] = True
    return covered


def _corners(label: dict[str, Any]) -> list[Any]:
    x, y, width, height = label["bbox"]
    return [label["class_name"], x, y, round(x + width, 3), round(y + height, 3)]


def outlines(mask: Mask, class_name: str) -> list[dict[str, Any]]:
    """One label a connected piece, as the importer makes boxes of a mask: bbox, polygon, area. Touching corners connect."""
    n, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [_label(numbers, i, stats[i].tolist(), class_name) for i in range(1, n) if stats[i, cv2.CC_STAT_AREA] >= marks.MIN_SPECK]


def _label(numbers: "np.ndarray[Any, Any]", i: int, about: list[int], class_name: str) -> dict[str, Any]:
    left, top, width, height, area = about
    found = masks.polygons(numbers[top:top + height, left:left + width] == i)
    moved = [[value + (left, top)[k % 2] for k, value in enumerate(outline)] for outline in found]
    return dict(class_name=class_name, bbox=[left, top, width, height], segmentation=moved, area=area, iscrowd=0)


def boxed(boxes: Iterable[tuple[str, float, float, float, float]], width: int, height: int) -> list[dict[str, Any]]:
    """Labels of which only the box is known, cut at the picture's edge."""
    found = []
    for class_name, *corners in boxes:
        x1, y1, x2, y2 = (round(float(np.clip(v, 0, most)), 3) for v, most in zip(corners, (width, height) * 2, strict=True))
        if x2 > x1 and y2 > y1:
            bbox = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            found.append(dict(class_name=class_name, bbox=bbox, segmentation=[], area=round(bbox[2] * bbox[3], 3), iscrowd=0))
    return found


def coco(progress: Progress, classes: list[str]) -> dict[str, Any]:
    """labels.json: COCO, the classes numbered from 1."""
    numbers = {c: i for i, c in enumerate(classes, 1)}
    listed = [dict(id=i, file_name=item["file"], width=item["width"], height=item["height"]) for i, item in enumerate(progress.items)]
    labels = [{k: v for k, v in label.items() if k != "class_name"} | dict(image_id=i, category_id=numbers[label["class_name"]])
              for i, found in enumerate(progress.labels) for label in found]
    return dict(images=listed, annotations=[dict(label, id=i) for i, label in enumerate(labels)],
                categories=[dict(id=i, name=c) for c, i in numbers.items()])


# ---- the preview

def row(made: Made) -> list[Image]:
    """Original, effective mask (else the boxes) and result."""
    nothing = np.full((CELL, CELL, 3), 114, np.uint8)
    return [nothing if made.original is None else made.original, grey(covering(made)), made.image]


def preview(rows: list[list[Image]]) -> bytes:
    """Rows as PNG."""
    pixels = np.concatenate([np.concatenate([_cell(image) for image in row], 1) for row in rows], 0)
    buffer = BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _cell(image: Image) -> Image:
    """Scaled into a square of CELL pixels, with a grey border."""
    share = (CELL - 4) / max(image.shape[:2])
    height, width = (max(1, round(side * share)) for side in image.shape[:2])
    cell = np.full((CELL, CELL, 3), 114, np.uint8)
    top, left = (CELL - height) // 2, (CELL - width) // 2
    cell[top:top + height, left:left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cell


def grey(mask: Mask) -> Image:
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2)
