"""Pictures of brushed steel that do not exist: the demo plant's cameras, and the data its model learns from.

An id says everything: `demo:<seed>:<line><product>:<camera>:<good | class+class>`, for instance `demo:417:2c:1:pits+scratch`.
`render` draws it, the same pixels on every machine; `boxes` tells its defects without drawing. The surface depends on
all of the id but the defects, so `demo:417:2c:1:good` is the same plate before it was damaged.
Knows nothing of runs, of the demo plant's figures (`demo_plant`), or of detectors.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import PCG64, Generator
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter

from backend.data.demo_defects import CLASSES as CLASSES
from backend.data.demo_defects import SIDE as SIDE
from backend.data.demo_defects import Array, Box, Canvas, Defect, paint, place, stamp
from backend.errors import NotFoundError

PRODUCTS = "abcd"
_ID = re.compile(r"demo:(\d{1,18}):([1-9])([a-d]):([12]):(good|[a-z]+(?:\+[a-z]+)*)")
_SPLITS = ("train", "val", "test")
_SURFACE, _LAYOUT, _LOOK = 0, 1, 2               # independent streams of random numbers under one id

_X = np.linspace(-1, 1, SIDE)[None, :]
_Y = np.linspace(-1, 1, SIDE)[:, None]
#          grey, grain contrast, grain length px, across-grain cut-off (cycles/px), colour gains R G B
_FINISH = {"a": (168, 0.062, 45.0, 0.30, (1.000, 1.000, 1.006)), "b": (150, 0.085, 90.0, 0.22, (1.016, 1.002, 0.984)),
           "c": (182, 0.050, 28.0, 0.40, (0.986, 0.999, 1.020)), "d": (138, 0.074, 60.0, 0.26, (1.000, 1.004, 1.000))}
#          tilt of the grain (rad), gain, blur (px), sensor noise (grey levels), light from (rad)
_CAMERA = {("1", "1"): (0.022, 1.00, 0.55, 1.8, -1.9), ("1", "2"): (-0.014, 0.94, 0.75, 2.1, -1.2),
           ("2", "1"): (-0.035, 1.05, 0.60, 2.4, -1.6), ("2", "2"): (0.010, 0.98, 0.85, 2.0, -2.3),
           ("3", "1"): (0.045, 0.90, 0.70, 3.0, -1.0), ("3", "2"): (-0.006, 0.97, 0.50, 2.2, -1.7)}


class Ident(NamedTuple):
    """A parsed image id."""

    seed: int
    line: str
    product: str
    camera: str
    classes: tuple[str, ...]

    def rng(self, stream: int) -> Generator:
        bits = 0 if stream == _SURFACE else sum(1 << CLASSES.index(c) for c in self.classes)
        return Generator(PCG64([stream, self.seed, int(self.line), PRODUCTS.index(self.product), int(self.camera), bits]))


@dataclass(frozen=True)
class Drawn:
    image: Image.Image                           # RGB, 256 x 256
    boxes: list[Box]                             # (class_name, x1, y1, x2, y2), whole pixels, x2 and y2 exclusive
    mask: Array                                  # (256, 256) uint8: 0 or 1 + index in CLASSES


def image_id(seed: int, line: int | str, product: str, camera: int | str, classes: tuple[str, ...] = ()) -> str:
    return f"demo:{seed}:{line}{product}:{camera}:{'+'.join(sorted(classes)) or 'good'}"


def parse(image_id: str) -> Ident:
    """Raises NotFoundError for anything that is no demo id."""
    found = _ID.fullmatch(image_id)
    names = () if found is None or found[5] == "good" else tuple(found[5].split("+"))
    if found is None or any(n not in CLASSES for n in names) or list(names) != sorted(set(names)):
        raise NotFoundError(f"There is no demo picture {image_id!r}.")
    return Ident(int(found[1]), found[2], found[3], found[4], names)


def layout(image_id: str) -> list[tuple[Defect, Box]]:
    """The defects of a picture with their boxes, without drawing it (about 0.15 ms a defect)."""
    return _layout(parse(image_id))


def boxes(image_id: str) -> list[Box]:
    return [box for _, box in layout(image_id)]


def render(image_id: str) -> Drawn:
    """Draw a picture (about 10 ms). Raises NotFoundError for a malformed id."""
    ident = parse(image_id)
    surface, look = ident.rng(_SURFACE), ident.rng(_LOOK)
    _, _, blur, noise, light = _camera(ident)

    canvas = Canvas(_steel(ident, surface), np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), np.uint8))
    _decoys(canvas, surface)
    found = _layout(ident)
    for defect, _ in found:
        paint(canvas, defect, look, light)

    seen = gaussian_filter(canvas.steel, blur, truncate=3, mode="nearest")
    seen += noise * (0.6 + 0.4 * seen / 160) * surface.standard_normal((SIDE, SIDE))
    return Drawn(_expose(seen, canvas.warm, _FINISH[ident.product][4]), [box for _, box in found], canvas.mask)


def _camera(ident: Ident) -> tuple[float, float, float, float, float]:
    return _CAMERA[str((int(ident.line) - 1) % 3 + 1), ident.camera]


def _layout(ident: Ident) -> list[tuple[Defect, Box]]:
    """One defect of each class named, then now and then more, four at most."""
    rng = ident.rng(_LAYOUT)
    found: list[tuple[Defect, Box]] = []
    for class_name in ident.classes:
        first = place(rng, class_name, [b for _, b in found], 60) or place(rng, class_name, [], 60)
        assert first is not None, "sixty tries without a shape that fits an empty picture"
        found.append(first)
    more = int(np.searchsorted([0.62, 0.85, 0.95], rng.random())) if found else 0
    for _ in range(min(more, 4 - len(found))):
        class_name = ident.classes[int(rng.integers(len(ident.classes)))]
        extra = place(rng, class_name, [b for _, b in found], 8)
        if extra is not None:
            found.append(extra)
    return found


@lru_cache(maxsize=32)
def _spectrum(length: float, cut: float, tilt: float) -> Array:
    """Amplitudes (256, 129) of brushing grain: long along the tilt, fine across it; unit variance."""
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :]
    along, across = fx * np.cos(tilt) + fy * np.sin(tilt), fy * np.cos(tilt) - fx * np.sin(tilt)
    shape: Array = 1 / (1 + (2 * np.pi * along * length) ** 2) ** 0.8 + 0.035 / (1 + (2 * np.pi * along * 5) ** 2)
    shape = shape * np.exp(-((across / cut) ** 2)) * (across**2 + 4e-6) ** 0.5 / (across**2 + 0.004) ** 0.5
    shape[0, 0] = 0
    power = (shape[:, 1:-1] ** 2).sum() * 2 + (shape[:, [0, -1]] ** 2).sum()
    shape /= np.sqrt(power)
    return shape


def _grain(ident: Ident, rng: Generator) -> Array:
    """Brushed texture (256, 256), about unit variance, with a few deeper lines than a Gaussian has."""
    _, _, length, cut, _ = _FINISH[ident.product]
    white = rng.standard_normal((2, SIDE, SIDE // 2 + 1))
    grain: Array = fft.irfft2((white[0] + 1j * white[1]) * _spectrum(length, cut, _camera(ident)[0]), (SIDE, SIDE)) * (SIDE * SIDE / 2**0.5)
    grain -= 0.10 * (grain * grain - 1)
    return grain


def _steel(ident: Ident, rng: Generator) -> Array:
    """The plate under its lamp: level, gradient, sheen, vignetting, grain."""
    grey, contrast, *_ = _FINISH[ident.product]
    gain = _camera(ident)[1]
    low, high = [0.94, -0.09, -0.08, 0.05, -1.2, 0.3, 0.02], [1.05, 0.09, 0.08, 0.14, 1.2, 0.9, 0.13]
    level, gx, gy, vignette, at, wide, sheen = rng.uniform(low, high)
    band = sheen * np.exp(-(((_X - at) / wide) ** 2)) + 0.012 * np.cos(rng.uniform(3, 9) * _X + rng.uniform(0, 6))
    lamp = level * (1 + gx * _X + gy * _Y + band - vignette * (_X**2 + _Y**2))
    plate: Array = grey * gain * lamp * (1 + contrast * rng.uniform(0.8, 1.25) * _grain(ident, rng))
    return plate


def _decoys(canvas: Canvas, rng: Generator) -> None:
    """What is no defect: dust, drag marks along the grain, a fibre, a weld seam, a reflection. No labels."""
    dust, drag, fibre, weld, glare = rng.random(5)
    if dust < 0.40:
        n = int(rng.integers(1, 5))
        specks = np.concatenate([rng.uniform(4, SIDE - 4, (n, 2)), rng.uniform(0.5, 1.5, (n, 1))], 1)
        canvas.steel *= 1 + rng.choice([-0.30, -0.18, 0.22]) * stamp(specks, 0.8)
    if drag < 0.15:
        x, y, long = rng.uniform(0, 160), rng.uniform(8, SIDE - 8), rng.uniform(40, 200)
        at = np.arange(0, long, 0.6)
        line = np.stack([x + at, y + 0.02 * at + 0.3 * np.cos(at / 9), np.full(at.size, rng.uniform(0.5, 0.9))], 1)
        canvas.steel *= 1 + rng.choice([-0.13, 0.13]) * stamp(line, 0.9)
    if fibre < 0.07:
        turn = rng.uniform(0, 6.28) + np.cumsum(np.full(60, rng.uniform(-0.05, 0.05))) + 0.15 * np.cos(np.arange(60) / 8)
        line = np.stack([rng.uniform(70, 180) + np.cumsum(0.8 * np.cos(turn)), rng.uniform(70, 180) + np.cumsum(0.8 * np.sin(turn)),
                         np.full(60, 0.7)], 1)
        canvas.steel *= 1 + 0.16 * stamp(line, 1.6)
    if weld < 0.05:
        across, wide = rng.uniform(-0.8, 0.8), rng.uniform(0.02, 0.045)
        seam = (_X - across - 0.006 * np.cos(9 * _Y + rng.uniform(0, 6))) / wide
        ripples = 0.05 * np.cos(130 * _Y + 3 * seam**2)
        canvas.steel *= 1 + (0.09 + ripples) * np.exp(-(seam**2)) - 0.06 * np.exp(-((np.abs(seam) - 1.6) ** 2) * 4)
    if glare < 0.14:
        x, y, wide, high = rng.uniform([-0.9, -0.9, 0.15, 0.1], [0.9, 0.9, 0.6, 0.35])
        canvas.steel *= 1 + rng.uniform(0.03, 0.08) * np.exp(-(((_X - x) / wide) ** 2) - ((_Y - y) / high) ** 2)


def _expose(seen: Array, warm: Array, gains: tuple[float, float, float]) -> Image.Image:
    """Grey -> RGB uint8: soft shoulder, the product's colour cast, brown where `warm`. The one place that rounds."""
    toned = np.where(seen > 200, 200 + 55 * (1 - np.exp(-(seen - 200) / 55)), seen)
    rgb = np.stack([toned * (gain + tint * warm) for gain, tint in zip(gains, (0.012, -0.006, -0.040), strict=True)], 2)
    return Image.fromarray(np.rint(rgb).clip(0, 255).astype(np.uint8))


