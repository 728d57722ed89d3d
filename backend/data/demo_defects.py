"""Six kinds of surface defect: where they lie (cheap), and how they look when painted on a picture.

`demo` draws the steel and asks here for its defects. A defect is a chain of discs (pits, scratches, cracks) or a
closed outline around a centre (dents, scale, stains), so its box follows from its geometry without drawing a pixel.
Knows nothing of ids, files or plants.

All arithmetic is in double precision and rounded once, to whole grey levels, at the end of `demo.render`: other
machines' last-digit differences in sin or exp then flip a pixel about once in a million pictures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

SIDE = 256                                      # pictures are square
CLASSES = ("crack", "dent", "pits", "scale", "scratch", "stain")
Array = np.ndarray
Box = tuple[str, int, int, int, int]

_AT = np.arange(SIDE) + 0.5
_THETA = np.linspace(0, 2 * np.pi, 128, endpoint=False)
_ORDERS = np.arange(2, 14)                       # harmonics of an outline; 0 is its size, 1 its centre
_COS, _SIN = np.cos(np.outer(_ORDERS, _THETA)), np.sin(np.outer(_ORDERS, _THETA))


@dataclass(frozen=True)
class Outline:
    """A closed curve: an ellipse with half axes a, b, turned by `turn`, its radius modulated by harmonics."""

    a: float
    b: float
    turn: float
    cosines: Array                               # (12,), as a share of the radius
    sines: Array

    def vertices(self) -> Array:
        radius = 1 + (self.cosines[:, None] * _COS + self.sines[:, None] * _SIN).sum(0)
        p, q = radius * np.cos(_THETA) * self.a, radius * np.sin(_THETA) * self.b
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.stack([c * p - s * q, s * p + c * q], 1)                              # (128, 2) x, y

    def field(self, dx: Array, dy: Array) -> tuple[Array, Array, Array]:
        """Offsets from the centre -> ellipse coordinates p, q, and distance as a share of the outline's radius there."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        p, q = (c * dx + s * dy) / self.a, (c * dy - s * dx) / self.b
        angle = np.arctan2(q, p)
        radius = np.ones_like(angle)
        for k, cosine, sine in zip(_ORDERS, self.cosines, self.sines, strict=True):
            if cosine or sine:
                radius += cosine * np.cos(k * angle) + sine * np.sin(k * angle)
        return p, q, np.hypot(p, q) / radius


@dataclass(frozen=True)
class Defect:
    """One defect in its place. Exactly one of `discs` (n, 3) x, y, r and `outline` is given."""

    class_name: str
    x: float
    y: float
    strength: float                              # 0 barely seen .. 1 plain
    discs: Array | None = None
    outline: Outline | None = None

    def extent(self) -> Array:
        """Left, top, right, bottom around (x, y), not rounded."""
        if self.discs is not None:
            xy, r = self.discs[:, :2], self.discs[:, 2:]
            return np.concatenate([(xy - r).min(0), (xy + r).max(0)])
        assert self.outline is not None
        vertices = self.outline.vertices()
        return np.concatenate([vertices.min(0), vertices.max(0)])

    def box(self, extent: Array) -> Box:
        """Whole pixels whose centre may lie inside: x1, y1 inclusive, x2, y2 exclusive."""
        x1, y1 = np.ceil(extent[:2] + (self.x, self.y) - 0.5)
        x2, y2 = np.floor(extent[2:] + (self.x, self.y) - 0.5) + 1
        return (self.class_name, int(x1), int(y1), int(x2), int(y2))


# ---- geometry: one function a class, Generator -> shape around (0, 0)

def _walk(rng: Generator, heading: float, steps: int, stride: float, jitter: float, drift: float) -> Array:
    """A path (n, 2) that keeps its heading more or less; jitter kinks it, drift bends it."""
    bend = np.cumsum(rng.normal(0, drift, steps))
    angles = heading + bend + rng.normal(0, jitter, steps)
    lengths = stride * rng.uniform(0.6, 1.4, steps)
    xy = np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
    return np.concatenate([np.zeros((1, 2)), np.cumsum(xy, 0)])


