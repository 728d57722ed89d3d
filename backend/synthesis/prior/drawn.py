"""Drawn surfaces with their defects and captions: what a surface prior learns from where nobody has photographs to give.

Fifteen kinds of surface, each a texture under a lamp, seen by a camera; on two of three a drawn defect (`flaws`). One in eight is the
demo's brushed steel, which is drawn with more care. Surface i follows from (seed, i). All of it is our choice, by eye.
Knows nothing of networks or datasets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np

from backend.data import demo
from backend.data.marks import Box
from backend.synthesis.prior.fields import Field, Rng, borders, cells, clouds, grain
from backend.synthesis.prior.flaws import FLAWS, bounds
from backend.synthesis.prior.words import caption

SIDE = 192               # larger than a crop, so that a defect lies in many places of it
DEMO = 8                 # one in so many is the demo's steel
GOOD = 0.35              # of the surfaces have no defect
SECOND = 0.15            # of the defective ones have a second defect, of any kind
GREY = 0.65              # seen by a grey camera
STREAM = 2**32           # added to the seed of the demo's steel, beyond all that a dataset of the demo can have: none is of its pictures
DEMO_NAME = "brushed steel"
_DEMO_WORDS = {"scratch": "scratches"}


@dataclass(frozen=True)
class Surface:
    """A drawn picture, what it is of, and the boxes of its defects."""

    pixels: np.ndarray[Any, np.dtype[np.uint8]]              # (H, W, 3)
    name: str                                                # in words
    boxes: tuple[Box, ...]


# ---- textures, float32 (S, S): relative brightness about 0

def _rolled(rng: Rng, side: int) -> Field:
    return 0.05 * clouds(rng, side, 1.2) + 0.05 * grain(rng, side, 0.7, 0.7) + 0.04 * grain(rng, side, 30, 1.2, rng.uniform(0, np.pi))


def _brushed(rng: Rng, side: int) -> Field:
    angle = rng.uniform(0, np.pi)
    return 0.08 * grain(rng, side, 50, 0.5, angle) + 0.04 * grain(rng, side, 6, 0.5, angle)


def _ground(rng: Rng, side: int) -> Field:
    """Two passes of a grinding wheel, the second across the first by a little."""
    angle = rng.uniform(0, np.pi)
    return 0.07 * grain(rng, side, 60, 1.0, angle) + 0.06 * grain(rng, side, 40, 1.5, angle + rng.normal(0, 0.4))


def _milled(rng: Rng, side: int) -> Field:
    """Arcs of a rotating tool."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32) - side / 2
    away, angle, pitch = rng.uniform(0.6, 3) * side, rng.uniform(0, 2 * np.pi), rng.uniform(4, 14)
    radius = np.hypot(ys - away * np.sin(angle), xs - away * np.cos(angle))
    return np.asarray(0.1 * np.sin(2 * np.pi * radius / pitch) + 0.04 * grain(rng, side, 1, 1), np.float32)


def _cast(rng: Rng, side: int) -> Field:
    coarse = grain(rng, side, *2 * (rng.uniform(1, 2.2),))
    return 0.11 * coarse + 0.02 * coarse**2 + 0.06 * clouds(rng, side, 1.0)


def _galvanised(rng: Rng, side: int) -> Field:
    """Crystals of zinc, each of its own brightness."""
    n = int(rng.integers(25, 160))
    tones = rng.normal(0, 0.13, n + 1).astype(np.float32)
    return cv2.GaussianBlur(tones[cells(rng, side, n)], (0, 0), 0.8) + 0.03 * grain(rng, side, 1, 1)


def _concrete(rng: Rng, side: int) -> Field:
    pores = np.clip(grain(rng, side, 1.3, 1.3) - 2.2, 0, 0.6)
    return 0.07 * clouds(rng, side, 0.9) + 0.04 * grain(rng, side, 0.7, 0.7) - np.float32(0.6) * pores


