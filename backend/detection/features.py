"""What the repository answers for the pictures of a batch: each asked once, and those seen lately not worked out again.

Stands between the loader's sources and whoever reads features: the fused detector, a distilled student's teacher, the fidelity.
A mosaic draws three of its four pictures from those of the last eight batches: of 48 pictures in a batch of 16, about 16 are new.
`Recent` holds what follows from a picture alone, nothing that training changes, and no more bytes than it is given. bfloat16 may
round a picture differently beside others, so whoever trains empties it where a resumed training begins: at each epoch.
Knows nothing of networks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.detection.warp import Sources
from backend.device import torch_device
from backend.teacher.fusion import Expansion
from backend.teacher.repository import Repository

ROOM = 64 * 2**20           # bytes: at 25 x 25 about 440 pictures; two loading processes draw from 256


class Features:
    """What the repository answers for the images of a batch."""

    def __init__(self, folder: Path, shuffled: bool = False) -> None:
        self.repository = Repository.open(folder).to(torch_device())
        ids = sorted(self.repository.image_ids)
        order = np.random.default_rng(0).permutation(ids)
        self.other = dict(zip(order, np.roll(order, 1), strict=True)) if shuffled else None       # nobody keeps its own

    def add(self, batch: dict[str, Any], sources: Sources, look: Callable[[list[str]], Tensor] | None = None) -> None:
        """Put sources into a batch, and of each picture in them, once: features (M, c, g, g), or what `look` has, and extents (M, 2)."""
        device, (keys, picture) = batch["img"].device, sources.pictures()
        batch["sources"], batch["picture"] = sources.to(device), picture.to(device)
        batch["features"], batch["expansion"] = (look or self.hidden)(keys), self.expansion
        batch["extents"] = torch.from_numpy(self.repository.extents(self._answering(keys))).to(device)

    @property
    def expansion(self) -> Expansion:
        """What makes whole features of `hidden`."""
        return self.repository.expansion

    def hidden(self, keys: list[str]) -> Tensor:
        """Of pictures, up to the expansion: (M, c, g, g)."""
        return self.repository.hidden(self._latents(keys))

    def decoded(self, keys: list[str]) -> Tensor:
        """Of pictures, whole and standardised: (M, C, g, g)."""
        return self.repository.decode(self._latents(keys))

    def _answering(self, keys: list[str]) -> list[str]:
        return [str(self.other[k]) for k in keys] if self.other else keys

    def _latents(self, keys: list[str]) -> Tensor:
        return torch.from_numpy(self.repository.rows(self._answering(keys))).to(torch_device())


class Recent:
    """`make` of pictures (n, …), remembered row by row; those not asked for the longest are forgotten first."""

    def __init__(self, make: Callable[[list[str]], Tensor], room: int = ROOM) -> None:
        self.make, self.room, self.rows = make, room, dict[str, Tensor]()                # rows (1, …), last used last

    def __call__(self, keys: list[str]) -> Tensor:
        """Of each key, none twice: (n, …)."""
        rows = {key: self.rows.pop(key) for key in keys if key in self.rows}
        new = [key for key in keys if key not in rows]
        if new or not keys:
            made = self.make(new)
            rows |= {key: made[i:i + 1] for i, key in enumerate(new)}
        self.rows |= rows
        self._forget_oldest()
        return torch.cat([rows[key] for key in keys]) if keys else made

    def forget(self) -> None:
        self.rows.clear()

    def _forget_oldest(self) -> None:
        while self.rows and len(self.rows) * next(iter(self.rows.values())).nbytes > self.room:
            del self.rows[next(iter(self.rows))]
