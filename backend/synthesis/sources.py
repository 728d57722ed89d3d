"""What fills a mask besides the denoiser: another surface, Gaussian noise; and which pictures of a dataset are good ones.

DRAEM (Zavrtanik et al. 2021, section 3.2) takes other surfaces from DTD, which nobody has on a plant's machine; ours are pieces of
other good pictures, much altered, and drawn patterns. Everything follows from the generator that is handed in. All images are
uint8 (H, W, 3). Knows nothing of masks being filled or of networks.
"""

from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any

import cv2
import numpy as np

from backend.data.snapshot import Picture, Snapshot
from backend.diffusion.pictures import GREY
from backend.synthesis.masks import perlin

Image = np.ndarray[Any, np.dtype[np.uint8]]
Field = np.ndarray[Any, np.dtype[np.float32]]

DRAWN = 0.5              # of the surfaces are drawn, the others are pieces of pictures
ALTERED = 3              # alterations of each surface, as in DRAEM
WEAKEST, STRONGEST = 0.08, 0.4      # deviation of the noise, of the full range


def usable(data: Snapshot) -> list[Picture]:
    """Real pictures to make others of: of train, and neither in val or test too nor nearly equal to one there."""
    held = {p.group_id for p in data.pictures if p.split in ("val", "test") and p.group_id}
    return [p for p in data.learnable() if p.group_id not in held]


def good(data: Snapshot) -> list[Picture]:
    """Pictures to make defects on: usable ones without a known defect."""
    marked = {p.image_id for p in data.pictures if not p.is_good}
    return [p for p in usable(data) if p.image_id not in marked]


def of_class(data: Snapshot, name: str, without: Container[str] = ()) -> list[Picture]:
    """Usable pictures that show mostly this class; where there is none, those that show it at all. `without`: never these ids."""
    shown = [p for p in usable(data) if name in p.classes and p.image_id not in without]
    return [p for p in shown if main_class(p) == name] or shown


def alone(pictures: list[Picture]) -> list[Picture]:
    """Those that show one class and no other; where there is none, all. Drawn again, a picture gets the words of one class; defects of
    another would become this one, and keep their boxes."""
    return [p for p in pictures if len(p.classes) == 1] or pictures


def main_class(picture: Picture) -> str:
    """The class whose boxes cover most of a picture, '' where it has none."""
    area = Counter[str]()
    for b in picture.boxes:
        area[b.class_name] += (b.x2 - b.x1) * (b.y2 - b.y1)                     # type: ignore[assignment]
    return max(sorted(area), key=area.__getitem__, default="")


def defective(data: Snapshot) -> list[Picture]:
    """Pictures with a labelled defect that a denoiser learns from, unless it was told to learn from good ones only."""
    marked = {p.image_id for p in data.pictures if not p.is_good}
    return [p for p in data.learnable() if p.image_id in marked]


# ---- noise

def noise(rng: np.random.Generator, normal: Image) -> Image:
    """The image in white Gaussian noise of a chance strength: grey noise where it is grey, or colour alone would tell."""
    height, width = normal.shape[:2]
    drawn = rng.standard_normal((height, width, 1 if _is_grey(normal) else 3), dtype=np.float32)
    return _as_image(normal + np.float32(255 * rng.uniform(WEAKEST, STRONGEST)) * drawn)


def _is_grey(image: Image) -> bool:
    return bool((np.ptp(image.reshape(-1, 3)[::7], axis=1) <= GREY).mean() > 0.99)


def _as_image(values: "np.ndarray[Any, Any]") -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# ---- another surface

