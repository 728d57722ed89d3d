"""Batches to learn from: good images, half of them with a made defect, and its mask. And defects of another kind, to calibrate by.

A mask is Perlin noise (`synthesis.masks`) or, now and then, a whole side of the image; what fills it is the picture as a denoiser
draws it again, another surface or noise. `mixed` takes all of these in turn, and the surface itself: darkened, brightened, blurred,
or taken from elsewhere. Everything follows from the seeds handed in, and each purpose has random numbers of its own: two sources
have the same pictures, views, masks and opacities, and differ in what fills the masks.

A change that no one sees is drawn anew, as pixels tell it. Whether features see it, only `synthesize` asks (`blend.Witness`): a
forward of a network for every defect of every step would double the training. Images are uint8 (S, S, 3), masks bool (S, S). Knows
nothing of networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np

from backend.synthesis import masks, sources
from backend.synthesis.blend import blend, effective
from backend.synthesis.pool import Pool

# Both shaped with the defects of magnetic-tile and PIPED known, which all lie in their test lists: the smallest cover 0.0007, and
# uneven surfaces have no outline. So are the fillings `tone` and `moved`. README and the benchmark say so.
LOW_AREA, HIGH_AREA = 0.0005, 0.3        # of the image; RealNet has no lower end
SIDES = 0.1                  # of the masks are a whole side of the image
KINDS = ("ddpm", "texture", "noise", "tone", "moved")               # of fillings; the source `mixed` takes them all
OPACITY = 0.5, 1.0           # RealNet, section 3.2, for what a denoiser draws; other surfaces have 0.2 there. One for all: arms compare
TRIES = 4                    # of a defect that can be seen; after them the image stays as it is
ZOOM = 1.15                  # at most, of a good image: never smaller, which would need a border that nobody photographed
GAIN, OFFSET = 0.12, 10      # brightness of good images varies by so much, our choice
ORDER, KIND, PICTURE, VIEW, MASK, OPAQUE, FILL = range(7)           # what random numbers are for
Dice = Callable[..., np.random.Generator]                           # of a purpose and, where it may be tried again, of the try


@dataclass(frozen=True)
class Batch:
    """Good images, what the network is shown, and where the two differ."""

    clean: np.ndarray        # uint8 (B, S, S, 3)
    shown: np.ndarray        # uint8 (B, S, S, 3); of the second half only, different from clean
    mask: np.ndarray         # bool (B, S, S)
    tries: np.ndarray        # int (B,), defects drawn for an image, the last of which can be seen if any can; 0 where it is to stay good


@dataclass(frozen=True)
class Surface:
    """The good images of a dataset and how defects are made on them."""

    images: np.ndarray       # uint8 (n, S, S, 3), or a file of it
    ids: Sequence[str]
    source: str              # ddpm | texture | noise | mixed
    pool: Pool | None = None
    flips: bool = True
    foreground: bool = False
    marked: Sequence[int] = ()           # images that defects are made on; none named: those that the pool has, else all

    @cached_property
    def _copies(self) -> dict[int, list[int]]:
        """Numbers in the pool, by image."""
        found: dict[int, list[int]] = {}
        numbers = {image_id: i for i, image_id in enumerate(self.ids)}
        for copy, parent in enumerate(self.pool.parents if self.pool else []):
            found.setdefault(numbers[parent], []).append(copy)
        return found

    @cached_property
    def _marked(self) -> list[int]:
        return list(self.marked) or sorted(self._copies) or list(range(len(self.images)))

    def batch(self, seeds: tuple[int, int], n: int) -> Batch:
        """n images, of which the first half stay good."""
        chosen = dice(*seeds, 0, ORDER).choice(len(self.images), n, replace=len(self.images) < n)
        rows = [self._one(partial(dice, *seeds, row), int(i), row >= n // 2) for row, i in enumerate(chosen)]
        return Batch(*(np.stack(parts) for parts in zip(*rows, strict=True)))

    def _one(self, of: Dice, i: int, defective: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Clean, shown, mask and tries. A perturbed defect lies on a picture that was perturbed; so that arms share their pictures,
        one of noise or another surface lies on the same, unless sources are mixed."""
        kind = str(of(KIND).choice(KINDS)) if self.source == "mixed" else self.source
        if defective and (kind == "ddpm" or self.source != "mixed"):
            i = self._marked[int(of(PICTURE).integers(len(self._marked)))]
        view = View.drawn(of(VIEW), self.images.shape[1], self.flips)
        clean = view(self.images[i])
        for n in range(TRIES if defective else 0):
            shown, mask = self._defect(of, n, kind, i, view, clean)
            if mask.any():
                return clean, shown, mask, n + 1
        return clean, clean, np.zeros(clean.shape[:2], bool), TRIES * defective

    def _defect(self, of: Dice, n: int, kind: str, i: int, view: "View", clean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The image with one defect, and where one sees it. Perhaps nowhere."""
        mask, opacity = self._mask(of(MASK, n), clean), float(of(OPAQUE, n).uniform(*OPACITY))
        shown = blend(clean, self._filling(of(FILL, n), kind, clean, i, view), mask, opacity)
        return shown, effective(clean, shown, mask)

    def _mask(self, rng: np.random.Generator, clean: np.ndarray) -> np.ndarray:
        side = clean.shape[0]
        allowed = masks.foreground(clean) if self.foreground else None
        mask = _side(rng, side) if rng.random() < SIDES else masks.draw(rng, side, side, LOW_AREA, HIGH_AREA, allowed)
        return mask if allowed is None else mask & allowed

    def _filling(self, rng: np.random.Generator, kind: str, clean: np.ndarray, i: int, view: "View") -> np.ndarray:
        """uint8 (S, S, 3), to be seen through the mask."""
        side = clean.shape[0]
        if kind == "noise":
            return sources.noise(rng, clean)
        if kind == "texture":
            return sources.texture(rng, [self._another(rng)], side, side)
        if kind == "tone":
            return tone(rng, clean)
        if kind == "moved":
            return tone(rng, moved(rng, self._another(rng)))
        assert self.pool is not None and i in self._copies, "perturbed images are made before training, and it lies on one of these"
        return view(self.pool.drawn_again(int(rng.choice(self._copies[i])), self.images[i]))

    def _another(self, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(self.images[int(rng.integers(len(self.images)))])


def dice(seed: int, step: int, row: int, purpose: int, n: int = 0) -> np.random.Generator:
    """Random numbers for one purpose in one row of one step, at its n-th try."""
    return np.random.default_rng([seed, step, row, purpose, n])


@dataclass(frozen=True)
class View:
    """One way to show an image: flipped, a little enlarged and moved, a little brighter or darker."""

    across: bool
    down: bool
    zoom: float
    x: float                 # 0..1, of what the enlargement leaves free
    y: float
    gain: float
    offset: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, side: int, flips: bool) -> "View":
        across, down, still = (bool(rng.random() < 0.5) for _ in range(3))
        zoom = 1.0 if still else float(rng.uniform(1, ZOOM))
        return cls(flips and across, flips and down, zoom, float(rng.random()), float(rng.random()),
                   float(1 + rng.uniform(-GAIN, GAIN)), float(rng.uniform(-OFFSET, OFFSET)))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (S, S, 3), a copy."""
        found = image[::-1 if self.down else 1, ::-1 if self.across else 1]
        if self.zoom > 1:
            side, free = image.shape[0], (self.zoom - 1) * image.shape[0]
            matrix = np.array([[self.zoom, 0, -self.x * free], [0, self.zoom, -self.y * free]])
            found = cv2.warpAffine(np.ascontiguousarray(found), matrix, (side, side), flags=cv2.INTER_LINEAR,
                                   borderMode=cv2.BORDER_REPLICATE)
        return cv2.LUT(np.ascontiguousarray(found), _levels(self.gain, self.offset))


# ---- shapes and fillings of our own

def _side(rng: np.random.Generator, side: int) -> np.ndarray:
    """Everything on one side of a line, straight along an axis half of the time, with an edge that wavers: bool (S, S)."""
    turns = int(rng.integers(4)) / 4 if rng.random() < 0.5 else float(rng.random())
    direction = np.array([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)])
    ys, xs = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    height = direction[0] * ys + direction[1] * xs + rng.uniform(0, 0.15) * masks.perlin(rng, side, side, 4, 4)
    return np.asarray(height > np.quantile(height[::4, ::4], rng.uniform(0.5, 0.95)))


