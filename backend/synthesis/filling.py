"""Changes for a list of good images with their masks: what the denoiser, another surface or noise would put there.

Stands between the sources and the recipe. The denoiser draws only a window around each mask again, at the scale it has learned
from: 45 % of the pixels of a 256 px square on average, 58 % at 128 px. Images, masks and changes are of one size each, uint8
(h, w, 3). Knows nothing of blending.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from backend.config import Synthesize
from backend.device import torch_device
from backend.diffusion import pictures
from backend.diffusion.ddpm import Denoiser
from backend.synthesis import sources
from backend.synthesis.blend import Image, Mask, Window, span
from backend.synthesis.perturb import perturb

AROUND = 12              # pixels of surroundings that the denoiser sees of a mask, at least
SMALLEST = 64            # side of a window, at least: the crops that denoisers learn from
STEP = 16                # windows are rounded up to it, so that some can share a forward
FORWARD = 150_000        # pixels in one forward on a CPU; sixteen times that on a GPU


class Filling:
    """Whatever the config names as source."""

    def __init__(self, config: Synthesize, denoiser: Denoiser | None, known: Sequence[Image]) -> None:
        assert (denoiser is None) == (config.source != "ddpm"), "the source that needs a denoiser has one"
        self.config, self.denoiser, self.known = config, denoiser, known

    def changes(self, normals: list[Image], masks: list[Mask], rngs: list[np.random.Generator]) -> list[Image]:
        """One change an image, of its size; outside the mask it may be anything. Each follows from its own generator."""
        if self.denoiser is not None:
            return self._redrawn(self.denoiser, normals, masks, rngs)
        if self.config.source == "noise":
            return [sources.noise(rng, normal) for rng, normal in zip(rngs, normals, strict=True)]
        return [sources.texture(rng, self.known, *normal.shape[:2]) for rng, normal in zip(rngs, normals, strict=True)]

    def _redrawn(self, denoiser: Denoiser, normals: list[Image], masks: list[Mask], rngs: list[np.random.Generator]) -> list[Image]:
        """Differences that the denoiser makes, added: a picture's colour cast outlives a grey denoiser."""
        inputs, windows = zip(*(_input(denoiser, normal, mask) for normal, mask in zip(normals, masks, strict=True)), strict=True)
        generators = [torch.Generator().manual_seed(int(rng.integers(2**63))) for rng in rngs]
        found = list[Image](normals)
        for group in _groups(inputs):
            before = torch.stack([inputs[i] for i in group])                                     # (b, C, H, W)
            after = perturb(denoiser, before, [generators[i] for i in group], steps=self.config.steps, depth=self.config.depth,
                            variance=self.config.variance, start=self.config.start)
            for i, difference in zip(group, (after.clamp(-1, 1) - before) * 127.5, strict=True):
                found[i] = _added(normals[i], difference, windows[i], denoiser)
        return found


def _input(denoiser: Denoiser, normal: Image, mask: Mask) -> tuple[Tensor, Window]:
    """What the denoiser sees: a window of the picture at its scale, float32 (C, H, W), sides multiples of 8; and which window."""
    height, width = normal.shape[:2]
    h, w = pictures.scaled_size(width, height, denoiser.head["side"])
    small = normal if (h, w) == (height, width) else cv2.resize(normal, (w, h), interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(mask.any(1))[0] * (h / height), np.nonzero(mask.any(0))[0] * (w / width)
    window = _span(rows, h), _span(columns, w)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None] if denoiser.channels == 1 else small
    cut = grey[window]
    return pictures.to_tensor(pictures.padded(cut, *(_up(side, pictures.MULTIPLE) for side in cut.shape[:2]))), window


def _span(places: "np.ndarray[Any, Any]", length: int) -> slice:
    first, last = int(places[0]), int(places[-1]) + 1
    side = _up(max(SMALLEST, last - first + 2 * AROUND), STEP)
    return span((first + last) // 2, side, length)


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _groups(inputs: Sequence[Tensor]) -> Iterator[list[int]]:
    """Numbers of inputs of one size, as many as fit one forward."""
    sizes = dict[tuple[int, ...], list[int]]()
    for i, image in enumerate(inputs):
        sizes.setdefault(tuple(image.shape), []).append(i)
    for (_, height, width), same in sizes.items():
        batch = max(1, FORWARD * (1 if torch_device() == "cpu" else 16) // (height * width))
        yield from (same[i:i + batch] for i in range(0, len(same), batch))


def _added(normal: Image, difference: Tensor, window: Window, denoiser: Denoiser) -> Image:
    """The picture with the difference (C, H, W) of a window, which lies at the denoiser's scale, added: uint8 (h, w, 3)."""
    height, width = normal.shape[:2]
    h, w = pictures.scaled_size(width, height, denoiser.head["side"])
    whole = np.zeros((h, w, 3), np.float32)
    down, across = (s.stop - s.start for s in window)
    whole[window] = difference.permute(1, 2, 0).numpy()[:down, :across]                          # grey is added to all three
    if (h, w) != (height, width):
        whole = np.asarray(cv2.resize(whole, (width, height)), np.float32)
    return np.clip(np.rint(normal + whole), 0, 255).astype(np.uint8)
