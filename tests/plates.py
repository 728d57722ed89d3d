"""The smallest dataset a denoiser can learn from: plates of little noise, most with one bright square that is boxed."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend import rundir
from backend.config import Import
from backend.data import importer

COUNTS = {"train": 12, "val": 6, "test": 3}


def imported(folder: Path, name: str, *, colour: bool = False, size: tuple[int, int] = (44, 60), boxes: str = "true",
             seed: int = 0) -> Path:
    """Draw plates of (height, width) and import them; the import's run directory. `boxes`: true, random or none.

    The last picture of each split has no square; with random boxes, a box lies where dice put it.
    """
    rng = np.random.default_rng(seed)
    for split, n in COUNTS.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(n):
            pixels, square = plate(rng, size, defective=i < n - 1)
            if colour:
                pixels = np.stack([pixels, pixels // 2, 255 - pixels], -1)
            Image.fromarray(pixels).save(folder / "images" / split / f"{i}.png")
            if boxes == "random":
                _, square = plate(rng, size, defective=i < n - 1)
            if boxes != "none":
                (folder / "labels" / split / f"{i}.txt").write_text("".join(f"0 {label(s, size)}\n" for s in square))
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: [bright]\n")
    return run_of("import", lambda run: importer.run(Import(path=str(folder), name=name), run, silent))


def plate(rng: np.random.Generator, size: tuple[int, int], defective: bool) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """uint8 (height, width), and its squares: [(x, y, side)]."""
    pixels = rng.integers(90, 110, size).astype(np.uint8)
    side = int(rng.integers(14, 22))
    y, x = (int(rng.integers(0, length - side)) for length in size)
    if defective:
        pixels[y:y + side, x:x + side] = 220
    return pixels, [(x, y, side)] if defective else []


def label(square: tuple[int, int, int], size: tuple[int, int]) -> str:
    (x, y, side), (height, width) = square, size
    return f"{(x + side / 2) / width} {(y + side / 2) / height} {side / width} {side / height}"


def run_of(recipe: str, do: Any) -> Path:
    """A run directory after `do(run_dir)`, completed."""
    run = rundir.create(recipe, {})
    rundir.write_json(run / "result.json", do(run))
    rundir.set_state(run, "completed")
    return run


def silent(**progress: Any) -> None:
    """A report that nobody reads."""