def _discs_along(path: Array, radius: Array, gap: float = 0.6) -> Array:
    """Discs (n, 3) so close along a path that they make a line; `radius` at each vertex of the path."""
    lengths = np.hypot(*np.diff(path, axis=0).T)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    dense = np.linspace(0, at[-1], max(2, int(at[-1] / gap)))
    return np.stack([np.interp(dense, at, values) for values in (path[:, 0], path[:, 1], radius)], 1)


def _crack(rng: Generator) -> Array:
    heading, steps = rng.uniform(0, np.pi), int(rng.integers(7, 22))
    stem = _walk(rng, heading, steps, 5.0, 0.5, 0.12)
    width = rng.uniform(0.75, 1.35)
    taper = np.maximum(0.72, width * (1 - 0.55 * np.linspace(-1, 1, steps + 1) ** 2))      # less may miss every pixel's centre
    discs = [_discs_along(stem, taper)]
    for _ in range(int(rng.integers(0, 4))):
        at = int(rng.integers(2, steps - 1))
        side = rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)
        branch = _walk(rng, heading + side, int(rng.integers(2, max(3, steps // 2))), 4.5, 0.5, 0.1) + stem[at]
        discs.append(_discs_along(branch, np.linspace(max(0.72, taper[at] * 0.85), 0.72, len(branch))))
    return np.concatenate(discs)


def _scratch(rng: Generator) -> Array:
    """A slip of a tool across the grain: nearly straight, its pressure uneven."""
    heading = rng.uniform(0.22, np.pi - 0.22)
    steps = int(rng.integers(9, 34))
    path = _walk(rng, heading, steps, 5.0, 0.03, 0.022)
    pressure = 0.75 + 0.25 * np.cos(np.linspace(0, rng.uniform(3, 12), steps + 1) + rng.uniform(0, 6))
    ends = np.minimum(1, np.linspace(0, 4, steps + 1)) * np.minimum(1, np.linspace(4, 0, steps + 1))
    return _discs_along(path, np.maximum(0.72, rng.uniform(0.8, 1.7) * pressure * ends))


def _pits(rng: Generator) -> Array:
    n = int(rng.integers(4, 19))
    spread = rng.uniform(1.6, 3.4) * np.sqrt(n) * np.array([rng.uniform(1, 1.7), 1.0])
    xy = rng.normal(0, 1, (n, 2)).clip(-2, 2) * spread
    return np.concatenate([xy, 0.85 + rng.exponential(0.55, (n, 1)).clip(0, 2.2)], 1)


def _harmonics(rng: Generator, rough: float, fall: float, orders: int) -> tuple[Array, Array]:
    size = rough / _ORDERS.astype(float) ** fall * (_ORDERS < 2 + orders)
    return size * rng.normal(0, 1, 12).clip(-1.6, 1.6), size * rng.normal(0, 1, 12).clip(-1.6, 1.6)


def _dent(rng: Generator) -> Outline:
    a = rng.uniform(9, 30)
    return Outline(a, a * rng.uniform(0.6, 1), rng.uniform(0, np.pi), *_harmonics(rng, 0.1, 1.2, 2))


def _scale(rng: Generator) -> Outline:
    """Rolled in, so drawn out along the grain."""
    b = rng.uniform(4.5, 13)
    return Outline(b * rng.uniform(2.2, 5), b, rng.normal(0, 0.06), *_harmonics(rng, 0.30, 0.95, 12))


def _stain(rng: Generator) -> Outline:
    a = rng.uniform(15, 44)
    return Outline(a, a * rng.uniform(0.55, 1), rng.uniform(0, np.pi), *_harmonics(rng, 0.42, 1.5, 5))


_SHAPES = {"crack": _crack, "dent": _dent, "pits": _pits, "scale": _scale, "scratch": _scratch, "stain": _stain}


def place(rng: Generator, class_name: str, taken: list[Box], tries: int) -> tuple[Defect, Box] | None:
    """A new defect of this class, whole inside the picture and clear of the boxes taken; None where it finds no room."""
    for _ in range(tries):
        shape = _SHAPES[class_name](rng)
        strength, fx, fy = rng.random(3)
        parts = {"outline": shape} if isinstance(shape, Outline) else {"discs": shape}
        loose = Defect(class_name, 0.0, 0.0, strength, **parts)
        extent = loose.extent()
        low, high = 3 - extent[:2], SIDE - 3 - extent[2:]
        if (low > high).any():
            continue
        defect = Defect(class_name, low[0] + fx * (high[0] - low[0]), low[1] + fy * (high[1] - low[1]), strength, **parts)
        box = defect.box(extent)
        if not any(_touch(box, other) for other in taken):
            return defect, box
    return None


def _touch(one: Box, other: Box, gap: int = 4) -> bool:
    _, a1, b1, a2, b2 = one
    _, c1, d1, c2, d2 = other
    return a1 < c2 + gap and c1 < a2 + gap and b1 < d2 + gap and d1 < b2 + gap


# ---- looks: each changes `steel` (a factor on brightness), `warm` (tint) and `mask` in place

@dataclass
class Canvas:
    steel: Array                                 # (SIDE, SIDE) double, linear brightness
    warm: Array                                  # (SIDE, SIDE) double, share of brown
    mask: Array                                  # (SIDE, SIDE) uint8, 0 or 1 + index of the class


def paint(canvas: Canvas, defect: Defect, rng: Generator, light: float) -> None:
    """Paint one defect. `light` is the direction the light comes from, in radians."""
    if defect.discs is not None:
        _paint_discs(canvas, defect, rng, light)
    else:
        _paint_outline(canvas, defect, rng, light)


def stamp(discs: Array, soft: float = 0.5) -> Array:
    """How much of each pixel a chain of discs (n, 3) covers, 0..1."""
    reach = int(np.ceil(discs[:, 2].max() + soft)) + 1
    steps = np.arange(-reach, reach + 1)
    ix = np.floor(discs[:, 0]).astype(int)[:, None, None] + steps[None, None, :]
    iy = np.floor(discs[:, 1]).astype(int)[:, None, None] + steps[None, :, None]
    distance = np.hypot(ix + 0.5 - discs[:, 0, None, None], iy + 0.5 - discs[:, 1, None, None])
    cover = ((discs[:, 2, None, None] - distance) / (2 * soft) + 0.5).clip(0, 1)
    field = np.zeros((SIDE, SIDE))
    inside = (cover > 0) & (ix >= 0) & (ix < SIDE) & (iy >= 0) & (iy < SIDE)
    np.maximum.at(field.ravel(), (iy * SIDE + ix)[inside], cover[inside])
    return field


def _paint_discs(canvas: Canvas, defect: Defect, rng: Generator, light: float) -> None:
    assert defect.discs is not None
    discs = defect.discs + (defect.x, defect.y, 0.0)
    towards = np.array([np.cos(light), np.sin(light), 0.0])
    dark = stamp(discs)
    canvas.mask[stamp(discs, 1e-9) >= 0.5] = 1 + CLASSES.index(defect.class_name)
    if defect.class_name == "pits":              # holes: dark, the far wall lit
        lit = stamp(discs - 0.7 * discs[:, 2:] * towards)
        canvas.steel *= 1 + (0.06 + 0.16 * defect.strength) * (lit - dark).clip(0) - (0.22 + 0.42 * defect.strength) * dark
    elif defect.class_name == "crack":           # open: dark all along, a hint of a lit lip
        lit = stamp(discs - 1.0 * towards)
        canvas.steel *= 1 + 0.07 * (lit - dark).clip(0) - (0.30 + 0.40 * defect.strength) * dark
    else:                                        # a furrow: bright metal on one side, shadow on the other
        lit = stamp(discs + (0.9 * towards + (0, 0, -0.15)))
        bright = rng.random() < 0.65
        core = (0.10 + 0.30 * defect.strength) if bright else -(0.10 + 0.26 * defect.strength)
        fx, fy, phase = rng.uniform([-0.3, -0.3, 0], [0.3, 0.3, 6.28])
        uneven = 0.75 + 0.25 * np.cos(fx * _AT[None, :] + fy * _AT[:, None] + phase)
        canvas.steel *= 1 + core * uneven * (dark - 0.5 * (lit - dark).clip(0))


def _paint_outline(canvas: Canvas, defect: Defect, rng: Generator, light: float) -> None:
    assert defect.outline is not None
    reach = 1.25
    x1, y1, x2, y2 = np.rint(defect.extent() * reach + (defect.x, defect.y, defect.x, defect.y)).astype(int).clip(0, SIDE)
    window = np.s_[y1:y2, x1:x2]
    dx, dy = np.arange(x1, x2)[None, :] + 0.5 - defect.x, np.arange(y1, y2)[:, None] + 0.5 - defect.y
    p, q, distance = defect.outline.field(dx, dy)
    small = min(defect.outline.a, defect.outline.b)
    inside = distance <= 1 - 0.05 / small
    canvas.mask[window][inside] = 1 + CLASSES.index(defect.class_name)
    look = {"dent": _dent_look, "scale": _scale_look, "stain": _stain_look}[defect.class_name]
    factor, warm = look(defect, rng, light, dx, dy, distance, small)
    canvas.steel[window] *= factor
    canvas.warm[window] += warm


def _dent_look(defect: Defect, rng: Generator, light: float, dx: Array, dy: Array, distance: Array, small: float) -> tuple[Array, Array]:
    """A hollow: shadow towards the light, highlight away from it, as the slope of (1 - r^2)^2."""
    slope = (dx * np.cos(light) + dy * np.sin(light)) / small * (1 - distance**2).clip(0)
    amount = (0.26 + 0.62 * defect.strength) * (0.8 + 0.2 * rng.random())
    rim = 0.03 * np.exp(-(((distance - 1.02) / 0.07) ** 2))
    return 1 - amount * slope - 0.10 * defect.strength * (1 - distance**2).clip(0) ** 2 + rim, np.zeros_like(slope)


def _scale_look(defect: Defect, rng: Generator, light: float, dx: Array, dy: Array, distance: Array, small: float) -> tuple[Array, Array]:
    """Oxide pressed into the metal: dark, flaky, drawn out along the grain, ragged at its edge."""
    h, w = distance.shape
    coarse = np.repeat(np.repeat(rng.normal(0, 1, (h // 2 + 1, w // 6 + 1)), 2, 0), 6, 1)[:h, :w]
    fine = np.repeat(rng.normal(0, 1, (h, w // 2 + 1)), 2, 1)[:, :w]
    grit = 0.55 * coarse + 0.6 * fine
    edge = ((1 - distance) * small / 1.5 + 0.5 + 0.35 * grit).clip(0, 1)
    depth = (0.20 + 0.26 * defect.strength) * edge * (1 + 0.45 * grit).clip(0.25, 2.2)
    return 1 - depth.clip(0, 0.75), 0.35 * edge


def _stain_look(defect: Defect, rng: Generator, light: float, dx: Array, dy: Array, distance: Array, small: float) -> tuple[Array, Array]:
    """Dried liquid: faint, soft, a little darker at its tide mark."""
    soft = rng.uniform(2.0, 6.0)
    body = 1 / (1 + np.exp(((distance - 1) * small / soft * 2.5).clip(-30, 30)))
    tide = np.exp(-(((distance - 0.97) * small / soft) ** 2)) * rng.uniform(0.0, 0.7)
    cloud = np.zeros_like(distance)
    for fx, fy, phase in zip(rng.normal(0, 0.09, 5), rng.normal(0, 0.09, 5), rng.uniform(0, 6.28, 5), strict=True):
        cloud += 0.2 * np.cos(fx * dx + fy * dy + phase)
    amount = 0.055 + 0.10 * defect.strength
    return 1 - amount * (body * (0.8 + 0.45 * cloud) + tide * body), rng.uniform(0.2, 1.0) * body
