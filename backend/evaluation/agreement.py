"""Two arms at their thresholds, image by image: which rejects more good parts, which misses more defects, and McNemar's test.

Stands on `outcomes` and `intervals`: what `verdict` is to boxes, this is to the reject bin. Thresholds come from val, with each run.
Where the test set holds no good part, false rejects cannot be measured, and so nothing is said of right and wrong verdicts as a whole.
Knows nothing of boxes, runs or the store.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.evaluation.intervals import Groups, estimate
from backend.evaluation.outcomes import Outcomes, Thresholds
from backend.evaluation.rates import Draws, draws, same_images, share

NO_GOOD = "No good parts in this test set: false rejects cannot be measured."

Arm = Sequence[tuple[Outcomes, Thresholds]]      # one per seed: what the run says of the test images, and from which confidence it rejects


def agreement(a: Arm, b: Arm, groups: Groups = None, rounds: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The part of comparison.json's `differences` that is about images. What cannot be measured is None; `no_good_text` says why.

        mcnemar         only_a, only_b, both, neither: images that the arms' majorities judge right; p (exact), mid_p
        false_rejects   a, b: share of good images rejected, the mean over seeds; difference, low, high; images
        missed          the same, of defective images that would pass as good

    Raises ConfigError where the arms are of different test images.
    """
    one = same_images([outcomes for arm in (a, b) for outcomes, _ in arm])
    rejected = [np.stack([outcomes.rejects(at) for outcomes, at in arm]) for arm in (a, b)]             # (seeds, images) each
    drawn, good = draws(one.images, groups, rounds, seed), ~one.defective
    return dict(mcnemar=_mcnemar(rejected, one.defective, drawn.groups) if good.any() else None,
                false_rejects=_difference(rejected, good, drawn),
                missed=_difference([~r for r in rejected], one.defective, drawn),
                no_good_text=None if good.any() else NO_GOOD)


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """Exact and mid-p value, both two-sided, of images that one of two judges alone has right (McNemar, Psychometrika 12, 1947).

    The mid-p test hardly ever exceeds its level, and sees more than the exact one (Fagerland, Lydersen & Laake, BMC Medical Research
    Methodology 13:91, 2013).
    """
    from scipy.special import bdtr

    fewer, both = min(only_a, only_b), only_a + only_b
    if not both:
        return 1.0, 1.0                                                  # the mid-p formula would say 0.5 of no evidence at all
    at_most = float(bdtr(fewer, both, 0.5))
    just = at_most - (float(bdtr(fewer - 1, both, 0.5)) if fewer else 0.0)
    return min(1.0, 2 * at_most), 1 - just / 2 if only_a == only_b else 2 * at_most - just


def _mcnemar(rejected: list[np.ndarray], defective: np.ndarray, groups: int) -> dict[str, Any]:
    """Of the arms' majorities. Images of one lot are not so many judgements: then the numbers stand without their p."""
    a, b = (_majority(r) == defective for r in rejected)
    told = dict(only_a=int((a & ~b).sum()), only_b=int((b & ~a).sum()), both=int((a & b).sum()), neither=int((~a & ~b).sum()))
    p, mid_p = mcnemar(told["only_a"], told["only_b"]) if groups == len(defective) else (None, None)
    return told | dict(p=p, mid_p=mid_p)


def _majority(rejected: np.ndarray) -> np.ndarray:
    """(seeds, images) -> (images,): at least half of the seeds reject it. Of two that differ the careful one counts."""
    return np.asarray(2 * rejected.sum(axis=0) >= len(rejected))


def _difference(happened: list[np.ndarray], among: np.ndarray, drawn: Draws) -> dict[str, Any] | None:
    """How often it happened (seeds, images) among these images, on each side, and the difference with its interval."""
    if not among.any():
        return None
    only = drawn.unseen(1)                                               # images that it happens to with one side alone
    sides = [share(side[..., None], among, drawn.weights, more, only.sum(axis=0)) for side, more in zip(happened, only, strict=True)]
    a, b = (float(side[:, 0].mean()) for side in sides)
    found = estimate(sides, drawn.groups).intervals()[0]
    return dict(a=a, b=b, difference=found.difference, low=max(found.low, -1.0), high=min(found.high, 1.0), images=int(among.sum()))
