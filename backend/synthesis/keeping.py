"""What `synthesize` leaves on disk: images with their masks, labels for a detector, the progress of a run, its preview.

Stands behind the recipe. Knows nothing of how an image was made.
"""

import json
import os
from collections import Counter
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

ROWS, CELL = 6, 160              # of the preview; pixels of a cell


@dataclass
class Progress:
    """What is made so far, as the lines of `done.jsonl` tell it."""

    attempts: int = 0
    seconds: float = 0.0
    items: list[dict[str, Any]] = field(default_factory=list)
    outlines: list[list[dict[str, Any]]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        self.attempts, self.seconds = line["attempts"], self.seconds + line["seconds"]
        self.items += line["items"]
        self.outlines += line["outlines"]
        self.rejected.update(line["rejected"])


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

def write(folder: Path, number: int, result: Image, mask: Mask) -> dict[str, Any]:
    """An image and its mask beside it; how the artifact's head names them."""
    file, beside = f"{number:06d}.png", f"{number:06d}_mask.png"
    Pillow.fromarray(result).save(folder / file)
    masks.write(folder / beside, mask)
    return dict(file=file, mask=beside, width=result.shape[1], height=result.shape[0], area=round(float(mask.mean()), 6))


def outlines(mask: Mask) -> list[dict[str, Any]]:
    """One label a connected piece, as the importer makes boxes of a mask: bbox, polygon, area. Touching corners connect."""
    n, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [_label(numbers, i, stats[i].tolist()) for i in range(1, n) if stats[i, cv2.CC_STAT_AREA] >= marks.MIN_SPECK]


def _label(numbers: "np.ndarray[Any, Any]", i: int, about: list[int]) -> dict[str, Any]:
    left, top, width, height, area = about
    found = masks.polygons(numbers[top:top + height, left:left + width] == i)
    moved = [[value + (left, top)[k % 2] for k, value in enumerate(outline)] for outline in found]
    return dict(bbox=[left, top, width, height], segmentation=moved, area=area, iscrowd=0)


def coco(progress: Progress, named: str) -> dict[str, Any]:
    """labels.json: COCO, one class."""
    listed = [dict(id=i, file_name=item["file"], width=item["width"], height=item["height"]) for i, item in enumerate(progress.items)]
    labels = [dict(label, image_id=i, category_id=1) for i, found in enumerate(progress.outlines) for label in found]
    return dict(images=listed, annotations=[dict(label, id=i) for i, label in enumerate(labels)], categories=[dict(id=1, name=named)])


# ---- the preview

def preview(rows: list[list[Image]]) -> bytes:
    """Original, effective mask and result side by side, an image a row, as PNG."""
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
