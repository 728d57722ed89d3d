"""Are two detectors, or two recipes with several seeds each, really different on one test set?

Stands behind every comparison: of the benchmarks, and of two models on one page. Works from the records of `scored`, so a
comparison needs neither models nor images. Knows nothing of training, runs or the store.

Images are drawn with replacement, both sides judged on the same draw, so that a hard image is hard for both; how seeds come in is
told in `intervals`. Seeds are not paired: that two arms share a seed's number hardly makes them alike, and to take each side's spread
by itself doubles the degrees of freedom, which at five seeds are what is scarce.

It says      how far the difference might move had other images of this kind been tested, and (from two seeds on) other seeds run.
It does not  say anything of other plants, cameras or defects than those of the test set; of other training images, for those
             were the same in all draws; nor, with one seed, whether the same recipe would win again. With two or three seeds the
             spread between seeds is itself hardly known: take an interval that just leaves out zero as a hint, not as proof.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import ConfigError
from backend.evaluation.intervals import LEVEL, Doubt, Groups, Interval, estimate, image_draws
from backend.evaluation.scored import Scored, average_precision, by_iou

__all__ = ["METRICS", "Comparison", "Interval", "Measured", "Scored", "average_precision", "compare", "measure"]

METRICS = {"map50": 1, "map50_95": 10}       # how many of the ten IoUs a metric averages over


@dataclass(frozen=True)
class Comparison(Interval):
    """Where several arms are compared with one baseline, the interval holds at 95 % for all these arms together (Bonferroni: 5 % shared
    out among them). `classes` holds each class at as much; `corrected` all classes together, in the same way."""

    metric: str
    classes: dict[str, Interval]
    corrected: dict[str, Interval]
    seeds: tuple[int, int]           # runs of a, runs of b
    images: int
    groups: int                      # what was drawn: as many as images where none belong together
    doubt: Doubt                     # of the metric (one column)
    among: int = 1                   # arms that are compared with this baseline at once

    @property
    def share(self) -> float:
        """What the interval leaves out."""
        return (1 - LEVEL) / self.among

    @property
    def covers(self) -> str:
        """What the interval covers, in words."""
        few, many = sorted(self.seeds)
        if many == 1:
            return f"{self.images} images; one seed, so it says nothing of how another training run would come out"
        return f"{few if few == many else f'{few} and {many}'} seeds and {self.images} images"


@dataclass(frozen=True)
class Measured:
    """Some arms' figures on the same draws of images, which is what takes long; comparing any two of them does not."""

    arms: dict[str, np.ndarray]      # (seeds, 1 + rounds, 1 + classes) each: the mean over classes, then each class
    classes: list[str]
    metric: str
    images: int
    groups: int

    def compare(self, a: str, b: str, among: int = 1) -> Comparison:
        """Is `a`, one among so many arms that are asked about, better than `b`? The two may have other numbers of seeds."""
        sides, share = (self.arms[a], self.arms[b]), (1 - LEVEL) / among
        found = estimate(sides, self.groups)
        overall, *each = found.intervals(share)
        corrected = found.intervals(share / len(self.classes))[1:]
        return Comparison(**vars(overall), metric=self.metric, classes=dict(zip(self.classes, each, strict=True)),
                          corrected=dict(zip(self.classes, corrected, strict=True)), seeds=(len(sides[0]), len(sides[1])),
                          images=self.images, groups=self.groups, doubt=found.doubt.column(0), among=among)


def measure(arms: Mapping[str, Sequence[Scored]], metric: str = "map50", rounds: int = 1000, seed: int = 0,
            groups: Groups = None) -> Measured:
    """Each arm's records, one per seed, on draws of the images.

    `groups` lists names of images that belong together (a lot, a unit, a parent): they are drawn together, for ten pictures of one
    plate are not ten pieces of evidence. Raises ConfigError where the records are of different test sets.
    """
    assert all(arms.values()) and metric in METRICS
    one = same_test_set([scored for arm in arms.values() for scored in arm])
    weights, n = image_draws(one.images, groups, rounds, np.random.default_rng(seed))
    return Measured({name: figures(arm, weights, metric) for name, arm in arms.items()}, list(map(str, one.classes)), metric,
                    len(one.images), n)


def compare(a: Sequence[Scored], b: Sequence[Scored], metric: str = "map50", rounds: int = 1000, seed: int = 0,
            groups: Groups = None) -> Comparison:
    """Is `a` better than `b`? One record per seed; see `measure` and `Measured.compare`."""
    return measure({"a": a, "b": b}, metric, rounds, seed, groups).compare("a", "b")


def figures(arm: Sequence[Scored], weights: np.ndarray, metric: str) -> np.ndarray:
    """Weights (rounds, images) -> (seeds, rounds, 1 + classes): the mean over the classes that were drawn, then each class."""
    ap = np.stack([by_iou(scored, weights, METRICS[metric]).mean(axis=0) for scored in arm])
    there = ~np.isnan(ap)
    mean = np.where(there, ap, 0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
    return np.concatenate([np.where(there.any(axis=-1), mean, np.nan)[..., None], ap], axis=-1)


def same_test_set(records: Sequence[Scored]) -> Scored:
    """The first of them. Raises ConfigError where they are of different test sets, or of one without defects."""
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
