"""Drawn defects: what a surface prior can learn of scratches, pits and stains without a photograph of one.

Each function of FLAWS gives a gain, float32 (S, S): by what factor a defect changes the brightness of the surface below it, 1 where
it does not. All of it is our choice, sizes being those that steel, tiles and paper show at 256 px; nothing was measured on a
dataset. Everything follows from the generator that is handed in. Knows nothing of surfaces or captions.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from backend.synthesis.prior.fields import Field, Rng, borders, cells, clouds, grain, turned

SEEN = 0.3               # of a defect's strongest change: what changes less is no part of its box


# ---- parts of defects

def _place(rng: Rng, side: int) -> Any:
    """Somewhere not too near the border: (y, x)."""
    return rng.uniform(0.2, 0.8, 2) * side


def _blob(rng: Rng, side: int, at: Any, a: float, b: float, angle: float, rough: float) -> Field:
    """How deep inside an uneven ellipse of half axes a, b a pixel lies, about in pixels; negative outside. `rough`: share of b."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    p, q = turned(ys - at[0], xs - at[1], angle)
    depth = (1 - np.hypot(p / a, q / b)) * min(a, b)
    return np.asarray(depth + rough * b * (0.5 * grain(rng, side, b / 2, b / 2) + 0.25 * grain(rng, side, 2, 2)), np.float32)


def _soft(depth: Field, rim: float) -> Field:
    """0 outside, 1 inside, over a rim of so many pixels."""
    return np.asarray(np.clip(depth / rim + 0.5, 0, 1), np.float32)


def _lines(side: int, paths: list[Any], thickness: int) -> Field:
    """How much of each pixel lines cover: paths (n, 2) of y, x."""
    drawn = np.zeros((side, side), np.uint8)
    for path in paths:
        points = np.rint(np.asarray(path)[:, ::-1] * 16).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(drawn, [points], False, 255, thickness, cv2.LINE_AA, shift=4)
    return np.asarray(drawn / np.float32(255), np.float32)


def _walk(rng: Rng, at: Any, heading: float, length: float, stride: float, jitter: float, drift: float) -> Any:
    """A path (n, 2) that keeps its heading more or less: jitter kinks it, drift bends it."""
    steps = max(2, int(length / stride))
    angles = heading + np.cumsum(rng.normal(0, drift, steps)) + rng.normal(0, jitter, steps)
    moved = np.cumsum(np.stack([np.sin(angles), np.cos(angles)], 1) * stride, 0)
    return np.asarray(at) + moved - moved[steps // 2]


def _mark(rng: Rng, low: float, high: float, dark: float = 1.0) -> float:
    """A change of brightness between low and high: down with this chance, otherwise up."""
    return float(rng.uniform(low, high)) * (-1 if rng.random() < dark else 1)


# ---- the defects

def _scratches(rng: Rng, side: int) -> Field:
    """Nearly straight and nearly parallel, their pressure uneven."""
    heading, bright = rng.uniform(0, np.pi), _mark(rng, 0.25, 0.8, 0.35)
    covered = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(1, 6))):
        path = _walk(rng, _place(rng, side), heading + rng.normal(0, 0.12), rng.uniform(25, 140), 6, 0.02, 0.02)
        covered = np.maximum(covered, rng.uniform(0.5, 1) * _lines(side, [path], int(rng.choice((1, 1, 2, 3)))))
    uneven = np.clip(0.8 + 0.3 * grain(rng, side, 12, 12), 0.2, 1.2)
    return np.asarray(1 + bright * cv2.GaussianBlur(covered, (0, 0), 0.6) * uneven, np.float32)


def _crack(rng: Rng, side: int) -> Field:
    """One kinked dark line, with branches."""
    heading, at = rng.uniform(0, 2 * np.pi), _place(rng, side)
    stem = _walk(rng, at, heading, rng.uniform(45, 150), 5, 0.45, 0.1)
    branches = [_walk(rng, stem[int(rng.integers(len(stem)))], heading + rng.choice((-1, 1)) * rng.uniform(0.4, 1.2),
                      rng.uniform(12, 45), 4, 0.5, 0.1) for _ in range(int(rng.integers(0, 4)))]
    covered = np.maximum(_lines(side, [stem], int(rng.integers(1, 4))), 0.8 * _lines(side, branches, 1))
    return 1 + _mark(rng, 0.4, 0.85) * cv2.GaussianBlur(covered, (0, 0), 0.5)


