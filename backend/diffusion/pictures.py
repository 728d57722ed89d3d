"""Images as the denoiser takes them: grey or colour, the longer side at most `side`, values -1 to 1.

A dataset is decoded once into a file of bytes that training crops are read from, so that memory does not grow with it.
Knows nothing of networks or noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MULTIPLE = 8                # three halvings of the networks here; sides are padded to it
GREY = 3                    # of 255: by so much JPEG makes the channels of a grey picture differ


def scaled_size(width: int, height: int, side: int) -> tuple[int, int]:
    """(h, w) that `scaled` gives a picture of this size."""
    share = min(1.0, side / max(width, height))
    return max(1, round(height * share)), max(1, round(width * share))


def scaled(image: Image.Image, side: int, channels: int) -> np.ndarray:
    """uint8 (h, w, C) with the longer side at most `side`. Never enlarged: that would only blur what the texture is."""
    height, width = scaled_size(image.width, image.height, side)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return bool(np.percentile(np.ptp(pixels, axis=1), 99) <= GREY)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (..., h, w, C) to float32 (..., C, h, w), -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))).float() / 127.5 - 1


def to_pixels(images: Tensor) -> np.ndarray:
    """float (..., C, h, w), -1 to 1, to uint8 (..., h, w, C)."""
    return np.moveaxis(((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy(), -3, -1)


def padded(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w, C) mirrored at right and bottom to (height, width, C): a border of zeros would be a defect to the network."""
    h, w = pixels.shape[:2]
    return np.pad(pixels, ((0, max(0, height - h)), (0, max(0, width - w)), (0, 0)), "symmetric")


@dataclass(frozen=True)
class Pictures:
    """Decoded images on disk, one behind the other."""

    pixels: np.memmap                # uint8, flat
    starts: np.ndarray               # int64 (n,)
    sizes: np.ndarray                # int64 (n, 2): h, w
    channels: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> np.ndarray:
        """uint8 (h, w, C)."""
        (h, w), start = self.sizes[i], self.starts[i]
        return np.asarray(self.pixels[start:start + h * w * self.channels]).reshape(h, w, self.channels)

    def crops(self, rng: np.random.Generator, n: int, side: int) -> Tensor:
        """Random squares of random images, flipped both ways at random: float32 (n, C, side, side), -1 to 1."""
        return to_tensor(np.stack([self._crop(rng, side) for _ in range(n)]))

    def _crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        pixels = padded(self[int(rng.integers(len(self)))], side, side)
        top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
        return pixels[top:top + side, left:left + side][::rng.choice((1, -1)), ::rng.choice((1, -1))]


def decoded(paths: Sequence[Path], load: Callable[[Path], Image.Image], file: Path, side: int, channels: int,
            tell: Callable[[int], None]) -> Pictures:
    """Decode images into `file`, replacing it."""
    sizes = []
    with open(file, "wb") as out:
        for i, path in enumerate(paths):
            tell(i)
            pixels = scaled(load(path), side, channels)
            sizes.append(pixels.shape[:2])
            out.write(pixels.tobytes())
    shapes = np.array(sizes, np.int64)
    ends = np.cumsum(shapes.prod(1) * channels)
    return Pictures(np.memmap(file, np.uint8, "r"), np.concatenate([[0], ends[:-1]]), shapes, channels)
