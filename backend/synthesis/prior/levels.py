"""Grey levels that drifted while a prior drew: an autoencoder and guidance move brightness and contrast a little, and a detector
would learn that made pictures are the dark ones.

All of it is our choice; papers.md 3.4 advises to bring levels back, and not how. Pictures are float32 (h, w, 3), 0 to 255.
Knows nothing of networks.
"""

from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from backend.diffusion import pictures
from backend.synthesis.blend import Image, Mask

Levels = np.ndarray[Any, np.dtype[np.float32]]

SHARE = 0.5              # of the drift is taken back: the rest may be the defect, which may well be dark
CONTRAST = (0.8, 1.25)   # within which contrast is changed
AROUND = 15              # pixels about a mask by which the levels inside are set


def is_grey(pixels: Image) -> bool:
    return pictures.is_grey(Pillow.fromarray(pixels))


def grey(drawn: Levels) -> Levels:
    """Without colour, in three equal channels."""
    return np.repeat(drawn.mean(2, keepdims=True), 3, 2)


def drift(drawn: Levels, source: Levels) -> Levels:
    """A whole picture drawn again: its mean and contrast half-way back to those of the picture it started from."""
    have, want = float(drawn.std()), float(source.std())
    gain = float(np.clip((want / max(have, 1.0)) ** SHARE, *CONTRAST)) if want > 1 else 1.0
    mean = drawn.mean((0, 1), dtype=np.float32)                                      # (3,)
    return (drawn - mean) * np.float32(gain) + mean + np.float32(SHARE) * (source.mean((0, 1), dtype=np.float32) - mean)


def seam(drawn: Levels, source: Levels, mask: Mask) -> Levels:
    """A part drawn again: around it both show the same surface, so what they differ by there is drift, all of it."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * AROUND + 1, 2 * AROUND + 1))
    ring = (cv2.dilate(mask.astype(np.uint8), disc) > 0) & ~mask
    return drawn + (source[ring] - drawn[ring]).mean(0, dtype=np.float32) if ring.any() else drawn
