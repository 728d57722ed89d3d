"""Which pictures are the same, or nearly: groups that must not be torn apart by a split.

Same content is the same SHA-256. Nearly the same is a perceptual hash within `NEAR` of its 64 bits: on 1,344 magnetic tiles
this joins the exposures of one tile (groups of 12 at most), on 1,800 NEU-DET and 576 PIPED pictures it joins nothing by
chance. At 6 bits, unlike tiles begin to chain together. Pictures of one lot or unit belong together too, without being alike.
Knows nothing of labels.
"""

from typing import Any

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR = 4


def phash(image: Image.Image) -> str:
    """The perceptual hash as 16 hex digits."""
    return str(imagehash.phash(image))


def groups(image_ids: list[str], hashes: list[str]) -> list[str]:
    """Group of each picture, named after its smallest image id, so that it does not hang on order or file names."""
    if not image_ids:
        return []
    values, index = np.unique(np.array([int(h, 16) for h in hashes], np.uint64), return_inverse=True)
    rows, columns = near_pairs(values)
    # Same content has the same hash, so exact duplicates need no edges of their own.
    _, of_value = connected_components(coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(values),) * 2), directed=False)
    of_image = of_value[index]
    names: dict[int, str] = {}
    for image_id, group in sorted(zip(image_ids, of_image, strict=True)):
        names.setdefault(int(group), image_id[:16])
    return [names[int(g)] for g in of_image]


def united(groups: list[str], lots: list[set[str]]) -> list[str]:
    """Groups joined wherever they share a lot or unit, named after the smallest; the same groups where there are no lots."""
    parent = {g: g for g in groups}
    first: dict[str, str] = {}                          # a group of each lot

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    for group, names in zip(groups, lots, strict=True):
        for lot in names:
            low, high = sorted((root(first.setdefault(lot, group)), root(group)))
            parent[high] = low
    return [root(g) for g in groups]


def near(pictures: list[tuple[str, str]], others: list[str]) -> set[str]:
    """Ids of those among (id, hash) that are nearly the same as one of the other hashes."""
    values = np.array(sorted({int(h, 16) for h in others}), np.uint64)
    return {i for i, h in pictures if (np.bitwise_count(values ^ np.uint64(int(h, 16))) <= NEAR).any()}


def near_pairs(values: "np.ndarray[Any, np.dtype[np.uint64]]") -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Index pairs (i, j) of hashes within NEAR bits, in blocks of 20 million comparisons (160 MB)."""
    block = max(1, 20_000_000 // len(values))
    found = [np.nonzero(np.bitwise_count(values[i:i + block, None] ^ values[None, :]) <= NEAR) for i in range(0, len(values), block)]
    rows = np.concatenate([r + i * block for i, (r, _) in enumerate(found)])
    return rows, np.concatenate([c for _, c in found])
