"""Does the student hold what the diffusion model sees? By level and class of defect, on val, for `<run>/fidelity.json`.

A linear reader (ridge regression, fitted on train images) takes the student's backbone maps to the decoded features; the cosine
between what it reads and what the repository holds is averaged over the cells that boxes of a class cover. Stands after a training;
changes nothing. Knows nothing of how the student was trained.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from backend import rundir
from backend.config import TrainDetector
from backend.data import images, snapshot
from backend.data.snapshot import Picture
from backend.detection.fuse import STRIDE, Features, letterboxed
from backend.detection.network import BACKBONE, Detector, build
from backend.detection.warp import warp
from backend.device import torch_device
from backend.inspection.engine import Engine

FITTED = 300                         # train images that the reader is fitted on: 235,000 cells at 224 px for at most 256 channels
RIDGE = 1e-2                         # of the mean variance of a channel
LEVELS = ("P3", "P4", "P5")


def write(run_dir: Path, data: snapshot.Snapshot, repository: Path, report: Any) -> None:
    """Measure the student in `<run>/weights` against a repository of the same snapshot."""
    head = rundir.read_json(run_dir / "model" / "model.json")
    student = Student(run_dir / "weights", head, Features(repository))
    train, val = data.by_split("train")[::max(1, len(data.by_split("train")) // FITTED)], data.by_split("val")
    total, tell = len(train) + len(val), lambda n: report(step=n, total=total, message=f"fidelity, image {n} of {total}")
    readers = _fit(student, train, tell)
    cosine = _cosines(student, readers, val, data.classes, lambda n: tell(n + len(train)))
    rundir.write_json(run_dir / "fidelity.json", dict(
        levels=list(LEVELS), classes=data.classes, cosine=cosine, ap50=head["metrics"]["val"]["ap50"], images=len(val), split="val"))


class Student:
    """A trained detector's backbone maps beside the features of the same images."""

    def __init__(self, weights: Path, head: dict[str, Any], features: Features) -> None:
        kept = rundir.read_json(weights / "head.json")
        config = TrainDetector(dataset="-", name="-", size=kept["size"], imgsz=kept["imgsz"])
        self.network: Detector = build(config, dict(enumerate(kept["classes"])))
        self.network.load_state_dict(load_file(weights / "network.safetensors"))
        self.network = self.network.to(torch_device()).eval()
        self.features, self.engine = features, Engine.of(head, lambda batch: batch)

    @torch.inference_mode()
    def maps(self, some: list[Picture]) -> tuple[list[Tensor], list[Tensor], list[Any]]:
        """Per level: the student's map (B, C, H, W) and the features there (B, D, H, W); and how each image lies in the input."""
        prepared, side = [self.engine.prepare(np.asarray(images.load(p.image_id))) for p in some], self.engine.imgsz
        pixels = torch.from_numpy(np.stack([p.pixels for p in prepared])).permute(0, 3, 1, 2).to(torch_device()).float() / 255
        batch: dict[str, Any] = {"img": pixels}
        self.features.add(batch, letterboxed([p.image_id for p in some], prepared, side))
        whole = self.features.decoded(batch["sources"].pictures()[0]).float()                    # (pictures, D, g, g)
        fine = warp(whole, batch["sources"], batch["extents"], len(some), (side // STRIDE, side // STRIDE), batch["picture"])
        return _backbone(self.network, pixels), [F.avg_pool2d(fine, 2**k) for k in range(len(LEVELS))], prepared


def _backbone(network: Detector, x: Tensor) -> list[Tensor]:
    kept = []
    for i, layer in enumerate(network.model[:BACKBONE[-1] + 1]):
        x = layer(x)
        if i in BACKBONE:
            kept.append(x)
    return kept


def _chunks(some: list[Picture], tell: Any, size: int = 8) -> Iterator[list[Picture]]:
    for start in range(0, len(some), size):
        tell(start)
        yield some[start:start + size]


def _cells(m: Tensor) -> Tensor:
    """(B, C, H, W) to (cells, C), with a constant behind: the reader has an offset."""
    flat = m.permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([flat, torch.ones_like(flat[:, :1])], 1)


def _fit(student: Student, some: list[Picture], tell: Any) -> list[Tensor]:
    """A reader (C + 1, D) per level, by ridge regression."""
    squares: list[Any] = [0.0] * len(LEVELS)
    products: list[Any] = [0.0] * len(LEVELS)
    for chunk in _chunks(some, tell):
        maps, features, _ = student.maps(chunk)
        for k, (m, f) in enumerate(zip(maps, features, strict=True)):
            x, y = _cells(m), f.permute(0, 2, 3, 1).flatten(0, 2)
            squares[k], products[k] = squares[k] + x.T @ x, products[k] + x.T @ y
    return [torch.linalg.solve(s + RIDGE * s.diagonal().mean() * torch.eye(len(s), device=s.device), p)
            for s, p in zip(squares, products, strict=True)]


def _cosines(student: Student, readers: list[Tensor], some: list[Picture], classes: list[str], tell: Any) -> list[list[float | None]]:
    """Mean cosine over the cells in boxes of a class: [level][class]; None where val has no box of it."""
    totals, counts = np.zeros((len(LEVELS), len(classes))), np.zeros((len(LEVELS), len(classes)))
    for chunk in _chunks(some, tell):
        maps, features, prepared = student.maps(chunk)
        for k, (m, f) in enumerate(zip(maps, features, strict=True)):
            read = (_cells(m) @ readers[k]).unflatten(0, (len(chunk), *m.shape[2:])).permute(0, 3, 1, 2)
            near = F.cosine_similarity(read, f, 1).cpu().numpy()                                  # (B, H, W)
            for picture, placed, one in zip(chunk, prepared, near, strict=True):
                for c in picture.classes:
                    covered = _covered(picture, c, placed, one.shape[0], student.engine.imgsz)
                    totals[k, classes.index(c)] += one[covered].sum()
                    counts[k, classes.index(c)] += covered.sum()
    return [[round(float(t / n), 4) if n else None for t, n in zip(*rows, strict=True)] for rows in zip(totals, counts, strict=True)]


def _covered(picture: Picture, name: str, placed: Any, cells: int, side: int) -> np.ndarray:
    """bool (cells, cells): the cell's centre lies in a box of this class."""
    centres = (np.arange(cells) + 0.5) * side / cells
    x, y = (centres - placed.offset[0]) / placed.gain[0], (centres - placed.offset[1]) / placed.gain[1]
    found = np.zeros((cells, cells), bool)
    for b in picture.boxes:
        if b.class_name == name:
            found |= np.outer((y >= b.y1) & (y < b.y2), (x >= b.x1) & (x < b.x2))
    return found
