"""What a surface prior learns from: train images of datasets and drawn surfaces, on disk, with what may be said of each part of them.

Stands between datasets and the two trainings. Every source (a dataset, the drawn surfaces) is seen equally often, however many
pictures it has. Knows nothing of networks or latents.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from backend.data import images
from backend.data.marks import Box
from backend.data.snapshot import Picture, Snapshot
from backend.diffusion import pictures
from backend.synthesis.prior import drawn
from backend.synthesis.prior.words import caption

SIDE = 256               # longer side, at most: larger pictures are scaled down to it
PART = 0.5               # of a defect's box must be in a crop, for the crop to be one of it,
SHARE = 0.25             # or so much of the crop must lie in the box
GENERAL = 0.25           # of the captions name the defect and not the surface, so that its word stands on its own


@dataclass(frozen=True)
class Label:
    """What is known of a picture: in words what it shows, its boxes in pixels as it is kept, and whether all defects are known."""

    name: str
    boxes: tuple[Box, ...]
    known: bool


@dataclass(frozen=True)
class Supply:
    """Pictures (RGB, on disk) with their labels. `sources` are ranges of them."""

    pictures: pictures.Pictures
    labels: list[Label]
    sources: list[range]

    def choose(self, rng: np.random.Generator) -> int:
        source = self.sources[int(rng.integers(len(self.sources)))]
        return int(source[int(rng.integers(len(source)))])

    def crops(self, rng: np.random.Generator, n: int, side: int) -> Tensor:
        """Random squares, flipped both ways at random: float32 (n, 3, side, side), -1 to 1."""
        return pictures.to_tensor(np.stack([self._crop(rng, side) for _ in range(n)]))

    def _crop(self, rng: np.random.Generator, side: int) -> Any:
        pixels = pictures.padded(self.pictures[self.choose(rng)], side, side)
        top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
        return pixels[top:top + side, left:left + side][::rng.choice((1, -1)), ::rng.choice((1, -1))]


def said(label: Label, left: float, top: float, side: float) -> str | None:
    """Caption of a square of a picture: the defect that covers most of it; None where nothing can be said for certain."""
    inside = [(_overlap(b, left, top, side), b) for b in label.boxes]
    good = [(area, b.class_name) for area, b in inside if area >= min(PART * (b.x2 - b.x1) * (b.y2 - b.y1), SHARE * side * side)]
    if good:
        return caption(label.name, max(good)[1])
    return caption(label.name, None) if label.known and not any(area for area, _ in inside) else None


def _overlap(box: Box, left: float, top: float, side: float) -> float:
    return max(0.0, min(box.x2, left + side) - max(box.x1, left)) * max(0.0, min(box.y2, top + side) - max(box.y1, top))


def captions(labels: list[Label]) -> list[str]:
    """All that may be said, each once."""
    found = {caption(name, c) for label in labels for name in (label.name, "")
             for c in (*{b.class_name for b in label.boxes}, *([None] if label.known else []))}
    return sorted(found)


# ---- gathering

def gather(datasets: list[Snapshot], n_drawn: int, seed: int, file: Path, tell: Callable[[str], None]) -> Supply:
    """Read and draw everything into `file`, replacing it."""
    chosen = [(data, data.learnable()) for data in datasets]
    counts = [n for n in (*(len(some) for _, some in chosen), n_drawn) if n]
    labels, sizes, total = list[Label](), list[Any](), sum(counts)
    with open(file, "wb") as out:
        for i, (pixels, label) in enumerate(_each(chosen, n_drawn, seed)):
            tell(f"reading and drawing picture {i + 1} of {total}")
            out.write(np.ascontiguousarray(pixels).tobytes())
            sizes.append(pixels.shape[:2])
            labels.append(label)
    shapes, ends = np.array(sizes, np.int64), np.cumsum(counts)
    starts = np.concatenate([[0], np.cumsum(shapes.prod(1) * 3)[:-1]])
    kept = pictures.Pictures(np.memmap(file, np.uint8, "r"), starts, shapes, 3)
    return Supply(kept, labels, [range(end - n, end) for n, end in zip(counts, ends.tolist(), strict=True)])


def _each(chosen: list[tuple[Snapshot, list[Picture]]], n_drawn: int, seed: int) -> Iterator[tuple[Any, Label]]:
    for data, some in chosen:
        for picture in some:
            yield _read(data, picture)
    for surface in drawn.surfaces(seed, n_drawn):
        yield surface.pixels, Label(surface.name, surface.boxes, known=True)


def _read(data: Snapshot, picture: Picture) -> tuple[Any, Label]:
    """A train image, scaled, with its boxes. Where nobody labelled a dataset, or only said that there is a defect, not all is known."""
    pixels = pictures.scaled(images.decode(picture.path.read_bytes(), picture.file_name), SIDE, 3)
    share = pixels.shape[1] / picture.width
    boxes = tuple(Box(b.class_name, *(share * v for v in (b.x1, b.y1, b.x2, b.y2))) for b in picture.boxes)
    return pixels, Label(data.head["name"], boxes, known=bool(data.classes) and (picture.is_good or bool(boxes)))
