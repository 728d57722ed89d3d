"""What a frozen network sees of whole pictures, as vectors: one for what kind of surface it is, one for where what is.

Stands between `teacher.extractors` and the figures in `measures`. Pictures are stretched to one square, all alike: the fine grain of
much larger ones is lost to both sides of a comparison. Kept on disk chunk by chunk, so that a killed run goes on. Knows nothing of
classes or of where a picture comes from.

    kind      each level's map averaged over the picture, to the length √C, one behind the other: (n, d). So x·y/d lies between -1 and
              1 for every network, beside the 1 of the kernel. Our choice: raw features, scaled by their size, or standardised on the
              dataset tell blur, noise and classes apart no better, and depend on the network or on the dataset.
    layout    the last two maps of a small picture in CELLS × CELLS cells, each channel less its mean, to the length 1: (n, D). Of a
              stationary surface the kind hardly differs from picture to picture; the layout does. Of NEU-DET's six classes, copies that
              were turned, noised, blurred, moved by 4 % or cut at the edges all lie below the distance that 1 % of different ones
              do (at 0.1 to 0.8 of it), new ones at 1.04 to 1.3.
              Of pictures that may have been copied it is taken in all eight flips and quarter turns, as adapters learn them;
              turning the map in place of the picture would not do: a network has an up and a down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend import rundir
from backend.data.snapshot import Snapshot
from backend.device import torch_device
from backend.diffusion import ddpm
from backend.synthesis.blend import Image
from backend.synthesis.measures import Vectors
from backend.teacher import quick
from backend.teacher.extractors import Extractor, extractor
from backend.teacher.source import Rows

SIDE = 224               # of the square: the side that EfficientNet-Lite0 learned at
SMALL, CELLS = 96, 6     # of the picture for the layout: a sixth of the work, and grain is no layout; and of its last map
TURNS = 8
CHUNK = 16               # pictures of one forward, and between two checkpoints, on a CPU; four times that on a GPU
FORMAT = 1               # of what is seen; part of the keys of all that is measured with it
Load = Callable[[range], Sequence[Image]]


@dataclass(frozen=True)
class Looks:
    """Of n pictures. Sliced like an array."""

    kind: Vectors                    # float32 (n, d)
    layout: Vectors                  # float32 (n, D)

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, which: Any) -> "Looks":
        return Looks(self.kind[which], self.layout[which])


class Eye:
    """An extractor that looks at pictures."""

    def __init__(self, net: Extractor) -> None:
        self.net, self._sees = net.to(torch_device()), dict[int, quick.See]()
        self.kinds, self.layouts = sum(net.widths), sum(net.widths[-2:]) * CELLS**2
        self.chunk = CHUNK * (1 if torch_device() == "cpu" else 4)

    def gather(self, n: int, load: Load, scratch: Path, tell: Callable[[int], None]) -> Looks:
        """Of pictures 0 to n - 1, which `load` gives for a range of numbers; what `scratch` holds already is not looked at again."""
        def see(images: Sequence[Image]) -> Vectors:
            return np.concatenate([self._kind(images), self._layout(images)], 1)

        rows = self._kept(Rows(_beside(scratch, ".f4"), _beside(scratch, ".done"), (self.kinds + self.layouts,), "<f4"), see, n, load, tell)
        return Looks(rows[:, :self.kinds], rows[:, self.kinds:])

    def turned(self, n: int, load: Load, scratch: Path, tell: Callable[[int], None]) -> Vectors:
        """Layouts of pictures in all flips and quarter turns, on disk: float16 (n, TURNS, D)."""
        def see(images: Sequence[Image]) -> Vectors:
            return self._layout([t for i in images for t in turns(i)]).reshape(len(images), TURNS, -1)

        return self._kept(Rows(_beside(scratch, ".f2"), _beside(scratch, ".done"), (TURNS, self.layouts), "<f2"), see, n, load, tell)

    def _kept(self, rows: Rows, see: Callable[[Sequence[Image]], Vectors], n: int, load: Load, tell: Callable[[int], None]) -> Vectors:
        while (first := rows.done) < n:
            tell(first)
            rows.put(first, see(load(range(first, min(n, first + self.chunk)))))
        return rows.read()[:n] if n else np.zeros((0, *rows.shape), rows.dtype)

    def _maps(self, images: Sequence[Image], side: int) -> Sequence[Tensor]:
        if side not in self._sees:
            self._sees[side] = quick.seeing(self.net, side, False, torch_device())
        return self._sees[side](_stack(images, side))

    @torch.no_grad()
    def _kind(self, images: Sequence[Image]) -> Vectors:
        maps = self._maps(images, SIDE)
        levels = [F.normalize(m.float().mean((2, 3))) * m.shape[1] ** 0.5 for m in maps]                # (n, C) each
        return np.asarray(torch.cat(levels, 1).cpu().numpy())                                           # (n, d)

    @torch.no_grad()
    def _layout(self, images: Sequence[Image]) -> Vectors:
        cells = [F.adaptive_avg_pool2d(m.float(), CELLS) for m in self._maps(images, SMALL)[-2:]]     # (n, C, CELLS, CELLS)
        levels = [F.normalize((c - c.mean((2, 3), keepdim=True)).flatten(1)) for c in cells]
        return np.asarray(F.normalize(torch.cat(levels, 1)).cpu().numpy())                                  # (n, D)


def _beside(scratch: Path, ending: str) -> Path:
    return scratch.with_name(scratch.name + ending)


def turns(image: Image) -> list[Image]:
    """Itself first."""
    quarters = [np.rot90(image, i) for i in range(4)]
    return quarters + [q[:, ::-1] for q in quarters]


def opened(name: str, data: Snapshot) -> tuple[Eye, str]:
    """The extractor of this name, and what its results hang on. `ddpm` is the dataset's own. Raises ConfigError, NotFoundError."""
    denoiser = ddpm.find("", data) if name == "ddpm" else None
    key = str(rundir.read_json(denoiser / "head.json")["key"]) if denoiser else name
    return Eye(extractor(name, denoiser, exact=False)), f"{key}, {FORMAT}"


def _stack(images: Sequence[Image], side: int) -> Tensor:
    """Pictures of any sizes, stretched to squares: float32 (n, 3, side, side), 0 to 1."""
    squares = [cv2.resize(np.ascontiguousarray(i), (side, side), interpolation=cv2.INTER_AREA if min(i.shape[:2]) > side else
                          cv2.INTER_LINEAR) for i in images]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(torch_device()).float() / 255
