"""Raw features of a snapshot's pictures, chunk by chunk, and arrays on disk that are filled row by row.

Stands between a denoiser and the feature repository. Knows which pictures a compressor may learn from, and nothing of compressors.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend import rundir
from backend.data import images
from backend.data.snapshot import UNLABELLED, Picture, Snapshot
from backend.device import torch_device
from backend.diffusion import ddpm, features, pictures
from backend.errors import ConfigError

FITTED = 2_000              # train images, at most, that a compressor learns from
SCRATCH = 2 * 2**30         # bytes, at most, that their features take on disk meanwhile
PIXELS = 400_000            # in one forward of the denoiser on a CPU: ten pictures of 200 px


class Source:
    """Raw features of a snapshot's pictures: from the denoiser, or from scratch where they are already."""

    def __init__(self, denoiser: ddpm.Denoiser, taps: features.Taps, data: Snapshot) -> None:
        self.denoiser, self.taps = denoiser, taps
        self.pictures: dict[str, Picture] = {p.image_id: p for p in data.pictures}
        self.ids, self.learnable = sorted(self.pictures), data.learnable(UNLABELLED)
        self.splits = {s: {p.image_id for p in data.pictures if p.split == s} for s in ("train", "val", "test")}
        sizes = [pictures.scaled_size(self.pictures[i].width, self.pictures[i].height, denoiser.head["side"]) for i in self.ids]
        self.side = features.square(sizes)
        self.grid = features.grid_of(self.side)
        self.extents = [(w / self.side, h / self.side) for h, w in sizes]
        self.widths = features.widths(denoiser, taps)
        self.kept = dict[str, np.ndarray]()                  # float16 (C, g, g) each, of a file

    @property
    def shape(self) -> tuple[int, int, int]:
        return sum(self.widths), self.grid, self.grid

    @property
    def chunk(self) -> int:
        """Pictures in one forward."""
        return max(1, PIXELS * (1 if torch_device() == "cpu" else 16) // self.side**2)

    @property
    def native(self) -> int:
        """Values of all taps before they are brought to one grid: every up-block but the last doubles the sides at its end."""
        outermost = len(self.denoiser.head["widths"]) - 1
        sides = [self.side * 2 ** min(0, b + 1 - outermost) for _, b in self.taps.pairs]
        return int(sum(w * side**2 for w, side in zip(self.widths, sides, strict=True)))

    def to_fit(self, seed: int) -> list[str]:
        """Real train images to learn from: none whose content is in val or test too, and no more than scratch may hold."""
        known = [p.image_id for p in self.learnable]
        if not known:
            raise ConfigError("This dataset has no train images to learn from.")
        n = min(len(known), FITTED, max(1, SCRATCH // (2 * int(np.prod(self.shape)))))
        return sorted(np.random.default_rng(seed).choice(known, n, replace=False).tolist())

    def gather(self, ids: Sequence[str], scratch: Path, tell: Callable[[int], None]) -> np.ndarray:
        """Raw features of these into scratch, or what is missing there: float16 (n, C, g, g) of a file."""
        rows = Rows(scratch / "raw.f16", scratch / "raw.rows", self.shape, "<f2")
        for first in range(rows.done, len(ids), self.chunk):
            tell(first)
            rows.put(first, self.raw(ids[first:first + self.chunk]).half().numpy())
        found = rows.read()
        self.kept = dict(zip(ids, found, strict=True))
        return found

    def raw(self, ids: Sequence[str]) -> Tensor:
        """float32 (n, C, g, g)."""
        new = [i for i in ids if i not in self.kept]
        found: dict[str, Tensor] = {}
        if new:
            squares = torch.stack([features.prepared(self.denoiser, self._open(i), self.side)[0] for i in new])
            found = dict(zip(new, features.extract(self.denoiser, squares, self.taps, self.grid), strict=True))
        return torch.stack([found[i] if i in found else torch.from_numpy(np.array(self.kept[i])).float() for i in ids])

    def _open(self, image_id: str) -> Any:
        path = self.pictures[image_id].path
        return images.decode(path.read_bytes(), path.name)


@dataclass(frozen=True)
class Rows:
    """An array on disk that is filled from its first row on, and knows how far it came, whatever happened meanwhile."""

    path: Path
    marker: Path
    shape: tuple[int, ...]           # of a row
    dtype: str

    @property
    def done(self) -> int:
        return int(self.marker.read_text()) if self.marker.exists() and self.path.exists() else 0

    def put(self, first: int, rows: np.ndarray) -> None:
        assert rows.shape[1:] == self.shape and np.isfinite(rows).all(), "features are numbers that float16 holds"
        with open(self.path, "r+b" if self.path.exists() else "wb") as f:
            f.seek(first * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize)
            f.write(np.ascontiguousarray(rows, self.dtype).tobytes())
            f.flush()
            os.fsync(f.fileno())                                   # before the marker that calls them done
        rundir.write_bytes(self.marker, str(first + len(rows)).encode())

    def read(self) -> np.ndarray:
        return np.memmap(self.path, self.dtype, "r", shape=(self.done, *self.shape))
