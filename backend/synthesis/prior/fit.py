"""A picture's size and the network's: into the size that a prior draws well at, and back.

Our own surface prior has learned pictures at their own scale, so they keep it, up to the side it knows. Any other checkpoint draws
well at one size only (512 px for most): pictures are scaled so that the shorter side has it, long ones less. What is then no
multiple of the network's is mirrored on. Pictures are uint8 (h, w, 3), masks bool (h, w). Knows nothing of drawing.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from backend.diffusion import pictures
from backend.synthesis.blend import Image, Mask
from backend.synthesis.prior import stable
from backend.synthesis.prior.stable import Prior

LONGEST = 2              # times its own size a foreign checkpoint draws at most: beyond, it repeats itself, and memory ends


@dataclass(frozen=True)
class Fit:
    """Sizes as (h, w): the picture's own, as scaled, as padded for the network."""

    own: tuple[int, int]
    scaled: tuple[int, int]
    padded: tuple[int, int]

    def picture(self, pixels: Image) -> Image:
        """(h, w, 3) as the network sees it."""
        return pictures.padded(_resized(pixels, self.scaled), *self.padded)

    def mask(self, mask: Mask) -> Mask:
        """Every pixel that the mask touches is in it."""
        grown = _resized(mask.astype(np.uint8) * 255, self.scaled) > 0
        return np.asarray(pictures.padded(grown[..., None], *self.padded)[..., 0])

    def back(self, pixels: Image) -> Image:
        """What the network drew, at the picture's own size."""
        height, width = self.scaled
        return _resized(pixels[:height, :width], self.own)


def fit(prior: Prior, height: int, width: int) -> Fit:
    """How a picture of this size is drawn."""
    side, share = prior.unet.config.sample_size, 1.0
    if prior.native:
        share, least = min(1.0, prior.head["side"] / max(height, width)), 1
    else:
        least = stable.factor(prior) * (side if isinstance(side, int) else min(side))
        share = min(least / min(height, width), LONGEST * least / max(height, width))
    scaled = max(1, round(height * share)), max(1, round(width * share))
    step = stable.multiple(prior)
    return Fit((height, width), scaled, (_up(max(least, scaled[0]), step), _up(max(least, scaled[1]), step)))


def _up(length: int, step: int) -> int:
    return -(-length // step) * step


def _resized(pixels: Image, size: tuple[int, int]) -> Image:
    """Untouched where it has the size already."""
    if pixels.shape[:2] == size:
        return pixels
    smaller = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=way), np.uint8)
