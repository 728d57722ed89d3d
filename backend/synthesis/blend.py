"""A good image, a change and a mask become one image; then what of the mask one really sees, in pixels and in features.

RealNet (Zhang et al. 2024, section 3.2) blends with an opacity; a label over pixels that did not change would teach nothing but
noise, so the mask that is kept is the effective one, and images whose change no feature shows are refused. Images are uint8
(H, W, 3), masks bool (H, W). Knows nothing of where a change comes from.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from backend.teacher.extractors import Extractor

Image = np.ndarray[Any, np.dtype[np.uint8]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Window = tuple[slice, slice]
Strengths = np.ndarray[Any, np.dtype[np.float32]]

RIM = 2.0                # pixels over which a change fades in, from the mask's edge inwards
VISIBLE = 8.0            # of 255, smoothed: less is not told from the grain of a surface
GAP = 5                  # pixels: unchanged places of this width inside a change belong to it
SPECK = 4                # pixels; fewer are dust (as in data.marks)
SIDE = 128               # of the square in which features are compared
AROUND = 16              # pixels of surroundings in it, at least
MOVED = 1                # pixels: by so much a camera or a cut may move a surface
STRONGER = 2.0           # than such a move a change must be, in features; a move by two pixels reaches 2.1, JPEG at 90 % 0.7


def blend(normal: Image, change: Image, mask: Mask, opacity: float) -> Image:
    """The change inside the mask, fading in at its rim; outside, not a pixel differs."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)               # 1 at the outermost pixels of the mask
    weight = np.minimum(1, inside / RIM)[..., None] * np.float32(opacity)                # (H, W, 1)
    difference = change.astype(np.float32) - normal
    return np.rint(normal + weight * difference).astype(np.uint8)


def effective(normal: Image, result: Image, mask: Mask) -> Mask:
    """Where in the mask one sees the change: smoothed, it exceeds VISIBLE; small gaps closed, dust dropped."""
    difference = cv2.absdiff(normal, result).max(2).astype(np.float32)
    seen = ((cv2.GaussianBlur(difference, (5, 5), 1.0) > VISIBLE) & mask).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (GAP, GAP))
    closed = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, disc) * mask.astype(np.uint8)
    n, numbers, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= SPECK
    large[0] = False
    return np.asarray(large[numbers])


class Witness:
    """Says whether features of a frozen network see a change.

    Measured as 1 - cosine, inside the mask, level by level, against what the same features make of the good image moved by a
    pixel: what differs less than that is normal variation. Our choice; RealNet and DRAEM keep every image.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor

    def sees(self, normals: Sequence[Image], results: Sequence[Image], masks: Sequence[Mask]) -> Mask:
        """Image by image, bool (n,)."""
        return self.strength(normals, results, masks) > STRONGER

    @torch.no_grad()
    def strength(self, normals: Sequence[Image], results: Sequence[Image], masks: Sequence[Mask]) -> Strengths:
        """How much more than a move the change counts, float32 (n,): the geometric mean over levels."""
        if not len(normals):
            return np.zeros(0, np.float32)
        windows = [_window(m) for m in masks]
        device = next(self.extractor.parameters()).device
        cuts = [_stack(images, windows).to(device) for images in (normals, results, [_moved(n) for n in normals])]
        white = _stack([np.repeat(m[..., None], 3, 2).astype(np.uint8) * 255 for m in masks], windows)[:, :1].to(device)
        levels = zip(*(self.extractor(cut) for cut in cuts), strict=True)
        ratios = [_inside(normal, result, white) / _inside(normal, moved, white) for normal, result, moved in levels]
        return np.asarray(torch.stack(ratios).log().mean(0).exp().cpu().numpy(), np.float32)


def _inside(a: Tensor, b: Tensor, white: Tensor) -> Tensor:
    """Mean of 1 - cosine of two maps (n, C, h, w), weighed by the mask's share of each cell: (n,)."""
    weight = F.adaptive_avg_pool2d(white, a.shape[-2:])[:, 0]                            # (n, h, w)
    distance = 1 - F.cosine_similarity(a.float(), b.float(), dim=1)                      # (n, h, w)
    return ((weight * distance).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)).clamp(min=1e-5)


def _window(mask: Mask) -> Window:
    """The square around a mask, as far as the image goes; at least half of SIDE, so that a speck is not blown up to a face."""
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    side = max(SIDE // 2, int(max(np.ptp(ys), np.ptp(xs))) + 1 + 2 * AROUND)
    down, across = (span(int(v[0] + v[-1] + 1) // 2, side, length) for v, length in zip((ys, xs), mask.shape, strict=True))
    return down, across


def span(middle: int, side: int, length: int) -> slice:
    """`side` pixels about the middle, moved so that they lie inside 0 to length; all of it where it is shorter."""
    start = min(max(0, middle - side // 2), max(0, length - side))
    return slice(start, min(length, start + side))


def _stack(images: Sequence[Image], windows: Sequence[Window]) -> Tensor:
    """Windows of images, stretched to one square: float32 (n, 3, SIDE, SIDE), 0 to 1."""
    cuts = [cv2.resize(np.ascontiguousarray(i[w]), (SIDE, SIDE)) for i, w in zip(images, windows, strict=True)]
    return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float() / 255


def _moved(image: Image) -> Image:
    """The image a pixel down and to the right, its edges repeated."""
    return np.pad(image, ((MOVED, 0), (MOVED, 0), (0, 0)), "edge")[:-MOVED, :-MOVED]
