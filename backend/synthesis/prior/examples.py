"""Which pictures a prior is adapted with: those of train, class by class, a share of each class kept apart to measure against.

Stands between a snapshot and `adapt`. Nothing here may tell of val or test: not a picture, not a near copy of one, and not a base
prior that has seen one. Knows nothing of networks.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from backend import rundir
from backend.data import alike, snapshot
from backend.data.snapshot import Picture, Snapshot
from backend.errors import ConfigError, NotFoundError
from backend.synthesis import sources


@dataclass(frozen=True)
class Examples:
    """Pictures of each class to learn from, and held apart. One with boxes of two classes stands in both."""

    learned: dict[str, list[Picture]]
    held: dict[str, list[Picture]]
    near: int                        # train pictures left out, nearly equal to val or test ones
    classes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", list(self.learned))

    def ids(self, which: dict[str, list[Picture]]) -> list[str]:
        return sorted({p.image_id for found in which.values() for p in found})


def chosen(data: Snapshot, wanted: str, share: float) -> Examples:
    """`wanted`: classes separated by commas, empty: all that train has. Raises ConfigError."""
    usable = sources.usable(data)
    found = {c: [p for p in usable if c in p.classes] for c in _classes(data, wanted)}
    if missing := [c for c, some in found.items() if not some and wanted.strip()]:
        raise ConfigError(f"No train image of the dataset shows {', '.join(missing)}.")
    found = {c: some for c, some in found.items() if some}
    if not found:
        raise ConfigError(f"The dataset {data.head['name']!r} has no train image with a labelled defect. Label some, or make defects on "
                          "good images by perturbation.")
    apart = held_apart(found, share)
    return Examples({c: [p for p in some if p.image_id not in apart] for c, some in found.items()},
                    {c: [p for p in some if p.image_id in apart] for c, some in found.items()},
                    near=len(data.learnable()) - len(usable))


def _classes(data: Snapshot, wanted: str) -> list[str]:
    names = list(dict.fromkeys(n for n in (part.strip() for part in wanted.split(",")) if n))
    if unknown := [n for n in names if n not in data.classes]:
        raise ConfigError(f"The dataset has no class {', '.join(map(repr, unknown))}. Its classes: {', '.join(data.classes)}.")
    return names or data.classes


def held_apart(found: dict[str, list[Picture]], share: float) -> set[str]:
    """Ids of the pictures kept apart: a share of each class, rounded, chosen by content alone, near copies together.

    Groups come in the order of their smallest id, which is a SHA-256 and so as good as chance; one is taken where no class of it gets
    more than its share. Every class keeps something to learn from.
    """
    room = {c: min(round(share * len(some)), len(some) - 1) for c, some in found.items()}
    groups: dict[str, set[str]] = defaultdict(set)
    classes: dict[str, set[str]] = defaultdict(set)
    for class_name, some in found.items():
        for p in some:
            groups[p.group_id or p.image_id].add(p.image_id)
            classes[p.image_id].add(class_name)
    apart: set[str] = set()
    for members in sorted(groups.values(), key=min):
        needed = Counter(c for image_id in members for c in classes[image_id])
        if all(n <= room[c] for c, n in needed.items()):
            apart |= members
            room = {c: n - needed[c] for c, n in room.items()}
    return apart


# ---- what a prior has seen

def seen(name: str, data: Snapshot, learned: list[str], snapshots: list[str]) -> int:
    """How many train pictures of this dataset, or near copies of them, a prior has learned from. Raises ConfigError where it knows val or
    test.

    `learned`: ids of its pictures; `snapshots`: where they come from, so that near copies are found too, as far as these are still here.
    """
    ids = set(learned)
    groups = {p.group_id for p in data.pictures if p.image_id in ids and p.group_id}
    held = [p for p in data.pictures if p.split in ("val", "test")]
    near = _near(data.pictures, _hashes(ids, snapshots))
    known = [p for p in held if p.image_id in ids or p.group_id in groups or p.image_id in near]
    if known:
        raise ConfigError(f"{name!r} has learned from {len(known)} of the val and test images of {data.head['name']!r}, or from near "
                          "copies of them, so nothing made with it could be judged by them. Choose a prior that has not, or train one "
                          "without this dataset.")
    return sum(p.image_id in ids or p.image_id in near for p in data.pictures if p.split == "train")


def _hashes(ids: set[str], snapshots: list[str]) -> list[str]:
    """Perceptual hashes of the pictures a prior learned from, of those snapshots that are still here."""
    found = []
    for snapshot_id in dict.fromkeys(snapshots):
        try:
            source = snapshot.read(rundir.find_snapshot(snapshot_id))
        except NotFoundError:
            continue
        found += [p.phash for p in source.pictures if p.image_id in ids]
    return found


def _near(pictures: list[Picture], hashes: list[str]) -> set[str]:
    """Ids of the pictures nearly equal to one that was learned from."""
    if not hashes:
        return set()
    others = np.unique(np.array([int(h, 16) for h in hashes], np.uint64))
    return {p.image_id for p in pictures if (np.bitwise_count(others ^ np.uint64(int(p.phash, 16))) <= alike.NEAR).any()}
