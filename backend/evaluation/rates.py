"""Shares of images that were rejected or passed, on the test images and on draws of them, fit for `intervals`.

Stands between `outcomes` and what is said of the reject bin: `agreement`, `cost`. Knows nothing of boxes, runs or the store.

Where none of 30 good parts was rejected, no draw of them holds one either, and an interval from 0 to 0 would promise that none ever will
be. So to each draw, not to the figure itself, are added some images that nobody has seen, now more and now fewer of either kind. On
average they are Agresti & Coull's "two successes and two failures" (The American Statistician 52, 1998), for a difference Bonett & Price's
one of each (J. Educ. Behav. Stat. 37, 2012). For none in n the interval then ends near 3/n, as the rule of three has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import ConfigError
from backend.evaluation.intervals import Groups, image_draws
from backend.evaluation.outcomes import Outcomes


@dataclass(frozen=True)
class Draws:
    """How often each image counts, first once each, then in draws; and by how many images a lot is counted."""

    weights: np.ndarray      # (1 + rounds, images)
    groups: int
    rng: np.random.Generator

    def unseen(self, each: int) -> np.ndarray:
        """(2, 1 + rounds) images of two kinds to add, this many of each on average, or so many lots; none to the figure itself."""
        more = self.rng.poisson(each, (2, len(self.weights))) * (self.weights.shape[1] / self.groups)
        more[:, 0] = 0
        return more


def draws(images: np.ndarray, groups: Groups, rounds: int, seed: int) -> Draws:
    rng = np.random.default_rng(seed)
    return Draws(*image_draws(images, groups, rounds, rng), rng)


def share(happened: np.ndarray, among: np.ndarray, weights: np.ndarray, more: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """(seeds, images, columns) bool -> (seeds, 1 + rounds, columns): how often it happened among these images (images,) bool.

    `more` (1 + rounds,) unseen images of which it happened to, and `whole` of which it might have. NaN where no such image was drawn.
    """
    taken = weights[:, among]                                                                           # (1 + rounds, these)
    times = np.einsum("ri,sic->src", taken, happened[:, among].astype(float), optimize=True) + more[:, None]
    total = taken.sum(axis=1) + whole                                                                   # (1 + rounds,)
    return np.divide(times, total[:, None], out=np.full(times.shape, np.nan), where=total[:, None] > 0)


def same_images(records: Sequence[Outcomes]) -> Outcomes:
    """The first of them. Raises ConfigError where they are of different images."""
    first = records[0]
    for other in records[1:]:
        if not (np.array_equal(first.images, other.images) and np.array_equal(first.defective, other.defective)):
            raise ConfigError("These models were scored on different images, or against different labels. Score all of them on the same.")
    return first
