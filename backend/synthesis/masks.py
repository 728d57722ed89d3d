"""Where a synthetic defect lies: shapes of Perlin noise, or of defects found in production, inside what is allowed.

First in the flow of synthesis; everything is drawn from the generator that is handed in, so that a step's masks follow from its
seed. All masks are bool (H, W). Knows nothing of what fills a mask.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from backend import rundir

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Field = np.ndarray[Any, np.dtype[np.float32]]

OCTAVES = 5              # cells 2^0 to 2^5 each way (DRAEM, ICCV 2021, section 3.2; RealNet, CVPR 2024, section 3.2)
FINEST = 64              # cells of the noise that makes rims uneven
PIECES = 40              # of one defect: more is dust
TRIES = 12               # shapes before the highest pixels of a last one are taken as they are
SPECK = 4                # pixels; a smaller piece is dust (as in data.marks)
MOST_SPREAD = 0.35       # of the image, above the threshold before pieces are chosen: more, and they all hang together
POINTS = 200             # of one polygon; with 64, nets of cracks lose two fifths of their pixels
WHOLE = 0.8              # of a collected shape should lie inside what is allowed
SMALLEST = 0.05          # share of the image that an object, and a background, cover at least
VALLEY = 0.1             # of the pixels, at most, may lie in the middle third between object and background
BORDER = 0.9             # of the outermost pixels, at least, must be background


# ---- Perlin

def perlin(rng: np.random.Generator, height: int, width: int, cells_y: int, cells_x: int) -> Field:
    """Gradient noise (Perlin 2002), mean about 0, inside -1 to 1: float32 (H, W).

    A pixel is the sum, over the corners of its cell, of weight_y * weight_x * (gradient . distance). Each half of that is a row's
    factor times a column's, so that the whole is one product of small matrices: 0.1 to 0.2 ms at 256 px.
    """
    angles = rng.random((cells_y + 1, cells_x + 1), dtype=np.float32) * np.float32(2 * np.pi)
    (weight_y, moment_y), (weight_x, moment_x) = _corners(height, cells_y), _corners(width, cells_x)
    left = np.hstack([moment_y @ np.sin(angles), weight_y @ np.cos(angles)])                 # (H, 2 (cells_x + 1))
    return np.asarray(left @ np.hstack([weight_x, moment_x]).T)


def _corners(length: int, cells: int) -> tuple[Field, Field]:
    """Of each pixel and cell corner along one side: its weight, and weight times distance; both float32 (length, cells + 1)."""
    place = (np.arange(length, dtype=np.float32) + 0.5) * (cells / length)
    distance = place[:, None] - np.arange(cells + 1, dtype=np.float32)
    t = np.clip(1 - np.abs(distance), 0, 1)
    weight = t * t * t * (t * (t * 6 - 15) + 10)
    return weight, weight * distance


def draw(rng: np.random.Generator, height: int, width: int, low_area: float, high_area: float, allowed: Mask | None = None) -> Mask:
    """One defect's shape, of a share of the image between low_area and high_area, wholly inside `allowed` where that is given.

    The area is drawn evenly on a logarithmic scale: small defects are the rule. Where less than `low_area` is allowed, all of
    it may be covered. The threshold follows from the area, so that few shapes are drawn in vain.
    """
    room = height * width if allowed is None else int(allowed.sum())
    assert 0 < low_area <= high_area and room, "an area range, and somewhere to put it"
    high = min(room, max(1, int(high_area * height * width)))
    low = min(high, max(1, int(np.ceil(low_area * height * width))))
    for _ in range(TRIES):
        wanted = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
        field = _field(rng, height, width)
        if allowed is not None:
            field[~allowed] = -np.inf
        mask = _pieces(rng, field, wanted, min(room, int(MOST_SPREAD * height * width)))
        if low <= np.count_nonzero(mask) <= high:
            return mask
    return _highest(field, wanted)


def _field(rng: np.random.Generator, height: int, width: int) -> Field:
    """A landscape whose summits are shapes: one noise, or two, of which the higher stands for a union, the lower for an intersection."""
    kind = rng.random()
    first = _rotated(rng, height, width)
    if kind < 0.5:
        return first
    second = _rotated(rng, height, width)
    return np.maximum(first, second) if kind < 0.75 else np.minimum(first, second)


def _rotated(rng: np.random.Generator, height: int, width: int) -> Field:
    """Noise of chance scales, turned by a chance angle: float32 (H, W), of deviation about 1.

    Unequal scales make streaks. One in five is a ridge (minus the magnitude), whose summits are the thin winding lines of
    cracks and scratches, and a finer noise makes rims uneven: both our choice.
    """
    side = int(np.ceil(np.hypot(height, width)))
    cells_y, cells_x = (int(2 ** rng.integers(OCTAVES + 1)) for _ in range(2))
    noise = perlin(rng, side, side, cells_y, cells_x)
    noise /= noise.std()
    if rng.random() < 0.2:
        noise = -np.abs(noise)
    rough = np.float32(rng.uniform(0, 2.5))                          # the finer noise deviates by 0.2
    noise += rough * perlin(rng, side, side, min(FINEST, 4 * cells_y), min(FINEST, 4 * cells_x))
    turn = _turn(side, side, (width / 2, height / 2), float(rng.uniform(0, 360)))
    return np.asarray(cv2.warpAffine(noise, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _turn(height: int, width: int, to: tuple[float, float], angle: float) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """The affine map (2, 3) that turns a picture about its middle and brings that to the point `to` (x, y)."""
    x, y = (width - 1) / 2, (height - 1) / 2
    turn = np.asarray(cv2.getRotationMatrix2D((x, y), angle, 1.0), np.float64)
    return turn + np.array([[0, 0, to[0] - 0.5 - x], [0, 0, to[1] - 0.5 - y]])


def _highest(field: Field, n: int) -> Mask:
    """The n highest pixels (more where they tie)."""
    cut = np.partition(field, field.size - n, axis=None)[field.size - n]
    return np.asarray(field >= cut)


def _pieces(rng: np.random.Generator, field: Field, wanted: int, most: int) -> Mask:
    """The summits of a landscape, about `wanted` pixels: all that rise above a level, or of more of them only a cluster.

    A piece is chosen by chance, and its neighbours are added, nearest first, as long as they fit.
    """
    spread = int(min(max(wanted, most), wanted * rng.choice((1, 2, 4, 8))))
    n, numbers, stats, centres = cv2.connectedComponentsWithStats(_highest(field, spread).view(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    fit = np.flatnonzero((areas >= min(SPECK, wanted)) & (np.arange(n) > 0))
    if not len(fit):
        return np.zeros(field.shape, bool)
    first = rng.choice(fit, p=areas[fit] / areas[fit].sum())
    near = fit[np.argsort(((centres[fit] - centres[first]) ** 2).sum(1))][:PIECES]
    kept = np.zeros(n, bool)
    kept[near[np.cumsum(areas[near]) <= max(wanted, areas[first])]] = True
    return np.asarray(kept[numbers])


# ---- foreground

def foreground(image: "np.ndarray[Any, np.dtype[np.uint8]]") -> Mask:
    """The object of a picture, uint8 (H, W, 3), by brightness; all of it where object and background are not clearly two.

    Otsu's threshold, else the triangle's, then closing and opening (RealNet, section 3.2, has these by category; ours must
    choose by itself). Clear: the outermost pixels are background, and few pixels lie between.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (5, 5), 0)
    for method in (cv2.THRESH_OTSU, cv2.THRESH_TRIANGLE):
        _, white = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | method)
        found = _object(grey, white > 0)
        if found is not None:
            return _cleaned(found)
    return np.ones(grey.shape, bool)


