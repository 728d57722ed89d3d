"""Batches for a classifier: which pictures come in a step, and how they are shown. All of it follows from (seed, step).

Every picture comes once before any comes again. With a share of real ones, real and synthetic are two such orders, drawn from so
that the share holds over the steps to the picture. Augmentation is one warp a picture (flips, quarter turns, a cut of the frame)
and light; grey stays grey. Knows nothing of files, snapshots or networks.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SIDE = 0.8         # of the picture, that a cut shows at least, across and down apart: a defect at the edge is seldom cut off
CONTRAST, LIGHT = 0.2, 0.1       # by how much light varies either way: share of the contrast, and of the whole range; our choice


@dataclass(frozen=True)
class Stream:
    """Indices (n,) in an order that is drawn anew for each round."""

    indices: np.ndarray
    seed: tuple[int, ...]

    def take(self, start: int, count: int) -> np.ndarray:
        """The picks from `start` on, int64 (count,)."""
        at, n = np.arange(start, start + count), len(self.indices)
        rounds = {r: np.random.default_rng([*self.seed, r]).permutation(n) for r in np.unique(at // n).tolist()}
        return self.indices[[rounds[r][i] for r, i in zip((at // n).tolist(), (at % n).tolist(), strict=True)]]


class Order:
    """Which train pictures a step sees. `real_share` counts only where there are real and synthetic ones."""

    def __init__(self, synthetic: np.ndarray, batch: int, real_share: float | None, seed: int) -> None:
        self.batch, self.share = batch, real_share if synthetic.any() and not synthetic.all() else None
        if self.share is None:
            self.streams = [Stream(np.arange(len(synthetic)), (seed, 2**33))]
        else:
            self.streams = [Stream(np.flatnonzero(~synthetic), (seed, 2**33)), Stream(np.flatnonzero(synthetic), (seed, 2**33 + 1))]

    def step(self, number: int) -> np.ndarray:
        """int64 (batch,)"""
        first, last = number * self.batch, (number + 1) * self.batch
        if self.share is None:
            return self.streams[0].take(first, self.batch)
        real, real_after = (int(self.share * n + 1e-9) for n in (first, last))                # how many until then, in all
        return np.concatenate([self.streams[0].take(real, real_after - real),
                               self.streams[1].take(first - real, self.batch - (real_after - real))])


def pixels(images: np.ndarray) -> Tensor:
    """uint8 (B, S, S, 3) to float32 (B, 3, S, S), 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def augmented(images: Tensor, rng: np.random.Generator) -> Tensor:
    """float32 (B, 3, S, S): each picture flipped, turned, cut and lit by dice of its own."""
    count = len(images)
    matrices = np.stack([_matrix(rng) for _ in range(count)])
    gain, offset = 1 + rng.uniform(-CONTRAST, CONTRAST, count), rng.uniform(-LIGHT, LIGHT, count)
    grid = F.affine_grid(torch.from_numpy(matrices).float(), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    mean = moved.mean((1, 2, 3), keepdim=True)
    gain_, offset_ = (torch.from_numpy(v).float().view(-1, 1, 1, 1) for v in (gain, offset))
    return ((moved - mean) * gain_ + mean + offset_).clamp(0, 1)


def _matrix(rng: np.random.Generator) -> np.ndarray:
    """(2, 3): from a point of what is shown to one of the picture, both -1 to 1: a cut, then one of the square's eight symmetries."""
    across, down = rng.uniform(LEAST_SIDE, 1, 2)
    x, y = rng.uniform(-1, 1, 2) * (1 - across, 1 - down)
    cut = np.array([[across, 0, x], [0, down, y]])
    turn = [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]][rng.integers(4)]
    flip = [-1 if rng.random() < 0.5 else 1, 1]
    return np.asarray(np.array(turn) @ np.diag(flip) @ cut)