def _crazing(rng: Rng, side: int) -> Field:
    """A net of fine cracks, here and there interrupted, over a part of the surface."""
    within = _soft(_blob(rng, side, _place(rng, side), rng.uniform(35, 110), rng.uniform(35, 80), rng.uniform(0, np.pi), 0.4), 20)
    net = borders(cells(rng, side, int(rng.integers(80, 500)))) * (grain(rng, side, 5, 5) > rng.uniform(-1.2, 0))
    return 1 + _mark(rng, 0.25, 0.6, 0.8) * cv2.GaussianBlur(net * within, (0, 0), rng.uniform(0.5, 0.9))


def _pits(rng: Rng, side: int) -> Field:
    """Small holes: dark, their far wall lit; in a cluster or nearly everywhere."""
    n, spread, largest = int(rng.integers(12, 140)), rng.uniform(12, 70), rng.uniform(1.2, 4)
    at = _place(rng, side) + rng.normal(0, spread, (n, 2))
    dark = np.zeros((side, side), np.uint8)
    for y, x in at:
        cv2.circle(dark, (int(x * 16), int(y * 16)), int(16 * rng.uniform(0.7, largest)), 255, -1, cv2.LINE_AA, shift=4)
    cover = np.asarray(dark, np.float32) / 255
    lit = np.clip(np.roll(cover, rng.choice((-1, 1), 2), (0, 1)) - cover, 0, 1)
    return np.asarray(1 - rng.uniform(0.3, 0.75) * cover + rng.uniform(0.05, 0.3) * lit, np.float32)


def _hole(rng: Rng, side: int) -> Field:
    made, deep, rim = np.ones((side, side), np.float32), rng.uniform(0.5, 0.85), rng.uniform(0, 0.25)
    at = _place(rng, side)
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform(3, 15)
        depth = _blob(rng, side, at, size * rng.uniform(1, 1.5), size, rng.uniform(0, np.pi), 0.15)
        made *= 1 - deep * _soft(depth, 2.5) + rim * np.exp(-((depth + 1.5) / 1.5) ** 2)
        at = at + rng.normal(0, 25, 2)
    return made


def _stain(rng: Rng, side: int) -> Field:
    """Dried liquid: soft, darker or brighter at its tide mark."""
    size, rim = rng.uniform(14, 48), rng.uniform(3, 14)
    depth = _blob(rng, side, _place(rng, side), size * rng.uniform(1, 1.8), size, rng.uniform(0, np.pi), 0.35)
    body = _soft(depth, rim) * np.clip(0.85 + 0.2 * clouds(rng, side, 1.3), 0, 2)
    return np.asarray(1 + _mark(rng, 0.15, 0.4, 0.75) * (body + rng.uniform(0, 0.7) * np.exp(-((depth - 1) / rim * 2) ** 2)), np.float32)


def _patches(rng: Rng, side: int) -> Field:
    """Areas of another brightness, sharply bounded, with a texture of their own."""
    change, depth = _mark(rng, 0.2, 0.5, 0.6), np.full((side, side), -side, np.float32)
    at = _place(rng, side)
    for _ in range(int(rng.integers(1, 5))):
        size = rng.uniform(10, 38)
        depth = np.maximum(depth, _blob(rng, side, at, size * rng.uniform(1, 2.2), size, rng.uniform(0, np.pi), 0.55))
        at = at + rng.normal(0, 35, 2)
    texture = np.clip(1 + rng.uniform(0, 0.5) * grain(rng, side, 1, 1), 0, 2)
    return np.asarray(1 + change * _soft(depth, 2) * texture, np.float32)


def _inclusion(rng: Rng, side: int) -> Field:
    """Foreign matter rolled in: ragged dark spindles that lie one way."""
    angle, change, covered = rng.uniform(0, np.pi), _mark(rng, 0.3, 0.7, 0.9), np.zeros((side, side), np.float32)
    at = _place(rng, side)
    for _ in range(int(rng.integers(1, 5))):
        thin = rng.uniform(1.5, 5)
        depth = _blob(rng, side, at, thin * rng.uniform(5, 16), thin, angle + rng.normal(0, 0.05), 0.7)
        covered = np.maximum(covered, _soft(depth, 1.5))
        at = at + rng.normal(0, 14, 2)
    return np.asarray(1 + change * covered, np.float32)


