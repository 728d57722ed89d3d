"""A defect cut out of one picture and set into another without a seam: pixels, outline and boxes, nothing else.

Copy-paste is the cheap baseline that any generator must beat, so it is made as strong as it honestly can be. Blending is Poisson's
(Perez, Gangnet, Blake 2003, "Poisson image editing", equation 7): the piece plus a membrane, which is harmonic inside and
matches the scene along the outline. We solve for the membrane itself, in place of `cv2.seamlessClone`: that one solves over the whole
rectangle, so that it changes pixels outside the outline (by up to 93 of 255 in a try of ours), and knows no edge of a
picture. A defect at the edge of its picture stays at an edge. Images are uint8 (H, W, 3), masks bool (H, W). Knows
nothing of datasets.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from backend.synthesis.blend import Image, Mask

Boxed: TypeAlias = tuple[str, float, float, float, float]           # class, x1, y1, x2, y2
Field = np.ndarray[Any, np.dtype[np.float32]]
Sides = tuple[bool, bool, bool, bool]

MARGIN, WIDE = 5, 14     # pixels around an outline that come along: the rim of a defect is softer than its label, a large one's more so
SHARE = 0.05             # of the side of a square as large as the defect, between these
RING = 3                 # pixels around those, to compare with the scene
EDGE = 2                 # pixels: a defect so near to its picture's edge is cut by it
POWER = 4                # of the superellipse that stands for a defect of which only the box is known; it fills 93 % of the box
SMALLER, LARGER = 0.8, 1.25         # by chance; a camera sees defects of all sizes, but its own grain
LEAST, MOST = 0.6, 1.7   # scale at which a piece may be made to fit
TILT = 20.0              # degrees besides quarter turns, where an outline is known; a box would no longer fit
STRIPED = 0.02           # product of two grains from which on both count as striped
DIM, BRIGHT = 0.6, 1.6   # by so much contrast follows the light of the scene
UNKNOWNS = 6_000         # of a membrane, at most (0.05 s); a larger one is solved smaller, which its smoothness allows
FADE = 0.8               # of the margin: there the piece fades in, so that no edge of grain is left


@dataclass(frozen=True)
class Piece:
    """A window of a picture. `region` is what is set in: the outline and a margin; `sides` (top, right, bottom, left) are those at which
    the picture's edge cuts the defect."""

    pixels: Image
    outline: Mask
    region: Mask
    boxes: tuple[Boxed, ...]            # in the window
    sides: Sides = (False,) * 4
    margin: float = MARGIN


# ---- cutting

def superellipse(height: int, width: int, box: tuple[float, float, float, float]) -> Mask:
    """What stands for a defect whose box alone is known: rounded, and as wide and high as the box."""
    x1, y1 = min(round(box[0]), width - 1), min(round(box[1]), height - 1)
    x2, y2 = max(round(box[2]), x1 + 1), max(round(box[3]), y1 + 1)
    ys, xs = ((np.arange(low, high) + 0.5 - (low + high) / 2) / ((high - low) / 2) for low, high in ((y1, y2), (x1, x2)))
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = (np.abs(ys)[:, None] ** POWER + np.abs(xs)[None, :] ** POWER <= 1)[:height - y1, :width - x1]
    return mask


def cut(image: Image, outline: Mask, boxes: tuple[Boxed, ...]) -> Piece:
    """The window of a picture around an outline, its sides at the picture's edge where the defect is cut by that."""
    height, width = outline.shape
    ys, xs = np.nonzero(outline.any(1))[0], np.nonzero(outline.any(0))[0]
    sides = (ys[0] < EDGE, xs[-1] >= width - EDGE, ys[-1] >= height - EDGE, xs[0] < EDGE)
    margin = round(float(np.clip(SHARE * outline.sum() ** 0.5, MARGIN, WIDE)))
    room = margin + RING
    ends = (0 if sides[0] else ys[0] - room, width if sides[1] else xs[-1] + 1 + room,
            height if sides[2] else ys[-1] + 1 + room, 0 if sides[3] else xs[0] - room)
    pad = [(max(0, -ends[0]), max(0, ends[2] - height)), (max(0, -ends[3]), max(0, ends[1] - width))]
    window = slice(ends[0] + pad[0][0], ends[2] + pad[0][0]), slice(ends[3] + pad[1][0], ends[1] + pad[1][0])
    pixels = np.pad(image, [*pad, (0, 0)], "symmetric")[window]
    mask = np.pad(outline, pad)[window]
    moved = tuple((name, x1 - ends[3], y1 - ends[0], x2 - ends[3], y2 - ends[0]) for name, x1, y1, x2, y2 in boxes)
    return Piece(pixels, mask, _grown(mask, margin), moved, tuple(bool(s) for s in sides), margin)      # type: ignore[arg-type]


