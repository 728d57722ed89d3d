"""Are two detectors, or two recipes with several seeds each, really different on one test set?

Stands behind every comparison: of the benchmarks, and of two models on one page. Works from the records of `scored`, so a
comparison needs neither models nor images. Knows nothing of training, runs or the store.

The interval is a bootstrap's (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13, percentile): seeds are drawn
with replacement, then images, and both sides are judged on the same draw, so that a hard image is hard for both. Seeds and
images are crossed, not nested, which makes the interval a little too wide rather than too narrow (Owen, The pigeonhole
bootstrap, Ann. Appl. Stat. 1, 2007). Drawn pairs of equal recipes with three seeds had zero in their interval in 94 to 99 of 100
cases; in 89 where seeds made nearly all of the difference.

It says      how far the difference might move had other images of this kind been tested, and (from two seeds on) other seeds run.
It does not  say anything of other plants, cameras or defects than those of the test set; of other training images, for those
             were the same in all draws; nor, with one seed, whether the same recipe would win again. With two or three seeds the
             spread between seeds is itself hardly known: take an interval that just leaves out zero as a hint, not as proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import ConfigError
from backend.evaluation.scored import Scored, average_precision, by_iou

__all__ = ["METRICS", "Comparison", "Interval", "Scored", "average_precision", "compare"]

METRICS = {"map50": 1, "map50_95": 10}       # how many of the ten IoUs a metric averages over
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A difference (a minus b, in shares of 1) and where it may lie."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison(Interval):
    """`classes` holds each class at 95 %; `corrected` at 95 % for all of them together (Bonferroni: 5 % shared out among them)."""

    metric: str
    classes: dict[str, Interval]
    corrected: dict[str, Interval]
    seeds: tuple[int, int]           # runs of a, runs of b
    images: int
    groups: int                      # what was drawn: as many as images where none belong together

    @property
    def covers(self) -> str:
        """What the interval covers, in words."""
        few, many = sorted(self.seeds)
        if few == 1:
            return f"{self.images} images; one seed, so it says nothing of how another training run would come out"
        return f"{few if few == many else f'{few} and {many}'} seeds and {self.images} images"


def compare(a: Sequence[Scored], b: Sequence[Scored], metric: str = "map50", rounds: int = 2000, seed: int = 0,
            groups: Sequence[Sequence[str]] | None = None) -> Comparison:
    """Is `a` better than `b`? One record per seed. Paired two-level bootstrap, 95 % percentile interval.

    Equally many seeds are paired by their place in the lists; else each side draws its own. `groups` lists names of images that
    belong together (a lot, a unit, a parent): they are drawn together, for ten pictures of one plate are not ten pieces of evidence.
    Raises ConfigError where the records are of different test sets.
    """
    assert a and b and metric in METRICS
    one = _same_test_set([*a, *b])
    rng, together = np.random.default_rng(seed), _grouped(one.images, groups)
    drawn = rng.multinomial(n := int(together.max()) + 1, np.full(n, 1 / n), size=rounds)          # (rounds, groups)
    weights = np.vstack([np.ones(len(together)), drawn[:, together]])                              # (1 + rounds, images); all once first
    sides = [np.stack([_figures(s, weights, METRICS[metric]) for s in arm]) for arm in (a, b)]     # (seeds, 1 + rounds, 1 + classes) each
    if len(a) == len(b):
        sides = [sides[0] - sides[1]]
    means = [_mean_of_seeds(side, rng) for side in sides]
    found = means[0] if len(means) == 1 else means[0] - means[1]                                   # (1 + rounds, 1 + classes)
    names = list(map(str, one.classes))
    overall, *each = _intervals(found, 1 - LEVEL)
    return Comparison(**vars(overall), metric=metric, classes=dict(zip(names, each, strict=True)),
                      corrected=dict(zip(names, _intervals(found, (1 - LEVEL) / len(names))[1:], strict=True)),
                      seeds=(len(a), len(b)), images=len(one.images), groups=n)


def _figures(scored: Scored, weights: np.ndarray, ious: int) -> np.ndarray:
    """(rounds, images) -> (rounds, 1 + classes): the mean over the classes that were drawn, then each class."""
    ap = by_iou(scored, weights, ious).mean(axis=0)
    drawn = ~np.isnan(ap)
    mean = np.where(drawn, ap, 0).sum(axis=1) / np.maximum(drawn.sum(axis=1), 1)
    return np.column_stack([np.where(drawn.any(axis=1), mean, np.nan), ap])


def _mean_of_seeds(side: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(seeds, 1 + rounds, …) -> (1 + rounds, …): the mean of all seeds first, then of seeds drawn anew each round.

    A draw of n seeds spreads by sqrt((n - 1) / n) too little, which is much where n is 3: stretched to make up for it (Rao & Wu,
    JASA 83, 1988, for the small strata of surveys). One seed does not spread at all.
    """
    n, rounds = side.shape[:2]
    picks = rng.multinomial(n, np.full(n, 1 / n), size=rounds)                                     # (1 + rounds, seeds)
    mean = side.mean(axis=0)
    drawn = np.einsum("rs,sr...->r...", picks / n, side)
    stretched = mean + np.sqrt(n / max(n - 1, 1)) * (drawn - mean)
    return np.concatenate([mean[:1], stretched[1:]])


def _intervals(found: np.ndarray, share: float) -> list[Interval]:
    """(1 + rounds, columns), the difference itself first -> one interval per column that leaves out this share of rounds."""
    low, high = np.nanquantile(found[1:], [share / 2, 1 - share / 2], axis=0)
    return [Interval(*map(float, column)) for column in zip(found[0], low, high, strict=True)]


def _same_test_set(records: Sequence[Scored]) -> Scored:
    first = records[0]
    if not first.boxes.any():
        raise ConfigError("The test images hold no labelled defect, so there is nothing to compare.")
    for other in records[1:]:
        if strange := set(first.images) ^ set(other.images):
            raise ConfigError(f"These models were scored on different test sets: {len(strange)} images are in only one of them, for "
                              f"instance {min(strange)}. Score all of them on the same images.")
        if not (np.array_equal(first.classes, other.classes) and np.array_equal(first.boxes, other.boxes)):
            raise ConfigError("These models were scored against different labels of the same images. Score all of them anew.")
    return first


def _grouped(images: np.ndarray, groups: Sequence[Sequence[str]] | None) -> np.ndarray:
    """Number of the group of each image (images,), from 0 without gaps; an image that no group names is one of its own."""
    row = {name: i for i, name in enumerate(map(str, images))}
    named = [name for group in groups or () for name in group]
    if unknown := [name for name in named if name not in row]:
        raise ConfigError(f"{unknown[0]} belongs to a group but not to the test images.")
    if len(set(named)) < len(named):
        raise ConfigError("An image stands in two groups, or twice in one. Each may stand in one, once.")
    number = np.arange(len(images))
    for group in groups or ():
        rows = [row[name] for name in group]
        number[rows] = min(rows, default=0)
    return np.unique(number, return_inverse=True)[1]
