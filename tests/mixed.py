"""The squares with synthetic ones among their train images: the smallest dataset on which real and synthetic can be compared."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from backend import rundir
from backend.config import Import
from backend.data import images, importer, snapshot
from backend.data.marks import Box
from backend.data.snapshot import Picture
from tests import squares

MADE = 6


def imported(folder: Path, name: str = "mixed", made: int = MADE) -> Path:
    """Draw, import, and add made pictures; the run directory of the mixed dataset. The real one is called `<name> real`."""
    squares.draw(folder)
    run = rundir.create("import", {}, state="running")
    importer.run(Import(path=str(folder), name=f"{name} real"), run, lambda **_: None)
    rundir.set_state(run, "completed")
    return add(snapshot.read(run), name, made)


def add(data: snapshot.Snapshot, name: str, made: int = MADE) -> Path:
    run = rundir.create("combine", {}, state="running")
    parents = data.by_split("train")
    pictures = [synthetic(i, parents[i % len(parents)].image_id, data.classes) for i in range(made)]
    about = dict(name=name, layout=data.head["layout"], seed=0, splits_from="lists")
    snapshot.write(run, data.pictures + pictures, data.classes, [], about)
    rundir.set_state(run, "completed")
    return run


def synthetic(i: int, parent: str, classes: list[str]) -> Picture:
    """A darker square on a plate of other noise."""
    rng = np.random.default_rng(1000 + i)
    pixels = rng.integers(90, 120, (squares.SIDE, squares.SIDE, 3)).astype(np.uint8)
    x, y, side = 5 + i, 30 - i, 20
    pixels[y:y + side, x:x + side] = [(180, 40, 40), (40, 40, 180)][i % 2]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    image_id = images.sha256(out.getvalue())
    images.keep(out.getvalue(), image_id, "PNG")
    return Picture(image_id, f"made-{i}.png", squares.SIDE, squares.SIDE, f"{i:016x}", (Box(classes[i % 2], x, y, x + side, y + side),),
                   "train", origin="synthetic", parent=parent)