def _grown(mask: Mask, pixels: int) -> Mask:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), disc) > 0


# ---- turning and scaling

def grain(image: Image) -> float:
    """How far a surface is striped: 1 all stripes upright, -1 all level, 0 no direction (from the structure tensor)."""
    grey = cv2.GaussianBlur(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), (0, 0), 1.0).astype(np.float32)
    across, down = (float((cv2.Sobel(grey, cv2.CV_32F, *axes) ** 2).mean()) for axes in ((1, 0), (0, 1)))
    return (across - down) / max(across + down, 1e-6)


def turned(piece: Piece, rng: np.random.Generator, room: tuple[int, int], tilt: bool, stripes: float = 0.0) -> Piece | None:
    """The piece flipped, turned and scaled by chance, as it fits a scene of (height, width); None where it does not.

    `stripes`: grain of the piece's picture times that of the scene. Where both are striped, the piece's stripes come to lie along the
    scene's, and it is not tilted.
    """
    quarters = 2 * int(rng.integers(2)) + (int(rng.integers(2)) if abs(stripes) < STRIPED else int(stripes < 0))
    piece = _quarter(_flipped(piece) if rng.random() < 0.5 else piece, quarters)
    chance, angle = float(np.exp(rng.uniform(np.log(SMALLER), np.log(LARGER)))), float(rng.uniform(-TILT, TILT))
    scale = _scale(piece, room, chance)
    if scale is None:
        return None
    piece = _scaled(piece, scale, room)
    return _tilted(piece, angle, room) if tilt and abs(stripes) < STRIPED and not any(piece.sides) else piece


def _flipped(piece: Piece) -> Piece:
    width, (top, right, bottom, left) = piece.outline.shape[1], piece.sides
    boxes = tuple((name, width - x2, y1, width - x1, y2) for name, x1, y1, x2, y2 in piece.boxes)
    return Piece(piece.pixels[:, ::-1], piece.outline[:, ::-1], piece.region[:, ::-1], boxes, (top, left, bottom, right), piece.margin)


def _quarter(piece: Piece, times: int) -> Piece:
    """Turned clockwise by so many right angles."""
    for _ in range(times):
        height, (top, right, bottom, left) = piece.outline.shape[0], piece.sides
        boxes = tuple((name, height - y2, x1, height - y1, x2) for name, x1, y1, x2, y2 in piece.boxes)
        piece = Piece(np.rot90(piece.pixels, -1), np.rot90(piece.outline, -1), np.rot90(piece.region, -1), boxes,
                      (left, top, right, bottom), piece.margin)
    return piece


def _scale(piece: Piece, room: tuple[int, int], chance: float) -> float | None:
    """The chance scale, or the nearest that fits. One that runs from edge to edge keeps doing so; one at all four fits nowhere."""
    spans = [length / side for side, length, ends in zip(piece.outline.shape, room, (piece.sides[::2], piece.sides[1::2]), strict=True)
             if all(ends)]
    if len(spans) == 2:
        return None
    scale = min(spans[0] if spans else chance, *(length / side for side, length in zip(piece.outline.shape, room, strict=True)))
    return scale if LEAST <= scale <= MOST else None


