"""The recipe `draw-plates`: a dataset of plates that do not exist, to try things out on. It takes no space: a picture's id says what is on
it, and it is drawn when asked for (`demo`).

Stands where `import` stands: what it leaves is a snapshot like any other. Knows nothing of what is learned from it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.random import PCG64, Generator

from backend.config import DrawPlates
from backend.data import alike, demo, snapshot
from backend.data.marks import Box
from backend.data.snapshot import Picture
from backend.data.splits import SPLITS
from backend.errors import ConfigError

GOOD = 0.25                   # of val and test


def run(config: DrawPlates, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    """Returns what stands in snapshot.json."""
    if not config.name.strip():
        raise ConfigError("Give the dataset a name.")
    if done := snapshot.written(run_dir):
        return done
    classes, wanted = _classes(config.classes), sum(getattr(config, split) for split in SPLITS)
    pictures = list[Picture]()
    for split in SPLITS:
        for plate in _plates(config, split, classes, [p.phash for p in pictures]):
            report(step=len(pictures), total=wanted, message="Drawing plates")
            pictures.append(plate)
    groups = alike.groups([p.image_id for p in pictures], [p.phash for p in pictures])
    pictures = [Picture(**vars(p) | dict(group_id=g)) for p, g in zip(pictures, groups, strict=True)]
    good = sum(p.is_good for p in pictures)
    report(step=wanted, total=wanted, message=f"drew {wanted} plates")
    return snapshot.write(run_dir, pictures, classes, [], dict(
        name=config.name.strip(), layout="drawn", seed=config.seed, splits_from="drawn", notes=[], grouped_by=[],
        explanation=f"{wanted:,} plates of brushed steel that do not exist, with {', '.join(classes)}; {good:,} of them are good."))


def _classes(names: str) -> list[str]:
    found = [name.strip() for name in names.split(",") if name.strip()] or list(demo.CLASSES)
    if strange := [name for name in found if name not in demo.CLASSES]:
        raise ConfigError(f"No plate is drawn with {strange[0]!r}. Choose from {', '.join(demo.CLASSES)}.")
    return sorted(set(found))


def _plates(config: DrawPlates, split: str, classes: list[str], others: list[str]) -> Iterator[Picture]:
    """Every class in turn, one defect's class a plate; all lines, products and cameras. None nearly equals one of another split, whose
    perceptual hashes are `others`: of 128 plates two did, by chance."""
    rng, n, good = Generator(PCG64([config.seed, SPLITS.index(split), 97])), 0, config.good if split == "train" else GOOD
    while n < getattr(config, split):
        line, product, camera = int(rng.integers(1, 4)), demo.PRODUCTS[int(rng.integers(4))], int(rng.integers(1, 3))
        before, after = int(n * good), int((n + 1) * good)                    # good ones among the first n, and with this one
        kinds = () if after > before else (classes[(n - before) % len(classes)],)
        image_id = demo.image_id(int(rng.integers(1 << 40)), line, product, camera, kinds)
        drawn = demo.render(image_id)
        hash_ = alike.phash(drawn.image)
        boxes = tuple(Box(c, float(x1), float(y1), float(x2), float(y2)) for c, x1, y1, x2, y2 in drawn.boxes)
        if not alike.near([(image_id, hash_)], others):
            yield Picture(image_id, f"{split}/plate-{n:05d}.png", *drawn.image.size, hash_, boxes, split)
            n += 1
