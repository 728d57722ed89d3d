"""The operating point by cost: from which confidence to reject, when a missed defect costs so much and a good part thrown away so much.

Stands on `outcomes`. A threshold is chosen on val images and its cost told on test images, at the defect rate of the line, not of the
test set. An image stands for a part, and the defects of the test set for those of the line: where a line's are fainter, it costs more.
One threshold holds for all classes. Loads numpy alone at import, and takes a tenth of a second, so that it can be asked anew for each
price. Knows nothing of runs or the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.errors import ConfigError
from backend.evaluation.agreement import NO_GOOD
from backend.evaluation.detection import LOWEST_THRESHOLD
from backend.evaluation.intervals import Groups, Interval, estimate
from backend.evaluation.outcomes import Outcomes
from backend.evaluation.rates import Draws, draws, same_images, share

NO_DEFECTIVE = "No defective parts in this test set: missed defects cannot be measured."
PARTS = 1000
GRID = np.round(np.arange(LOWEST_THRESHOLD, 0.951, 0.01), 2)


@dataclass(frozen=True)
class Costs:
    """In one currency. `defect_rate`: share of the line's parts that are defective, inspected or not."""

    missed: float            # of a defective part that passes
    false_reject: float      # of a good part that is rejected
    defect_rate: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.missed, self.false_reject]).all() and min(self.missed, self.false_reject) >= 0):
            raise ConfigError("What a missed defect or a false reject costs is a number, 0 or more.")
        if not 0 < self.defect_rate < 1:
            raise ConfigError("The defect rate lies between 0 and 1: 0.02 for two defective parts in a hundred.")

    def of(self, missed: np.ndarray, false_rejects: np.ndarray) -> np.ndarray:
        """Shares of the defective parts and of the good ones -> expected cost per 1,000 parts."""
        return PARTS * (self.defect_rate * self.missed * missed + (1 - self.defect_rate) * self.false_reject * false_rejects)


def recommended(val: Outcomes, costs: Costs) -> float:
    """The threshold that costs least on these images: the middle of the range that does, the highest of several; at least 0.05.

    Raises ConfigError where val holds no good parts, or no defective ones.
    """
    for among, kind in ((~val.defective, "good"), (val.defective, "defective")):
        if not among.any():
            raise ConfigError(f"The val images hold no {kind} parts, so no threshold can be chosen by cost.")
    surest = val.score.max(axis=1).astype(float)
    edges = np.unique(np.concatenate([[0.0], surest, [1.0]]))                                           # between two, nothing changes
    missed, passed = (np.searchsorted(np.sort(surest[among]), edges[1:]) / among.sum() for among in (val.defective, ~val.defective))
    each = costs.of(missed, 1 - passed)                                                                 # (ranges,)
    best = each <= each.min() * (1 + 1e-9)
    last = int(np.flatnonzero(best)[-1])
    first = int(np.append(np.flatnonzero(~best[:last]), -1).max()) + 1
    return round(max(float(edges[first] + edges[last + 1]) / 2, LOWEST_THRESHOLD), 6)


def operating_point(val: Sequence[Outcomes], test: Sequence[Outcomes], costs: Costs, groups: Groups = None, rounds: int = 1000,
                    seed: int = 0) -> dict[str, Any]:
    """What an arm costs with each run (one per seed) at the threshold recommended for it.

        thresholds              one per run, chosen on its val images; None where they hold no good or no defective part
        cost, low, high         per 1,000 parts, on the test images; None where these hold no good or no defective part
        missed, false_rejects   shares of the defective and of the good test images, the mean over runs; None where there are none
        images, good_images, seeds
        text                    why something is None, else None

    Raises ConfigError where the runs are of different images.
    """
    one = same_images(test)
    told: dict[str, Any] = dict.fromkeys(("thresholds", "cost", "low", "high", "missed", "false_rejects", "text"))
    told |= dict(images=len(one.images), good_images=int((~one.defective).sum()), seeds=len(test))
    try:
        told["thresholds"] = [recommended(outcomes, costs) for outcomes in val]
    except ConfigError as e:
        return told | dict(text=str(e))
    rejects = np.stack([outcomes.rejects(at) for outcomes, at in zip(test, told["thresholds"], strict=True)])[..., None]
    for figure, happened, among in (("missed", ~rejects, one.defective), ("false_rejects", rejects, ~one.defective)):
        told[figure] = float(happened[:, among].mean()) if among.any() else None
    if told["missed"] is None or told["false_rejects"] is None:
        return told | dict(text=NO_GOOD if told["false_rejects"] is None else NO_DEFECTIVE)
    found = _expected(rejects, one.defective, costs, draws(one.images, groups, rounds, seed))[0]
    return told | dict(cost=found.difference, low=found.low, high=found.high)


def curve(test: Sequence[Outcomes], costs: Costs, groups: Groups = None, rounds: int = 200, seed: int = 0) -> dict[str, list[float]] | None:
    """Expected cost per 1,000 parts on the test images against the threshold, the mean over runs: threshold, cost, low, high.

    To look at, not to choose from. None where the test images hold no good part or no defective one.
    """
    one = same_images(test)
    if one.defective.all() or not one.defective.any():
        return None
    rejects = np.stack([outcomes.score.max(axis=1)[:, None] >= GRID for outcomes in test])              # (runs, images, thresholds)
    found = _expected(rejects, one.defective, costs, draws(one.images, groups, rounds, seed))
    return dict(threshold=GRID.tolist(), cost=[i.difference for i in found], low=[i.low for i in found], high=[i.high for i in found])


def _expected(rejects: np.ndarray, defective: np.ndarray, costs: Costs, drawn: Draws) -> list[Interval]:
    """(runs, images, columns) -> per column the cost of 1,000 parts, the mean over runs; it is never below nothing."""
    passed, unseen = drawn.unseen(2), drawn.unseen(2)
    missed = share(~rejects, defective, drawn.weights, passed[0], passed.sum(axis=0))
    false = share(rejects, ~defective, drawn.weights, unseen[0], unseen.sum(axis=0))
    found = estimate([costs.of(missed, false)], drawn.groups).intervals()
    return [Interval(i.difference, max(i.low, 0.0), i.high) for i in found]