# ---- sets of pictures

def training_set(n: int, seed: int) -> Iterator[str]:
    """n ids: a quarter good, the rest with one to three classes, every class equally often, all lines, products and cameras."""
    rng = Generator(PCG64([seed, 99]))
    for i in range(n):
        line, product, camera = int(rng.integers(1, 4)), PRODUCTS[int(rng.integers(4))], int(rng.integers(1, 3))
        many = 0 if i % 4 == 3 else 1 + int(np.searchsorted([0.72, 0.94], rng.random()))
        first = CLASSES[(i - i // 4) % len(CLASSES)]                          # in turn, so that classes are balanced
        others = [str(c) for c in rng.permutation([c for c in CLASSES if c != first])[:max(0, many - 1)]]
        yield image_id(int(rng.integers(1 << 40)), line, product, camera, tuple(sorted([first, *others])) if many else ())


def write_dataset(folder: Path, n: int, seed: int) -> Path:
    """A YOLO data set of n pictures: images/ and labels/ by split (70/15/15), data.yaml, and lists of stems in splits/."""
    ids = list(training_set(n, seed))
    for split, share in _split(n, seed).items():
        for name in ("images", "labels"):
            (folder / name / split).mkdir(parents=True, exist_ok=True)
        for i in share:
            drawn = render(ids[i])
            drawn.image.save(folder / "images" / split / f"plate-{i:05d}.png", compress_level=1)
            (folder / "labels" / split / f"plate-{i:05d}.txt").write_text("".join(map(_yolo, drawn.boxes)))
        (folder / "splits").mkdir(exist_ok=True)
        (folder / "splits" / f"{split}.txt").write_text("".join(f"plate-{i:05d}\n" for i in share))
    lists = "".join(f"{split}: images/{split}\n" for split in _SPLITS)
    (folder / "data.yaml").write_text(f"path: .\n{lists}names: {json.dumps(CLASSES)}\n")
    return folder


def _yolo(box: Box) -> str:
    name, x1, y1, x2, y2 = box
    return f"{CLASSES.index(name)} {(x1 + x2) / 2 / SIDE:.6f} {(y1 + y2) / 2 / SIDE:.6f} {(x2 - x1) / SIDE:.6f} {(y2 - y1) / SIDE:.6f}\n"


def split_ids(n: int, seed: int) -> dict[str, list[str]]:
    """Ids of the pictures of `write_dataset`, by split."""
    ids = list(training_set(n, seed))
    return {split: [ids[i] for i in share] for split, share in _split(n, seed).items()}


def _split(n: int, seed: int) -> dict[str, list[int]]:
    order = Generator(PCG64([seed, 98])).permutation(n).tolist()
    ends = [0, round(0.7 * n), round(0.85 * n), n]
    return {split: sorted(order[a:b]) for split, a, b in zip(_SPLITS, ends, ends[1:], strict=False)}


def samples() -> list[tuple[str, str]]:
    """File name and id of the 20 pictures a visitor uploads: line 2, product a; eleven with pits, five good, four others."""
    kinds = [("pits",)] * 9 + [("pits", "scratch"), ("dent", "pits")] + [()] * 5 + [("scratch",), ("stain",), ("crack",), ("scale",)]
    order = Generator(PCG64(20)).permutation(len(kinds))
    return [(f"plate-{7 + 3 * i:04d}.jpg", image_id(9000 + i, 2, "a", 1 + i % 2, kinds[k])) for i, k in enumerate(order)]


def write_samples(folder: Path) -> list[Path]:
    """Write the sample pictures as JPEG; `python -m backend.data.demo` runs this on `data/demo/samples`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, ident in samples():
        paths.append(folder / name)
        render(ident).image.save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    from backend.config import demo_assets

    print(f"{len(write_samples(demo_assets() / 'samples'))} pictures written.")
