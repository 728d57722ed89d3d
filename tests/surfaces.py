"""Surfaces that differ from picture to picture, with one of two defects each or none: for what tells pictures, classes, copies apart."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from backend import rundir
from backend.config import Import
from backend.data import importer, snapshot
from tests import plates

CLASSES = ["spots", "scratch"]
SIDE = 64


def imported(folder: Path, name: str, each: int = 24, good: int = 6, val: int = 2) -> snapshot.Snapshot:
    """`each` train pictures of either class and some good ones; `val` of each in val and test."""
    for split, counts in {"train": (each, each, good), "val": (val, val, val), "test": (val, val, val)}.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for class_id, n in enumerate(counts):
            for i in range(n):
                seed = [class_id, i, len(split)]
                pixels, box = surface(class_id, seed)
                Image.fromarray(pixels).save(folder / "images" / split / f"{class_id}-{i}.png")
                (folder / "labels" / split / f"{class_id}-{i}.txt").write_text(f"{class_id} {_yolo(box)}\n" if box else "")
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: {CLASSES}\n")
    run = plates.run_of("import", lambda run: importer.run(Import(path=str(folder), name=name), run, plates.silent))
    return snapshot.read(run)


def surface(class_id: int, seed: Any) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Uneven and grained, uint8 (SIDE, SIDE, 3), with dark spots (0), a bright scratch (1) or nothing (2); and the defect's box."""
    rng = np.random.default_rng(seed)
    light = ndimage.gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 7)
    grey = 125 + 30 * light / light.std() + ndimage.gaussian_filter(rng.normal(0, 12, (SIDE, SIDE)), 0.7)
    y, x = (int(v) for v in rng.integers(6, SIDE - 30, 2))
    if class_id == 0:
        for dy, dx in rng.integers(0, 20, (8, 2)):
            grey[y + dy:y + dy + 4, x + dx:x + dx + 4] = 30
    if class_id == 1:
        for i in range(24):
            grey[y + i:y + i + 2, x + i:x + i + 2] = 240
    box = None if class_id == 2 else (x, y, x + 24, y + 24)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2), box


def _yolo(box: tuple[int, int, int, int]) -> str:
    x1, y1, x2, y2 = (v / SIDE for v in box)
    return f"{(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1}"


def kept(images: list[np.ndarray], items: list[dict[str, Any]], data: snapshot.Snapshot, **more: Any) -> Path:
    """Pictures as a synthetic set on disk; `items` say of each what the set's head would. Its folder."""
    def write(run: Path) -> dict[str, Any]:
        scratch = run / "scratch"
        scratch.mkdir()
        listed = [dict(file=f"{i:06d}.png", mask="", width=SIDE, height=SIDE, boxes_from="parent", method="prior", **item)
                  for i, item in enumerate(items)]
        for image, item in zip(images, listed, strict=True):
            Image.fromarray(image).save(scratch / item["file"])
        head = dict(key=rundir.key_of(run=run.name), name="made", dataset=data.head["name"], snapshot_id=data.snapshot_id,
                    classes=CLASSES, items=listed, result={})
        rundir.keep_artifact(scratch, run, "synthetic", head | more)
        return {}

    return plates.run_of("synthesize", write) / "synthetic"