def tone(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The same surface darker (mostly) or brighter, of less or more contrast, tinted where it has colour, sometimes blurred.

    Never of nearly the same brightness and contrast: that would be a good surface with a label on it.
    """
    found: np.ndarray = image.astype(np.float32)
    if rng.random() < 0.3:
        along, across = (float(2 ** rng.uniform(-1, 2.5)) for _ in range(2))
        found = cv2.GaussianBlur(found, (0, 0), along, sigmaY=across)
    level = found.mean((0, 1))
    grey = np.ptp(level) < 3                                           # of 255: grey stays grey
    tint = 1.0 if grey else 2 ** rng.uniform(-0.3, 0.3, 3)
    gain = 2 ** (rng.uniform(0.15, 1) if rng.random() < 0.35 else -rng.uniform(0.15, 2.5))
    return _as_image((level + np.float32(2 ** rng.uniform(-2, 1.3)) * (found - level)) * np.float32(gain) * tint)


def moved(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A surface from elsewhere: turned by quarters, rolled round, enlarged up to twice."""
    side = image.shape[0]
    found = np.roll(np.rot90(image, int(rng.integers(4))), tuple(rng.integers(side, size=2)), (0, 1))
    piece = max(2, int(side / 2 ** rng.uniform(0, 1)))
    return np.asarray(cv2.resize(np.ascontiguousarray(found[:piece, :piece]), (side, side), interpolation=cv2.INTER_LINEAR))


def _levels(gain: float, offset: float) -> np.ndarray:
    """(256,) for cv2.LUT."""
    return np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)


