"""The smallest thing a classifier can be trained on: grey plates with a dark spot, with a bright stripe, or good; in class folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from backend import rundir
from backend.config import Import
from backend.data import importer
from tests import plates

CLASSES = ["spot", "stripe"]
COUNTS = {"train": 12, "val": 4, "test": 6}            # of each class and of good plates
SIZE = (40, 52)                                        # height, width


def drawn(folder: Path, kinds: tuple[str, ...] = ("good", "spot", "stripe"), counts: dict[str, int] | None = None) -> Path:
    """<split>/<class>/<n>.png"""
    rng = np.random.default_rng(0)
    for split, n in (counts or COUNTS).items():
        for kind in kinds:
            (folder / split / kind).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(plate(rng, kind)).save(folder / split / kind / f"{kind}{i}.png")
    return folder


def plate(rng: np.random.Generator, kind: str) -> np.ndarray:
    """uint8 (height, width, 3)"""
    height, width = SIZE
    pixels = rng.integers(100, 130, (height, width)).astype(np.uint8)
    y, x = int(rng.integers(8, height - 18)), int(rng.integers(8, width - 18))
    if kind == "spot":
        pixels[y:y + 12, x:x + 12] = 20
    elif kind == "stripe":
        pixels[y:y + 5] = 240
    return np.repeat(pixels[..., None], 3, -1)


def imported(folder: Path, name: str = "plates", layout: str = "class-folders") -> Path:
    """The import's run directory."""
    return plates.run_of("import", lambda r: importer.run(Import(path=str(folder), name=name, layout=layout), r, plates.silent))


def snapshot_id(run: Path) -> str:
    return str(rundir.read_json(run / "snapshot.json")["snapshot_id"])
