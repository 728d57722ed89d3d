"""How many false alarms a chart will give: what a person has to know before choosing more rules.

A process that does not change is run a thousand times for a thousand subgroups, each time with limits from a stable period of its own, as
long as the real one: limits that rest on 30 subgroups are uncertain themselves, which doubles some charts' false alarms (Quesenberry, JQT
25, 1993), and textbooks' "one in 370" leaves it out. Counts are drawn as counts, for with few defects a subgroup points lie above the
upper limit far more often than the normal 1 in 740. After an alarm the rules start anew, as a person does who has looked into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from backend.quality import rules as run_rules
from backend.quality.spc import D2, Array, Flags, Limits

RUNS = LENGTH = 1 << 10        # a million points: an alarm in 370 comes out within 2 %
FEW = 2.0                      # expected defects a subgroup; with 1, a point in 75 is above the limit by chance, and none can be below


@dataclass(frozen=True)
class FalseAlarms:
    """Of a process that has not changed."""

    every: float               # subgroups from one to the next, on average
    per_month: float

    @property
    def words(self) -> str:
        if self.per_month >= 1.05:
            return f"About {self.per_month:.2g} false alarms a month"
        months = 1 / self.per_month
        if months < 1.5:
            return "About 1 false alarm a month"
        return f"About one false alarm in {months:.0f} months" if months < 24 else f"About one false alarm in {months / 12:.0f} years"


def false_alarms(limits: Limits, rules: Sequence[str], per_month: float, size: float = 0.0) -> FalseAlarms:
    """What these rules will give with so many subgroups a month of about `size` units each. The first call takes half a second."""
    run_rules.check(rules, limits.weight)
    counted = limits.kind in ("p", "u") and size > 0
    center, units = (float(f"{limits.center:.3g}"), max(round(float(f"{size:.2g}")), 1)) if counted else (0.0, 0)     # few cases to keep
    every = run_length(tuple(sorted(rules)), limits.width, limits.weight, limits.kind if counted or limits.kind == "g" else "i",
                       limits.subgroups, center, units)
    return FalseAlarms(every, per_month / every)


def too_rare(limits: Limits, size: float) -> str:
    """What to chart instead, where a subgroup of this size sees too few defects for limits to mean anything; '' where it does not."""
    expected = limits.center * size
    if limits.kind[0] not in "pu" or expected >= FEW:
        return ""
    return (f"About {expected:.1f} are expected in a subgroup of {size:,.0f} units: too few for a chart of shares. Count the good units "
            "between two of them (g), or take longer subgroups.")


def calls(z: Array, rules: Sequence[str], width: float = 3.0) -> list[int]:
    """Points at which somebody would be called, if the rules forget what was before an alarm."""
    speaks = run_rules.spans(z, rules, width)
    ends = np.flatnonzero(speaks)
    found, last = [], -1
    for end, span in zip(ends.tolist(), speaks[ends].tolist(), strict=True):
        if end - last >= span:
            found.append(last := end)
    return found


def average_calls(z: Array, weight: float, width: float = 3.0) -> Flags:
    """The same of the EWMA of each row of standardised values (rows, n), which begins anew at the centre after an alarm: (rows, n)."""
    average, age, found = np.zeros(len(z)), np.zeros(len(z)), np.zeros(z.shape, bool)
    for i, column in enumerate(z.T):
        average, age = average + weight * (column - average), age + 1
        found[:, i] = out = np.abs(average) > width * np.sqrt(weight / (2 - weight) * (1 - (1 - weight) ** (2 * age)))
        average[out], age[out] = 0.0, 0.0
    return found


@lru_cache(maxsize=256)
def run_length(rules: tuple[str, ...], width: float = 3.0, weight: float = 1.0, kind: str = "i", subgroups: int = 0, center: float = 0.0,
               size: int = 0) -> float:
    """Points from one alarm to the next. Kind p and u draw counts, g waits between defects; any other is normal, as p' and u' are as far
    as one knows. Limits rest on so many subgroups; 0: they are exactly right."""
    z = _in_control(np.random.default_rng(0), kind, subgroups, center, size)                       # (runs, length)
    if weight < 1:
        return z.size / max(int(average_calls(z, weight, width).sum()), 1)
    apart = np.append(z, np.full((RUNS, 1), np.nan), axis=1)                                       # no rule reaches over into the next run
    return z.size / max(len(calls(apart.ravel(), rules, width)), 1)


def _in_control(rng: np.random.Generator, kind: str, subgroups: int, center: float, size: int) -> Array:
    shape, one = (RUNS, LENGTH), (RUNS, 1)
    if kind in ("p", "u"):
        guess = _counts(rng, kind, size * subgroups, center, one).clip(1) / (size * subgroups) if subgroups else np.full(one, center)
        variance = guess * (1 - guess) if kind == "p" else guess
        return (_counts(rng, kind, size, center, shape) / size - guess) / np.sqrt(variance / size)
    if kind == "g":
        from scipy.special import ndtri

        mean = rng.gamma(subgroups, 1 / subgroups, one) if subgroups else 1.0
        return -ndtri(np.exp(-rng.standard_exponential(shape) / mean))
    if not subgroups:
        return rng.standard_normal(shape)
    period = rng.standard_normal((RUNS, subgroups))
    sigma = np.abs(np.diff(period)).mean(axis=1, keepdims=True) / D2
    return (rng.standard_normal(shape) - period.mean(axis=1, keepdims=True)) / sigma


def _counts(rng: np.random.Generator, kind: str, size: int, center: float, shape: tuple[int, int]) -> Array:
    return np.asarray(rng.binomial(size, center, shape) if kind == "p" else rng.poisson(size * center, shape), float)
