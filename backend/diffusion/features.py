"""What a denoiser's decoder holds of given images: one noising and one forward per timestep, the up-blocks' outputs on one grid.

Baranchuk et al. 2022 (arXiv 2112.03126), section 3: the activations of a denoiser on a noised image are features of the image,
the same noise for every image and timestep. A *tap* is a (timestep, block) pair; block 0 is the innermost. The network has
learned from crops and runs on whole images, mirrored to one square. Knows nothing of what the features are for.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backend.device import computes_bf16
from backend.diffusion import pictures
from backend.diffusion.ddpm import TIMESTEPS, Denoiser
from backend.errors import ConfigError

NOISE_SEED = 20             # of the one shared noise; any number would do, but always the same
MAX_GRID = 32               # cells a side, our choice: a latent of 32 KiB an image leaves 16 channels a cell

# (timesteps, blocks). Default: all blocks of one low timestep, which our linear probe liked best. Literature: the timesteps of
# Baranchuk et al. 2022, whose decoder has 18 blocks of which they take five; ours has four.
PRESETS = {"default": ("20", "all"), "literature": ("50 150 250", "all")}


@dataclass(frozen=True)
class Taps:
    """Which features: every block at every timestep, in the order of `pairs`."""

    timesteps: tuple[int, ...]
    blocks: tuple[int, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(timestep, block) of each tap, as channels are stacked."""
        return [(t, b) for t in self.timesteps for b in self.blocks]


def parse(timesteps: str, blocks: str, denoiser: Denoiser) -> Taps:
    """Taps from what a person wrote: numbers between spaces, or `all` blocks. Raises ConfigError."""
    n = len(denoiser.unet.up_blocks)
    every = tuple(range(n))
    return Taps(_numbers(timesteps, "Timesteps", TIMESTEPS), every if blocks.strip() == "all" else _numbers(blocks, "Blocks", n))


def _numbers(text: str, what: str, end: int) -> tuple[int, ...]:
    words = text.split()
    other = "; blocks may also be: all" if what == "Blocks" else ""
    if not words or not all(w.isascii() and w.isdigit() for w in words):
        raise ConfigError(f"{what} are whole numbers with spaces between, such as {'1 2' if other else '50 150 250'}{other}. Not {text!r}.")
    numbers = tuple(map(int, words))
    if max(numbers) >= end:
        raise ConfigError(f"{what} go from 0 to {end - 1}, {max(numbers)} is too large.")
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{what} are named twice in {text!r}.")
    return numbers


def widths(denoiser: Denoiser, taps: Taps) -> list[int]:
    """Channels of each tap."""
    inward = denoiser.head["widths"][::-1]
    return [inward[b] for _, b in taps.pairs]


# ---- images in

def square(sizes: Iterable[tuple[int, int]]) -> int:
    """The side S that holds all images of these (h, w), as `pictures.scaled_size` tells them: the smallest multiple of 8."""
    return math.ceil(max(max(size) for size in sizes) / pictures.MULTIPLE) * pictures.MULTIPLE


def prepared(denoiser: Denoiser, image: Image.Image, S: int) -> tuple[Tensor, tuple[float, float]]:
    """An image scaled and mirrored to the square, float32 (C, S, S), -1 to 1; and the share (of width, of height) that is image."""
    return squared(pictures.scaled(image, denoiser.head["side"], denoiser.channels), S)


def squared(pixels: np.ndarray, S: int) -> tuple[Tensor, tuple[float, float]]:
    """The same of a scaled picture, uint8 (h, w, C)."""
    height, width = pixels.shape[:2]
    assert max(height, width) <= S, f"an image of {width} × {height} is larger than the square of {S}"
    return pictures.to_tensor(pictures.padded(pixels, S, S)), (width / S, height / S)


def grid_of(S: int) -> int:
    """Cells a side that feature maps of a square of S pixels are brought to."""
    return min(S // pictures.MULTIPLE, MAX_GRID)


# ---- features out

@torch.no_grad()
def extract(denoiser: Denoiser, images: Tensor, taps: Taps, grid: int) -> Tensor:
    """Features of images (B, C, S, S): float32 (B, sum of widths, grid, grid) on the CPU, tap after tap."""
    device, found = denoiser.unet.device, list[Tensor]()
    x_start = images.to(device)
    noise = shared_noise(images.shape[1], images.shape[-1]).to(device)
    with _listening(denoiser.unet, taps.blocks, lambda maps: on_grid(maps, grid)) as heard:
        for t in taps.timesteps:
            timestep = torch.tensor([t], device=device)
            noised = denoiser.schedule.add_noise(x_start, noise.expand_as(x_start), timestep)     # (B, C, S, S)
            with torch.autocast(device.type, torch.bfloat16, enabled=computes_bf16()):
                denoiser.unet(noised.contiguous(memory_format=torch.channels_last), timestep)
            found += [heard[b] for b in taps.blocks]
    return torch.cat(found, 1).cpu()


def shared_noise(channels: int, S: int) -> Tensor:
    """float32 (1, C, S, S), the same for every image and timestep: what differs between two maps is then the images."""
    return torch.randn(1, channels, S, S, generator=torch.Generator().manual_seed(NOISE_SEED))


def on_grid(maps: Tensor, grid: int) -> Tensor:
    """Feature maps (B, C, h, w) on one grid, float32 (B, C, grid, grid): averaged where finer, bilinear where coarser."""
    if min(maps.shape[-2:]) >= grid:
        return nn.functional.adaptive_avg_pool2d(maps.float(), grid)
    return nn.functional.interpolate(maps.float(), (grid, grid), mode="bilinear", align_corners=False)


@contextmanager
def _listening(unet: Any, blocks: Iterable[int], keep: Callable[[Tensor], Tensor]) -> Iterator[dict[int, Tensor]]:
    """The outputs of these up-blocks in the latest forward, as `keep` makes them; the network is left as it was."""
    heard = dict[int, Tensor]()

    def listener(b: int) -> Callable[..., None]:
        def listen(module: nn.Module, inputs: Any, output: Tensor) -> None:
            heard[b] = keep(output)
        return listen

    hooks = [unet.up_blocks[b].register_forward_hook(listener(b)) for b in blocks]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()