def _as_image(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# ---- defects of another kind

def drawn(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A good image with a drawn spot, scratch, crack or patch, and where one sees it: what calibration is chosen by.

    Shapes of geometry, which no Perlin noise has, of one colour, faint or strong. Drawn again, stronger, until it can be seen;
    the last time as strongly as the surface there allows.
    """
    kind = DRAWINGS[int(rng.integers(len(DRAWINGS)))]
    for strength in np.linspace(0.2, 1, 9):
        mask = kind(rng, image.shape[0])
        level = image[mask].mean(0) if mask.any() else np.zeros(3)
        aim = 0.0 if level.mean() > 60 and rng.random() < 0.7 else 255.0       # dark, unless the surface is
        share = min(1.0, float(strength * rng.uniform(0.5, 1.5)))
        if strength == 1:                                                      # chance must not choose white on white nine times
            aim, share = (0.0 if level.mean() > 127 else 255.0), 1.0
        shown = blend(image, _as_image(image + share * (aim - image.astype(np.float32))), mask, 1.0)
        found = effective(image, shown, mask)
        if found.any():
            return shown, found
    raise AssertionError("a black spot on a bright surface, or a white one on a dark one, can be seen")


def _spots(rng: np.random.Generator, side: int) -> np.ndarray:
    canvas = np.zeros((side, side), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        axes = np.maximum(2, side * 2 ** rng.uniform(-7, -4, 2)).round().astype(int)
        cv2.ellipse(canvas, rng.integers(side, size=2).tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return canvas > 0


def _crack(rng: np.random.Generator, side: int) -> np.ndarray:
    """A line that wanders, from 0.1 to 0.8 of the side, one to three pixels thick at 256."""
    n = int(rng.integers(8, 40))
    angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, n))
    steps = np.stack([np.cos(angles), np.sin(angles)], 1) * side * rng.uniform(0.1, 0.8) / n
    points = rng.uniform(0.2, 0.8, 2) * side + np.cumsum(steps, 0)
    canvas = np.zeros((side, side), np.uint8)
    cv2.polylines(canvas, [points.round().astype(np.int32)], False, 255, max(2, round(side / 256 * rng.integers(1, 4))))
    return canvas > 0


def _scratch(rng: np.random.Generator, side: int) -> np.ndarray:
    canvas = np.zeros((side, side), np.uint8)
    ends = rng.integers(side, size=(2, 2)).tolist()
    cv2.line(canvas, ends[0], ends[1], 255, max(2, side // 128))
    return canvas > 0


def _patch(rng: np.random.Generator, side: int) -> np.ndarray:
    """A polygon of three to eight corners, a twentieth to a third of the side across."""
    n = int(rng.integers(3, 9))
    turns = np.sort(rng.uniform(0, 2 * np.pi, n))
    reach = side * rng.uniform(0.05, 0.35) / 2 * rng.uniform(0.6, 1, n)
    corners = rng.uniform(0.1, 0.9, 2) * side + np.stack([np.cos(turns), np.sin(turns)], 1) * reach[:, None]
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [corners.round().astype(np.int32)], 255)
    return canvas > 0


DRAWINGS: tuple[Callable[[np.random.Generator, int], np.ndarray], ...] = (_spots, _crack, _scratch, _patch)