def _scaled(piece: Piece, scale: float, room: tuple[int, int]) -> Piece:
    height, width = (min(most, max(1, round(side * scale))) for side, most in zip(piece.outline.shape, room, strict=True))
    if piece.outline.shape == (height, width):
        return piece
    down, across = height / piece.outline.shape[0], width / piece.outline.shape[1]
    pixels = cv2.resize(np.ascontiguousarray(piece.pixels), (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    outline, region = (cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
                       for m in (piece.outline, piece.region))
    boxes = tuple((name, x1 * across, y1 * down, x2 * across, y2 * down) for name, x1, y1, x2, y2 in piece.boxes)
    return replace(piece, pixels=np.asarray(pixels, np.uint8), outline=outline >= 0.5, region=region >= 0.5, boxes=boxes,
                   margin=piece.margin * scale)


def _tilted(piece: Piece, angle: float, room: tuple[int, int]) -> Piece:
    """Turned about its middle, its surroundings mirrored; as it is where that does not fit. Its boxes are to be read off its outline."""
    height, width = piece.outline.shape
    c, s = np.cos(np.radians(angle)), abs(np.sin(np.radians(angle)))
    high, wide = int(np.ceil(height * c + width * s)), int(np.ceil(width * c + height * s))
    if high > room[0] or wide > room[1]:
        return piece
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0) + np.array(
        [[0, 0, (wide - width) / 2], [0, 0, (high - height) / 2]])
    pixels = cv2.warpAffine(np.ascontiguousarray(piece.pixels), turn, (wide, high), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    outline, region = (cv2.warpAffine(m.astype(np.float32), turn, (wide, high)) >= 0.5 for m in (piece.outline, piece.region))
    return replace(piece, pixels=np.asarray(pixels, np.uint8), outline=outline, region=region)


# ---- setting in

def spot(piece: Piece, taken: Mask, rng: np.random.Generator) -> tuple[int, int] | None:
    """Top and left of the window in a scene, by chance, so that nothing that is set in meets what is `taken`; None without such a place."""
    (height, width), (h, w), (top, right, bottom, left) = taken.shape, piece.outline.shape, piece.sides
    if h > height or w > width or taken.all():
        return None
    if taken.any():
        met = cv2.matchTemplate(taken.astype(np.float32), piece.region.astype(np.float32), cv2.TM_CCORR)
        free = met < 0.5                                                            # (height - h + 1, width - w + 1)
    else:
        free = np.ones((height - h + 1, width - w + 1), bool)
    pinned = np.ones_like(free)
    for side, there in ((top, np.s_[1:, :]), (bottom, np.s_[:-1, :]), (left, np.s_[:, 1:]), (right, np.s_[:, :-1])):
        if side:
            pinned[there] = False
    places = np.flatnonzero(free & pinned)
    return tuple(int(v) for v in np.unravel_index(rng.choice(places), free.shape)) if len(places) else None       # type: ignore[return-value]


def paste(scene: Image, piece: Piece, top: int, left: int) -> Image:
    """The scene with the piece at this place. Outside its region not a pixel differs."""
    h, w = piece.outline.shape
    under = scene[top:top + h, left:left + w].astype(np.float32)
    over = _lit(piece, under)
    over += membrane(np.asarray(cv2.GaussianBlur(under - over, (0, 0), 1.0), np.float32), piece.region)
    inside = cv2.distanceTransform(np.pad(piece.region, 1, "edge").astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    weight = np.minimum(1, inside / (FADE * piece.margin))[..., None]                                           # (h, w, 1)
    result = scene.copy()
    result[top:top + h, left:left + w] = np.clip(np.rint(under + weight * (over - under)), 0, 255).astype(np.uint8)
    return result


def _lit(piece: Piece, under: Field) -> Field:
    """The piece's pixels, their contrast in the light of the scene: what a surface reflects grows with what falls on it."""
    over, ring = piece.pixels.astype(np.float32), ~piece.region
    if not ring.any():
        ring = np.ones_like(ring)
    here, there = over[ring].mean(), under[ring].mean()
    return here + np.float32(np.clip(there / max(1.0, here), DIM, BRIGHT)) * (over - here)


def membrane(difference: Field, region: Mask) -> Field:
    """`difference` (h, w, 3) carried on from the outside of a region into it, harmonically. Beyond the window nothing is known."""
    n = int(region.sum())
    if not 0 < n < region.size:
        return difference
    result = difference.copy()
    result[region] = _solved(difference, region) if n <= UNKNOWNS else _coarse(difference, region, (UNKNOWNS / n) ** 0.5)[region]
    return result


def _coarse(difference: Field, region: Mask, share: float) -> Field:
    """The same at a share of the size; a cell is known where some of its pixels are, and by those."""
    (h, w), known = region.shape, ~region
    size = max(3, round(w * share)), max(3, round(h * share))
    part = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(np.where(known[..., None], difference, 0), size, interpolation=cv2.INTER_AREA) / np.maximum(part, 1e-6)[..., None]
    smaller = np.asarray(mean, np.float32)
    smaller[part < 1e-3] = _solved(smaller, part < 1e-3)
    return np.asarray(cv2.resize(smaller, (w, h)), np.float32)


def _solved(difference: Field, region: Mask) -> Field:
    """Laplace's equation on the region's pixels, (n, 3): each is the mean of its neighbours in the window, known or not."""
    numbers = np.full(np.add(region.shape, 2), -2)                      # -2: beyond the window, -1: known
    numbers[1:-1, 1:-1] = -1
    ys, xs = np.nonzero(region)
    numbers[ys + 1, xs + 1] = np.arange(len(ys))
    known = np.pad(difference, ((1, 1), (1, 1), (0, 0)))
    rows, columns, count, right = [], [], np.zeros(len(ys)), np.zeros((len(ys), 3))
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = numbers[ys + dy, xs + dx]
        count += neighbour > -2
        right += np.where((neighbour == -1)[:, None], known[ys + dy, xs + dx], 0)
        unknown = np.flatnonzero(neighbour >= 0)
        rows.append(unknown)
        columns.append(neighbour[unknown])
    at, to = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.coo_array((-np.ones(len(at)), (at, to)), shape=(len(ys),) * 2).tocsc() + sparse.diags_array(count).tocsc()
    return np.asarray(linalg.splu(matrix).solve(right), np.float32)