def _scale(rng: Rng, side: int) -> Field:
    """Oxide pressed into metal: flakes, dark and uneven, drawn out one way."""
    angle, size = rng.uniform(0, np.pi), rng.uniform(25, 70)
    within = _soft(_blob(rng, side, _place(rng, side), size * 1.6, size, angle, 0.4), 25)
    flakes = np.clip(3 * (grain(rng, side, rng.uniform(4, 10), rng.uniform(1.2, 3), angle) - rng.uniform(0.2, 0.9)), 0, 1)
    grit = np.clip(1 + 0.4 * grain(rng, side, 1.5, 0.7, angle), 0.2, 1.8)
    return np.asarray(1 + _mark(rng, 0.3, 0.6, 0.9) * flakes * grit * within, np.float32)


def _slope(side: int, at: Any, a: float, b: float, light: float) -> Field:
    """How a hollow takes the light from there, as the slope of (1 - r^2)^2."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    p, q = turned(ys - at[0], xs - at[1], light)
    return np.asarray(p / a * np.clip(1 - (p / a) ** 2 - (q / b) ** 2, 0, 1), np.float32)


def _dent(rng: Rng, side: int) -> Field:
    size, light = rng.uniform(12, 45), rng.uniform(0, 2 * np.pi)
    return 1 + np.float32(rng.uniform(0.6, 1.4)) * _slope(side, _place(rng, side), size, size * rng.uniform(0.7, 1), light)


def _blisters(rng: Rng, side: int) -> Field:
    """Raised spots: each lit on one side, shaded on the other."""
    made, centre, light = np.ones((side, side), np.float32), _place(rng, side), rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(3, 14))):
        size = rng.uniform(4, 11)
        made += np.float32(rng.uniform(0.6, 1.3)) * _slope(side, centre + rng.normal(0, 28, 2), size, size, light)
    return np.clip(made, 0.2, 1.8)


def _spots(rng: Rng, side: int) -> Field:
    """Round and soft, all darker or all brighter than the surface."""
    change, covered, centre = _mark(rng, 0.3, 0.7, 0.6), np.zeros((side, side), np.float32), _place(rng, side)
    for _ in range(int(rng.integers(1, 9))):
        size = rng.uniform(2.5, 9)
        covered = np.maximum(covered, _soft(_blob(rng, side, centre + rng.normal(0, 30, 2), size, size, 0, 0.12), size))
    return np.asarray(1 + change * covered, np.float32)


def _break(rng: Rng, side: int) -> Field:
    """A piece gone at the border: beyond a jagged line the surface is another."""
    ys, xs = np.mgrid[:side, :side].astype(np.float32) - side / 2
    p, _ = turned(ys, xs, rng.integers(4) * np.pi / 2 + rng.normal(0, 0.12))
    depth = p - side * rng.uniform(0.18, 0.4) + 4 * grain(rng, side, 10, 10) + 1.5 * grain(rng, side, 2, 2)
    texture = np.clip(1 + 0.3 * grain(rng, side, 2, 2), 0, 2)
    return np.asarray(1 + _mark(rng, 0.35, 0.75, 0.75) * _soft(depth, 2) * texture, np.float32)


def _corrosion(rng: Rng, side: int) -> Field:
    """Rough and mottled, eaten into a part of the surface."""
    size = rng.uniform(25, 65)
    within = _soft(_blob(rng, side, _place(rng, side), size * 1.3, size, rng.uniform(0, np.pi), 0.5), 15)
    mottled = np.clip(0.6 + 0.5 * clouds(rng, side, 0.8), 0, 1.6)
    return np.asarray(1 + _mark(rng, 0.3, 0.55) * mottled * within, np.float32)


FLAWS: dict[str, Callable[[Rng, int], Field]] = {
    "scratches": _scratches, "crack": _crack, "crazing": _crazing, "pits": _pits, "hole": _hole, "stain": _stain, "patches": _patches,
    "inclusion": _inclusion, "scale": _scale, "dent": _dent, "blisters": _blisters, "spots": _spots, "break": _break,
    "corrosion": _corrosion,
}


def bounds(gain: Field) -> tuple[int, int, int, int] | None:
    """Box of what is seen of a defect: x1, y1, x2, y2 in whole pixels, the ends exclusive. None where it lies outside the picture."""
    change = np.abs(gain - 1)
    ys, xs = np.nonzero(change > max(SEEN * float(change.max()), 0.02))
    return (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1) if len(xs) else None