def _object(grey: "np.ndarray[Any, Any]", white: Mask) -> Mask | None:
    """The side of a threshold that the border does not belong to, where it is clearly an object."""
    border = np.concatenate([white[0], white[-1], white[:, 0], white[:, -1]])
    inside = ~white if border.mean() > 0.5 else white
    edge, share = max(border.mean(), 1 - border.mean()), inside.mean()
    if edge < BORDER or not SMALLEST < share < 1 - SMALLEST:
        return None
    low, high = sorted((float(grey[inside].mean()), float(grey[~inside].mean())))
    between = (grey > low + (high - low) / 3) & (grey < high - (high - low) / 3)
    return inside if between.mean() <= VALLEY else None


def _cleaned(mask: Mask) -> Mask:
    """Gaps closed, specks opened away, with a disc of a fiftieth of the shorter side; never emptied."""
    size = max(3, min(mask.shape) // 50 | 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, disc)
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, disc)
    return np.asarray((opened if opened.any() else closed) > 0)


# ---- polygons

def polygons(mask: Mask) -> list[list[float]]:
    """Outlines as COCO has them, [x1, y1, x2, y2, ...] in pixels, one a connected piece (diagonals connect), holes left out.

    Traced on the lattice of pixel corners and edges, twice as fine, so that an outline runs round its pixels and not through
    their middles. At most POINTS points each: coarser where a piece is ragged.
    """
    lattice = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
    lattice[1::2, 1::2] = mask
    lattice = cv2.dilate(lattice, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(lattice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(_simplified(o) / 2).ravel().tolist() for o in outlines]


def _simplified(outline: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """An outline (n, 1, 2) of at most POINTS points, none further from it than must be."""
    slack = 1.0                                                      # of the lattice: half a pixel
    shorter = outline
    while len(shorter) > POINTS:
        shorter = cv2.approxPolyDP(outline, slack, True)
        slack *= 1.5
    return shorter if len(shorter) >= 3 else outline


# ---- collected masks

def collected(folder: Path) -> list[Mask]:
    """The masks of a `masks` artifact, in its order."""
    items = rundir.read_json(folder / "head.json")["items"]
    return [read(folder / item["file"]) for item in items]


def read(file: Path) -> Mask:
    with Image.open(file) as image:
        return np.asarray(image.convert("L")) > 127


def write(file: Path, mask: Mask) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).save(file)


def place(rng: np.random.Generator, shape: Mask, height: int, width: int, allowed: Mask | None = None) -> Mask:
    """A collected mask flipped, turned, a little larger or smaller, and put somewhere inside the image. Never empty.

    It keeps its share of the longer side, however large the picture, times a half to two. What lies outside `allowed` is cut
    away: of some places, the first that leaves most of the shape is taken, else the best.
    """
    assert shape.any() and (allowed is None or allowed.any()), "a shape, and somewhere to put it"
    allowed = np.ones((height, width), bool) if allowed is None else allowed
    piece = _turned(rng, shape, height, width)
    (h, w), size, placed, most = piece.shape, np.count_nonzero(piece), np.zeros((height, width), bool), 0
    (ys, xs), spots = np.nonzero(piece), np.flatnonzero(allowed)
    for _ in range(TRIES):
        y, x = divmod(int(rng.choice(spots)), width)                 # where some pixel of the piece comes to lie
        pixel = int(rng.integers(size))
        top, left = (int(np.clip(v, 0, end)) for v, end in ((y - ys[pixel], height - h), (x - xs[pixel], width - w)))
        inside = piece & allowed[top:top + h, left:left + w]
        if (n := int(inside.sum())) > most:
            placed[:], most = False, n
            placed[top:top + h, left:left + w] = inside
        if most >= WHOLE * size:
            return placed
    if not most:
        placed[y, x] = True                                          # all that is allowed is a few pixels in a corner: one of them
    return placed


def _turned(rng: np.random.Generator, shape: Mask, height: int, width: int) -> Mask:
    """What is set of a mask, flipped, turned and scaled by chance, cut to its box: bool (h, w), no larger than the image."""
    cut = _cut(shape)[::rng.choice((1, -1)), ::rng.choice((1, -1))]
    around = float(np.hypot(*cut.shape))
    scale = max(height, width) / max(shape.shape) * float(2 ** rng.uniform(-1, 1))
    scale = min(scale, max(1, min(height, width) - 3) / around)      # whatever the angle, it fits
    size = [max(1, round(n * scale)) for n in cut.shape[::-1]]
    grey = cv2.resize(cut.astype(np.float32), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    side = int(np.hypot(*size)) + 2
    turn = _turn(size[1], size[0], (side / 2, side / 2), float(rng.uniform(0, 360)))
    turned = np.asarray(cv2.warpAffine(grey, turn, (side, side), flags=cv2.INTER_LINEAR))
    return _cut(turned >= min(0.5, float(turned.max()) / 2))         # thinner than a pixel: where it shows most


def _cut(mask: Mask) -> Mask:
    ys, xs = np.nonzero(mask)
    return mask[ys.min():ys.max() + 1, xs.min():xs.max() + 1]
