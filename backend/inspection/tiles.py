"""Large pictures, looked at in overlapping parts: how they are cut, and how boxes of neighbouring parts become one picture's again.

A line-scan picture of 8,000 pixels, shrunk to a network's 640, shows a defect of 10 pixels as less than one. So it is cut into tiles
of the size that the model learned from, overlapping by about an object's length. What lies in an overlap is seen twice, what crosses
a seam is seen in pieces; `joined` counts each once. Knows nothing of networks or of how a picture is fitted to one.
"""

import math
from itertools import product

import numpy as np

LARGER = 1.5             # as large as a tile, this many times, before a picture is cut: below, it is shrunk as it always was
MANY = 0.9               # of the pictures that a model learned from set its scale
LEAST, MOST = 0.125, 0.5         # overlap, as a share of a tile's side
INSIDE = 0.6             # of the smaller box: two boxes of one class that share this are one object
BESIDE = 0.5             # of the shorter of two pieces' widths across a seam that they share, to be pieces of one object

Place = tuple[int, int, int, int]        # x, y, width, height


def places(width: int, height: int, side: int, overlap: int = 0) -> list[Place]:
    """Tiles that cover a picture, row by row, all of one size, each overlapping its neighbours by at least `overlap` pixels (limited to a
    sensible share of the side). One place, the whole picture, where it is hardly larger than a tile."""
    if not side or max(width, height) <= LARGER * side:
        return [(0, 0, width, height)]
    shared = _shared(side, overlap)
    across, down = (_starts(length, min(side, length), shared) for length in (width, height))
    return [(x, y, min(side, width), min(side, height)) for y, x in product(down, across)]


def number(width: int, height: int, side: int, overlap: int = 0) -> int:
    """How many `places` there are."""
    if not side or max(width, height) <= LARGER * side:
        return 1
    shared = _shared(side, overlap)
    return _count(width, min(side, width), shared) * _count(height, min(side, height), shared)


def _shared(side: int, overlap: int) -> int:
    return int(np.clip(overlap, LEAST * side, MOST * side))


def _count(length: int, side: int, overlap: int) -> int:
    return max(1, int(np.ceil((length - overlap) / max(side - overlap, 1))))


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin along one direction, spread evenly."""
    count = _count(length, side, overlap)
    return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]


def joined(found: list[np.ndarray], where: list[Place], width: int, height: int) -> np.ndarray:
    """Boxes of each tile, float32 (n, 6) in its own pixels -> (n, 6) of the picture, surest first, each object once."""
    boxes = np.concatenate([_moved(b, place) for b, place in zip(found, where, strict=True)])                  # (N, 6)
    if len(where) == 1 or not len(boxes):
        return boxes
    tile = np.repeat(np.arange(len(where)), [len(b) for b in found])
    cut = _cut(boxes, np.array(where)[tile], width, height)
    merged = np.array([_one(boxes[rows], cut[rows]) for rows in _groups(boxes, tile, cut)], np.float32)
    return merged[np.argsort(-merged[:, 4], kind="stable")]


def _moved(boxes: np.ndarray, place: Place) -> np.ndarray:
    return boxes + np.array([place[0], place[1], place[0], place[1], 0, 0], np.float32)


def _cut(boxes: np.ndarray, place: np.ndarray, width: int, height: int) -> np.ndarray:
    """bool (N, 4), left, top, right, bottom: the box ends at a side of its tile that lies inside the picture, so it may go on."""
    near = np.maximum(2.0, 0.01 * place[:, 2:].max(axis=1))                                                     # (N,) px
    edges = np.concatenate([place[:, :2], place[:, :2] + place[:, 2:]], axis=1)                                 # (N, 4)
    inside = np.column_stack([edges[:, :2] > 0, edges[:, 2:] < [width, height]])
    return np.asarray(inside & (np.abs(boxes[:, :4] - edges) <= near[:, None]))


def _groups(boxes: np.ndarray, tile: np.ndarray, cut: np.ndarray) -> list[list[int]]:
    """Rows that are one object: connected by pairs, of two tiles and one class, that overlap or continue each other."""
    leader = list(range(len(boxes)))

    def lead(row: int) -> int:
        while leader[row] != row:
            leader[row] = row = leader[leader[row]]
        return row

    for class_id in np.unique(boxes[:, 5]):
        rows = np.flatnonzero(boxes[:, 5] == class_id)
        for a, b in zip(*np.nonzero(np.triu(_same(boxes[rows], tile[rows], cut[rows]), 1)), strict=True):
            leader[lead(int(rows[b]))] = lead(int(rows[a]))
    groups: dict[int, list[int]] = {}
    for row in range(len(boxes)):
        groups.setdefault(lead(row), []).append(row)
    return list(groups.values())


def _same(boxes: np.ndarray, tile: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """bool (n, n) of boxes of one class."""
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:4], boxes[None, :, 2:4])
    shared, sides = (high - low).clip(0), boxes[:, 2:4] - boxes[:, :2]                                          # (n, n, 2), (n, 2)
    area = sides.prod(axis=1)
    inside = shared.prod(axis=2) >= INSIDE * np.minimum(area[:, None], area[None])
    pieces = np.zeros_like(inside)
    for axis in (0, 1):                                          # along this direction one goes on where the other ends
        open_ends = (cut[:, axis + 2][:, None] & cut[:, axis][None]) | (cut[:, axis][:, None] & cut[:, axis + 2][None])
        across = sides[:, 1 - axis]
        beside = shared[..., 1 - axis] >= BESIDE * np.minimum(across[:, None], across[None])
        pieces |= open_ends & (shared[..., axis] > 0) & beside
    return np.asarray((inside | pieces) & (tile[:, None] != tile[None]))


def _one(boxes: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """One object out of what tiles saw of it: the surest that saw it whole, else all pieces together. (6,)"""
    whole = ~cut.any(axis=1)
    if whole.any():
        return np.asarray(boxes[whole][boxes[whole, 4].argmax()])
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:4].max(axis=0), [boxes[:, 4].max(), boxes[0, 5]]])


def learned(pictures: list[tuple[int, int]], objects: list[float]) -> dict[str, int]:
    """What a model should say of the pictures it learned from, so that larger ones are cut to their scale: the longest side of nine in ten
    of them (none of its own kind is cut, and a few whole pictures of a line scan that joined crops of them do not set the scale), and the
    longer side below which 95 % of the objects stay."""
    sides = sorted(max(p) for p in pictures)
    return dict(side=sides[math.ceil(MANY * len(sides)) - 1] if sides else 0,
                object=int(np.ceil(np.quantile(objects, 0.95))) if objects else 0)