def texture(rng: np.random.Generator, pictures: Sequence[Image], height: int, width: int) -> Image:
    """A surface that is not this one: (H, W, 3). Grey where the picture chosen of `pictures` is; coloured where there are none."""
    chosen = np.asarray(pictures[int(rng.integers(len(pictures)))]) if len(pictures) else None
    found = _piece(rng, chosen, height, width) if chosen is not None and rng.random() >= DRAWN else _drawn(rng, height, width)
    for i in rng.choice(len(ALTERATIONS), ALTERED, replace=False):
        found = _as_image(ALTERATIONS[i](rng, found.astype(np.float32)))
    if chosen is not None and _is_grey(chosen):
        found = np.repeat(cv2.cvtColor(found, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    return found


def _piece(rng: np.random.Generator, picture: Image, height: int, width: int) -> Image:
    """A picture turned, enlarged or reduced about a chance place, mirrored at its edges."""
    h, w = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((rng.uniform(0, w), rng.uniform(0, h)), rng.uniform(0, 360), float(2 ** rng.uniform(-1, 2)))
    turn = turn + np.array([[0, 0, rng.random() * (width - w)], [0, 0, rng.random() * (height - h)]])
    return np.asarray(cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _drawn(rng: np.random.Generator, height: int, width: int) -> Image:
    """A drawn pattern, 0 to 1, between three chance colours."""
    field = PATTERNS[int(rng.integers(len(PATTERNS)))](rng, height, width)
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    colours = rng.uniform(0, 255, (3, 3))
    return _as_image(np.stack([np.interp(field, (0, 0.5, 1), colours[:, c]) for c in range(3)], 2))


def _clouds(rng: np.random.Generator, height: int, width: int) -> Field:
    """Perlin noise, an octave on the other, each half as strong or nearly as strong as the one before."""
    falls, first = rng.uniform(0.5, 0.9), int(rng.integers(1, 4))
    octaves = [falls**i * perlin(rng, height, width, 2 ** (first + i), 2 ** (first + i)) for i in range(4)]
    return np.sum(octaves, 0, dtype=np.float32)


def _stripes(rng: np.random.Generator, height: int, width: int) -> Field:
    """Waves in a chance direction, bent a little."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(3, max(8.0, min(height, width) / 4))
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    bent = rng.uniform(0, 1.5) * perlin(rng, height, width, 4, 4)
    waves = np.sin(2 * np.pi * ((np.cos(angle) * xs + np.sin(angle) * ys) / length + bent))
    return np.asarray(waves * rng.uniform(1, 4) if rng.random() < 0.5 else np.sign(waves), np.float32)


def _cells(rng: np.random.Generator, height: int, width: int) -> Field:
    """Distance from the nearest of some points: pebbles, foam."""
    n = int(rng.integers(8, max(9, min(400, height * width // 60))))
    elsewhere = np.ones((height, width), np.uint8)
    elsewhere[rng.integers(height, size=n), rng.integers(width, size=n)] = 0
    return np.asarray(cv2.distanceTransform(elsewhere, cv2.DIST_L2, 5), np.float32)


def _grains(rng: np.random.Generator, height: int, width: int) -> Field:
    """Noise, blurred to grains, more along one side than the other."""
    along, across = (float(2 ** rng.uniform(-1, 2.5)) for _ in range(2))
    blurred = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), along, sigmaY=across)
    return np.asarray(blurred, np.float32)


PATTERNS: tuple[Callable[[np.random.Generator, int, int], Field], ...] = (_clouds, _stripes, _cells, _grains)
ALTERATIONS: tuple[Callable[[np.random.Generator, Field], np.ndarray[Any, Any]], ...] = (
    lambda rng, x: 255 - x,
    lambda rng, x: 255 * (x / 255) ** np.float32(2 ** rng.uniform(-1.5, 1.5)),                              # brightness
    lambda rng, x: 127 + np.float32(2 ** rng.uniform(-1, 1.5)) * (x - x.mean()),                            # contrast
    lambda rng, x: np.where(x > rng.uniform(100, 220), 255 - x, x),                                         # solarised
    lambda rng, x: x - x % (256 / np.float32(rng.integers(3, 9))),                                          # few levels
    lambda rng, x: x[..., rng.permutation(3)],
    lambda rng, x: x + rng.uniform(-60, 60, 3).astype(np.float32),                                          # tint
    lambda rng, x: x + np.float32(rng.uniform(0.5, 2)) * (x - cv2.GaussianBlur(x, (0, 0), 2)),              # sharper
)
