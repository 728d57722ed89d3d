"""What the steps of an adaptation see: latents of train pictures, flipped and turned, and how much each place of them counts.

Stands between the chosen pictures and the steps. Everything follows from the generator that is handed in. Knows nothing of losses.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.data import images
from backend.data.snapshot import Picture
from backend.diffusion.pictures import to_tensor
from backend.synthesis.blend import Image
from backend.synthesis.prior import stable
from backend.synthesis.prior.fit import fit
from backend.synthesis.prior.stable import Prior

OUTSIDE = 0.2             # weight outside a class's boxes, 1 inside; AnomalyDiffusion (Hu et al. 2024) has 0. Surface is to be learned too
KEPT = 512 * 2**20        # bytes of latents kept in memory; more are encoded again when asked for
ACROSS, DOWN, TURNED = 1, 2, 4      # a variation is a sum of these


@dataclass(frozen=True)
class Batch:
    latents: Tensor              # float32 (B, c, h, w)
    weights: Tensor              # float32 (B, h, w)
    classes: list[str]


@dataclass
class Material:
    """Pictures by class. Latents are encoded one by one when first asked for, so that they do not depend on what came before."""

    prior: Prior
    pictures: dict[str, list[Picture]]
    _known: dict[tuple[str, str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _bytes: int = 0

    def batch(self, rng: np.random.Generator, n: int) -> Batch:
        """Classes evenly, however rare: n pictures, each flipped by chance; quarter turns where the prior knows pictures at their own
        scale, all of a batch alike, so that shapes still fit."""
        turned = TURNED * int(rng.integers(2)) * self.prior.native
        classes = [list(self.pictures)[i] for i in rng.integers(len(self.pictures), size=n)]
        found = []
        for class_name in classes:
            some = self.pictures[class_name]
            found.append(self.encoded(some[int(rng.integers(len(some)))], class_name, turned + int(rng.integers(4))))
        height, width = (min(x.shape[i] for x, _ in found) for i in (-2, -1))
        cut = [_window(rng, x, w, height, width) for x, w in found]
        latents, weights = (torch.stack(some) for some in zip(*cut, strict=True))
        return Batch(latents, weights, classes)

    def encoded(self, picture: Picture, class_name: str, variation: int = 0) -> tuple[Tensor, Tensor]:
        """A whole picture in a variation: latents (c, h, w) and weights (h, w), float32 on the CPU."""
        key = (picture.image_id, class_name, variation)
        if key not in self._known:
            found = self._encode(picture, class_name, variation)
            if self._bytes > KEPT:
                return found
            self._known[key] = found
            self._bytes += found[0].nbytes + found[1].nbytes
        return self._known[key]

    def _encode(self, picture: Picture, class_name: str, variation: int) -> tuple[Tensor, Tensor]:
        pixels = np.asarray(images.decode(picture.path.read_bytes(), picture.file_name))                # (H, W, 3)
        size = fit(self.prior, picture.height, picture.width)
        fitted, marked = size.picture(pixels), size.picture(_marked(picture, class_name))
        latents = stable.latents(self.prior, to_tensor(_varied(fitted, variation))[None])[0].float().cpu()          # (c, h, w)
        share = to_tensor(_varied(marked, variation))[:1] / 2 + 0.5                                     # (1, H, W), 0 to 1
        inside = F.adaptive_avg_pool2d(share, latents.shape[-2:])[0]                                    # (h, w)
        return latents, OUTSIDE + (1 - OUTSIDE) * inside


def _marked(picture: Picture, class_name: str) -> Image:
    """White where the boxes of this class are: uint8 (H, W, 3)."""
    white = np.zeros((picture.height, picture.width, 3), np.uint8)
    for box in picture.boxes:
        if box.class_name == class_name:
            white[math.floor(box.y1):math.ceil(box.y2), math.floor(box.x1):math.ceil(box.x2)] = 255
    return white


def _varied(pixels: Image, variation: int) -> Image:
    pixels = np.rot90(pixels) if variation & TURNED else pixels
    return pixels[::-1 if variation & DOWN else 1, ::-1 if variation & ACROSS else 1]


def _window(rng: np.random.Generator, latents: Tensor, weights: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A piece of this size about a chance place of the class: all of it where pictures are of one size."""
    places = torch.nonzero(weights >= weights.max() - 1e-6)                                             # (n, 2)
    middle = places[int(rng.integers(len(places)))].tolist()
    top, left = (min(max(0, at - int(rng.integers(side))), length - side)
                 for at, side, length in zip(middle, (height, width), weights.shape, strict=True))
    return latents[:, top:top + height, left:left + width], weights[top:top + height, left:left + width]
