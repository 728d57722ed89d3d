"""Dose and response: the metric against the number of synthetic images or of real labels, and what one is worth in the other.

Stands on `paired.measure`: all points come from the same draws of images. Knows nothing of how an arm got its images, of runs or of the
store.

The equivalence is read off the curve of real labels, straight between its points over the logarithm of their number, as learning curves
nearly are. The curve may not fall: where a draw has it falling, points are pooled until it does not. Nothing is read beyond its ends.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backend.evaluation.intervals import LEVEL, estimate, spread
from backend.evaluation.paired import Measured


def points(measured: Measured, doses: Mapping[str, int]) -> list[dict[str, Any]]:
    """`doses`: arm -> images of the kind that is dosed. From the least: dose, arm, mean, low, high, seeds."""
    found = []
    for arm, dose in sorted(doses.items(), key=lambda pair: pair[1]):
        mean = estimate([measured.arms[arm][..., :1]], measured.groups).intervals()[0]
        found.append(dict(dose=dose, arm=arm, mean=mean.difference, low=mean.low, high=mean.high, seeds=len(measured.arms[arm])))
    return found


def equivalent(measured: Measured, labels: Mapping[str, int], arm: str, base: int, synthetic: int, seed: int = 0) -> dict[str, Any] | None:
    """How many real labels more would have done what so many synthetic images did: '200 synthetic ≈ 60 real labels [20, 140].'

    `labels`: arm without synthetic images -> its real labels, at least two arms. `arm` has `base` labels and `synthetic` images.

        synthetic, base, real, low, high    numbers of images; an end that the curve does not reach is None
        sentence

    None where the curve of real labels does not reach so far itself.
    """
    real = sorted(labels, key=lambda name: labels[name])
    assert len(real) > 1 and min(labels.values()) > 0 and len(set(labels.values())) == len(real), "two numbers of labels or more"
    height = _drawn(measured, [*real, arm], np.random.default_rng(seed))                               # (1 + rounds, arms + 1)
    worth = _read(_rising(height[:, :-1]), np.array([labels[name] for name in real]), height[:, -1]) - base
    if not np.isfinite(worth[0]):
        return None
    ordered, outside = np.sort(worth[1:]), int((1 - LEVEL) / 2 * (len(worth) - 1))
    low, high = float(ordered[outside]), float(ordered[-1 - outside])
    found = dict(synthetic=synthetic, base=base, real=round(worth[0]), low=round(low) if np.isfinite(low) else None,
                 high=round(high) if np.isfinite(high) else None)
    return found | dict(sentence=_sentence(found, labels[real[0]] - base, labels[real[-1]] - base))


def _drawn(measured: Measured, arms: list[str], rng: np.random.Generator) -> np.ndarray:
    """(1 + rounds, arms): the mean of each arm's seeds, first as it is, then as other images (the same for all) and seeds would have it."""
    from scipy.special import stdtrit

    sides = [measured.arms[name][..., :1] for name in arms]
    seeds = spread(sides)
    means = np.concatenate([side.mean(axis=0) for side in sides], axis=1)
    moved = (means[1:] - means[1:].mean(axis=0)) * np.sqrt(measured.groups / max(measured.groups - 1, 1))
    stretch = stdtrit(seeds.freedom, (1 + LEVEL) / 2) / stdtrit(np.inf, (1 + LEVEL) / 2) if seeds.freedom else 0.0
    luck = stretch * np.sqrt(seeds.own / [len(side) for side in sides]) * rng.standard_normal(moved.shape)
    return np.concatenate([means[:1], means[:1] + moved + luck])


def _rising(height: np.ndarray) -> np.ndarray:
    """(rounds, arms) -> the nearest that do not fall from arm to arm, in least squares (Barlow et al., 1972: the max-min formula)."""
    n = height.shape[1]
    pooled = {(i, j): height[:, i:j + 1].mean(axis=1) for i in range(n) for j in range(i, n)}
    return np.stack([np.max([np.min([pooled[i, j] for j in range(k, n)], axis=0) for i in range(k + 1)], axis=0) for k in range(n)], axis=1)


def _read(height: np.ndarray, labels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How many labels reach the target (rounds,), by a curve of heights (rounds, arms); infinite, or minus that, beyond the curve."""
    after = (height < target[:, None]).sum(axis=1).clip(1, len(labels) - 1)                             # (rounds,) end of the piece
    rows = np.arange(len(target))
    start, end = height[rows, after - 1], height[rows, after]
    part = np.divide(target - start, end - start, out=np.zeros_like(target), where=end > start).clip(0, 1)       # a level piece
    count = labels[after - 1] * (labels[after] / labels[after - 1]) ** part
    return np.where(target < height[:, 0], -np.inf, np.where(target > height[:, -1], np.inf, count))


def _sentence(found: dict[str, Any], least: int, most: int) -> str:
    """'200 synthetic ≈ 60 real labels [20, 140].' `least` and `most`: how far the curve reaches."""
    low = f"{found['low']:,}" if found["low"] is not None else f"below {least:,}"
    high = f"{found['high']:,}" if found["high"] is not None else f"above {most:,}"
    if found["real"] <= 0:
        return f"{found['synthetic']:,} synthetic are worth no real labels: {found['real']:,} [{low}, {high}]."
    return f"{found['synthetic']:,} synthetic ≈ {found['real']:,} real label{'s' if found['real'] > 1 else ''} [{low}, {high}]."
