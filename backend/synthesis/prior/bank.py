"""Latents of all that a surface prior learns from, encoded once, and captioned squares of them for each step of the diffusion network.

Encoding a crop afresh would cost a third as much again as learning from it; cutting one out of a picture's latents costs nothing.
Stands between the autoencoder and the diffusion network. Knows nothing of noise.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from backend.data.marks import Box
from backend.diffusion import pictures
from backend.synthesis.prior.autoencoder import CHANNELS, FACTOR
from backend.synthesis.prior.supply import GENERAL, Label, Supply, said

FLIPS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
MOST = 8_000             # pictures are encoded flipped every way as long as all together stay below this
SILENT = 0.1             # of the captions are left out, so that there is something for guidance to lead away from (Ho & Salimans 2022)


@dataclass(frozen=True)
class Entry:
    """A picture in one flip: where its latents begin, their size, which picture, and the boxes flipped with it."""

    start: int
    height: int
    width: int
    label: Label


@dataclass(frozen=True)
class Bank:
    """Latents on disk, float16, one behind the other; `sources` are ranges of them."""

    numbers: np.ndarray[Any, Any]
    entries: list[Entry]
    sources: list[range]

    def batch(self, rng: np.random.Generator, n: int, side: int) -> tuple[Tensor, list[str]]:
        """Squares of latents (n, 4, side, side), float32, and their captions, '' where nothing is said."""
        found = [self._square(rng, side) for _ in range(n)]
        return torch.from_numpy(np.stack([x for x, _ in found])).float(), [text for _, text in found]

    def _square(self, rng: np.random.Generator, side: int) -> tuple[Any, str]:
        source = self.sources[int(rng.integers(len(self.sources)))]
        entry = self.entries[source[int(rng.integers(len(source)))]]
        whole = self.numbers[entry.start:entry.start + CHANNELS * entry.height * entry.width].reshape(CHANNELS, entry.height, entry.width)
        top, left = (int(rng.integers(length - side + 1)) for length in whole.shape[1:])
        general, silent = rng.random(2) < (GENERAL, SILENT)
        label = Label("", entry.label.boxes, entry.label.known) if general else entry.label
        text = None if silent else said(label, FACTOR * left, FACTOR * top, FACTOR * side)
        return whole[:, top:top + side, left:left + side], text or ""


def build(vae: AutoencoderKL, supply: Supply, crop: int, file: Path, bf16: bool, tell: Callable[[str], None]) -> Bank:
    """Encode every picture into `file`, or take up what an earlier attempt has finished."""
    entries, sources, plan = list[Entry](), list[range](), list[tuple[int, int]]()
    ways = max(1, min(len(FLIPS), MOST // len(supply.labels)))
    for source in supply.sources:
        sources.append(range(len(plan), len(plan) + ways * len(source)))
        plan += [(i, way) for i in source for way in range(ways)]
    start = 0
    for i, way in plan:
        height, width = (_padded(int(length), crop) for length in supply.pictures.sizes[i])
        entries.append(Entry(start, height // FACTOR, width // FACTOR, _flipped(supply.labels[i], height, width, *FLIPS[way])))
        start += CHANNELS * (height // FACTOR) * (width // FACTOR)
    if not file.exists():
        _encode(vae, supply, plan, entries, file, bf16, tell)
    return Bank(np.memmap(file, np.float16, "r"), entries, sources)


def _padded(length: int, crop: int) -> int:
    return max(crop, length + -length % FACTOR)


def _encode(vae: AutoencoderKL, supply: Supply, plan: list[tuple[int, int]], entries: list[Entry], file: Path, bf16: bool,
            tell: Callable[[str], None]) -> None:
    temporary = file.with_name(f".{file.name}")
    with open(temporary, "wb") as out:
        for done, ((i, way), entry) in enumerate(zip(plan, entries, strict=True)):
            down, across = FLIPS[way]
            pixels = pictures.padded(supply.pictures[i], FACTOR * entry.height, FACTOR * entry.width)[::down, ::across]
            out.write(_latents(vae, pixels, bf16).tobytes())
            tell(f"encoding picture {done + 1} of {len(plan)}")
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)


@torch.no_grad()
def _latents(vae: AutoencoderKL, pixels: Any, bf16: bool) -> Any:
    """uint8 (H, W, 3) to float16 (4, H/4, W/4)."""
    images = pictures.to_tensor(pixels)[None].to(vae.device).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        mean = vae.encode(images).latent_dist.mean
    return (mean[0].float() * vae.config.scaling_factor).cpu().numpy().astype(np.float16)


def _flipped(label: Label, height: int, width: int, down: int, across: int) -> Label:
    """A label of the picture flipped: `down` and `across` are 1 or -1."""
    boxes = []
    for b in label.boxes:
        y1, y2 = (b.y1, b.y2) if down == 1 else (height - b.y2, height - b.y1)
        x1, x2 = (b.x1, b.x2) if across == 1 else (width - b.x2, width - b.x1)
        boxes.append(Box(b.class_name, x1, y1, x2, y2))
    return Label(label.name, tuple(boxes), label.known)