def _granite(rng: Rng, side: int) -> Field:
    n = int(rng.integers(700, 2500))
    tones = rng.choice(np.array([-0.4, -0.05, 0.05, 0.25], np.float32), n + 1)
    return cv2.GaussianBlur(tones[cells(rng, side, n)], (0, 0), 0.9) + 0.03 * grain(rng, side, 1, 1)


def _ceramic(rng: Rng, side: int) -> Field:
    return 0.025 * clouds(rng, side, 1.6) + 0.02 * grain(rng, side, 0.8, 0.8)


def _wood(rng: Rng, side: int) -> Field:
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(10, 34)
    rings = (np.cos(angle) * ys - np.sin(angle) * xs) / pitch + 0.5 * grain(rng, side, 60, 14, angle)
    return np.asarray(0.1 * np.sin(2 * np.pi * rings) + 0.06 * grain(rng, side, 14, 0.7, angle), np.float32)


def _woven(rng: Rng, side: int) -> Field:
    """Threads over and under each other."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    pitch, turn = rng.uniform(5, 13), rng.normal(0, 0.15)
    p, q = np.cos(turn) * xs + np.sin(turn) * ys, np.cos(turn) * ys - np.sin(turn) * xs
    over = np.sin(np.pi * p / pitch) * np.sin(np.pi * q / pitch) > 0
    threads = np.where(over, np.abs(np.sin(np.pi * p / pitch)), np.abs(np.sin(np.pi * q / pitch)))
    return np.asarray(0.25 * (threads - 0.6) + 0.05 * grain(rng, side, 0.8, 0.8), np.float32)


def _leather(rng: Rng, side: int) -> Field:
    wrinkles = cv2.GaussianBlur(borders(cells(rng, side, int(rng.integers(300, 1500)))), (0, 0), 0.8)
    return np.asarray(0.05 * clouds(rng, side, 1.0) + 0.03 * grain(rng, side, 1, 1) - 0.35 * wrinkles, np.float32)


def _paper(rng: Rng, side: int) -> Field:
    fibres = sum((grain(rng, side, 7, 0.7, angle) for angle in rng.uniform(0, np.pi, 4)), np.zeros((side, side), np.float32))
    return 0.012 * fibres + 0.02 * clouds(rng, side, 0.8)


def _plastic(rng: Rng, side: int) -> Field:
    """A grained mould, lit from one side."""
    bumps = grain(rng, side, *2 * (rng.uniform(1.2, 3.5),))
    return np.asarray(0.16 * (bumps - np.roll(bumps, rng.choice((-1, 1), 2), (0, 1))), np.float32)


def _rubber(rng: Rng, side: int) -> Field:
    return 0.08 * grain(rng, side, 0.8, 0.8) + 0.1 * clouds(rng, side, 1.1)


# name -> texture, darkest and brightest grey, colour gains R G B
KINDS: dict[str, tuple[Callable[[Rng, int], Field], tuple[float, float], tuple[float, float, float]]] = {
    "rolled steel": (_rolled, (60, 170), (1.0, 1.0, 1.01)), "brushed metal": (_brushed, (90, 190), (1.01, 1.0, 0.99)),
    "ground metal": (_ground, (80, 180), (1.0, 1.0, 1.02)), "milled metal": (_milled, (80, 180), (1.0, 1.0, 1.01)),
    "cast iron": (_cast, (50, 120), (1.02, 1.0, 0.97)), "galvanised steel": (_galvanised, (110, 180), (0.98, 1.0, 1.04)),
    "concrete": (_concrete, (100, 190), (1.02, 1.0, 0.96)), "granite": (_granite, (90, 170), (1.04, 0.99, 0.96)),
    "ceramic tile": (_ceramic, (60, 220), (1.02, 1.0, 0.96)), "wood": (_wood, (90, 180), (1.25, 0.98, 0.68)),
    "woven fabric": (_woven, (70, 180), (0.95, 1.0, 1.08)), "leather": (_leather, (50, 150), (1.3, 0.95, 0.7)),
    "paper": (_paper, (170, 235), (1.01, 1.0, 0.96)), "plastic": (_plastic, (50, 200), (0.94, 1.0, 1.1)),
    "rubber": (_rubber, (35, 90), (1.0, 1.0, 1.02)),
}


# ---- a picture

def surfaces(seed: int, n: int) -> Iterator[Surface]:
    """n surfaces; the first ones of a longer list are the same."""
    steel = demo.training_set(n // DEMO + 1, STREAM + seed)
    return (_demo(next(steel)) if i % DEMO == DEMO - 1 else draw(np.random.default_rng([seed, i])) for i in range(n))


def draw(rng: Rng, name: str = "", flaw: str | None = None) -> Surface:
    """A surface of this kind with this defect ('' for none); by chance where they are not given."""
    name = name or str(rng.choice(list(KINDS)))
    if flaw is None:
        flaw = "" if rng.random() < GOOD else str(rng.choice(list(FLAWS)))
    seen = _plate(rng, name)
    boxes = []
    for found in ([flaw] if flaw else []) + [str(rng.choice(list(FLAWS)))] * bool(flaw and rng.random() < SECOND):
        gain = FLAWS[found](rng, SIDE)
        seen = seen * gain[..., None]
        if box := bounds(gain):
            boxes.append(_box(found, *box))
    return Surface(_exposed(rng, seen), name, tuple(boxes))


def _plate(rng: Rng, name: str) -> Field:
    """A surface under its lamp: texture, gradient, vignetting, colour; (S, S, 3), grey levels."""
    texture, (low, high), colour = KINDS[name]
    ys, xs = np.mgrid[-1:1:SIDE * 1j, -1:1:SIDE * 1j].astype(np.float32)
    across, down, corners = rng.uniform((-0.15, -0.15, 0), (0.15, 0.15, 0.12))
    lamp = 1 + across * xs + down * ys - corners * (xs**2 + ys**2)
    plate = rng.uniform(low, high) * lamp * np.clip(1 + rng.uniform(0.5, 1.4) * texture(rng, SIDE), 0.1, 2)
    gains = np.ones(3) if rng.random() < GREY else np.array(colour) * rng.uniform(0.93, 1.07, 3)
    return np.asarray(plate[..., None] * gains, np.float32)


def _exposed(rng: Rng, seen: Field) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What the camera makes of it: a little blur, a soft shoulder, a little noise, alike in all channels."""
    seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.3, 0.8)), np.float32)
    toned = np.where(seen > 210, 210 + 45 * (1 - np.exp(-(seen - 210) / 45)), seen)
    noise = rng.uniform(0.3, 2.0) * rng.standard_normal(seen.shape[:2], np.float32)
    return np.clip(np.rint(toned + noise[..., None]), 0, 255).astype(np.uint8)


def _demo(image_id: str) -> Surface:
    drawn = demo.render(image_id)
    boxes = tuple(_box(_DEMO_WORDS.get(name, name), *where) for name, *where in drawn.boxes)
    return Surface(np.asarray(drawn.image), DEMO_NAME, boxes)


def _box(name: str, x1: int, y1: int, x2: int, y2: int) -> Box:
    return Box(name, float(x1), float(y1), float(x2), float(y2))


def captions() -> list[str]:
    """All that may be said of a drawn surface."""
    return sorted(caption(name, flaw) for name in (*KINDS, DEMO_NAME) for flaw in (None, *FLAWS))


def sheet(seed: int, n: int, columns: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """n surfaces side by side, to be looked at: uint8 (H, W, 3)."""
    cut = [s.pixels[:SIDE, :SIDE] for s in islice(surfaces(seed, n), n)]
    return np.concatenate([np.concatenate(cut[i:i + columns], 1) for i in range(0, n - n % columns, columns)], 0)
