"""Two periods beside one another: how far apart their rates are, with an interval, and what to make of it in plain words.

The interval of a difference of shares is Newcombe's (1998, method 10): honest near 0 %. Parts of one day resemble one another more than
those of two, so where days are told, the interval is widened by how much the days of the period before differ among themselves, with
Student's quantile, since few days tell that badly (of fewer than 5 it is not known). Of the period before alone: a change within the
period that is asked about is what one looks for, and no spread. 800 simulated pairs of equal periods, 7 or 28 days of 1,200 to 2,000 parts,
rates from day to day by 0, 15 or 30 % apart: the 95 % interval held zero in 95 to 98 %. Nothing here says why a rate moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from backend.quality import rates

FEWEST_DAYS = 5                # of fewer days nobody knows how much days differ
Days = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Difference:
    """Share now less share before, and where the true difference may lie. None where one of the two saw nothing."""

    now: rates.Rate
    before: rates.Rate
    value: float | None
    low: float
    high: float
    spread: float                      # by which factor that, and looking at many, widened the interval; 1: not at all
    uneven: bool                       # sure, if days did not differ among themselves

    @property
    def sure(self) -> bool:
        """Whether chance alone does not explain it."""
        return self.value is not None and (self.low > 0 or self.high < 0)


def difference(now: tuple[int, int], before: tuple[int, int], days_now: Days = (), days_before: Days = (), among: int = 1) -> Difference:
    """Of (defective, units) now and before; days: the same, day by day. `among`: so many are looked at together, and all of their
    intervals hold at once (Bonferroni), so that one of twenty kinds of defect is not called changed by chance every day."""
    a, b = rates.share(*now), rates.share(*before)
    if a.rate is None or b.rate is None:
        return Difference(a, b, None, -1.0, 1.0, 1.0, False)
    usual = (days_before, b.rate) if len(days_before) >= FEWEST_DAYS else (days_now, a.rate)
    value, alike = a.rate - b.rate, _alike(*usual)
    sure, flat = 1 - 0.025 / among, NormalDist().inv_cdf(1 - 0.025 / among) / rates.Z
    together = _student(sure, len(usual[0]) - 1) / rates.Z if alike else flat
    wide_a, wide_b = (together * _widening(days, alike) for days in (days_now or [now], days_before or [before]))
    low, high = _between(a, b, wide_a, wide_b)
    flat_low, flat_high = _between(a, b, flat, flat)
    uneven = low <= 0 <= high and not flat_low <= 0 <= flat_high
    return Difference(a, b, value, low, high, max(wide_a, wide_b), uneven)


def _between(a: rates.Rate, b: rates.Rate, wide_a: float, wide_b: float) -> tuple[float, float]:
    """Where a - b may lie; the distances of each share to its own limits are widened by its factor."""
    assert a.rate is not None and b.rate is not None
    low = a.rate - b.rate - float(np.hypot(wide_a * (a.rate - a.low), wide_b * (b.high - b.rate)))
    high = a.rate - b.rate + float(np.hypot(wide_a * (a.high - a.rate), wide_b * (b.rate - b.low)))
    return max(low, -1.0), min(high, 1.0)


def _student(sure: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, sure))


def _alike(days: Days, rate: float) -> float:
    """How much more parts of one day resemble one another than parts of two: the correlation within days, 0 where it is not known. From
    Pearson's statistic, which for days of m parts is 1 + (m - 1) times that correlation, over its degrees of freedom."""
    seen = np.array([(k, n) for k, n in days if n], float)
    if len(seen) < FEWEST_DAYS or not 0 < rate < 1:
        return 0.0
    k, n = seen.T
    statistic = float(((k - n * rate) ** 2 / (n * rate * (1 - rate))).sum())
    return min(max((statistic / (len(seen) - 1) - 1) / max(float(n.mean()) - 1, 1.0), 0.0), 1.0)


def _widening(days: Days, alike: float) -> float:
    """By which factor that widens the interval of a share over these days."""
    n = np.array([size for _, size in days], float)
    return float(np.sqrt(1 + ((n**2).sum() / n.sum() - 1) * alike))


def sentence(found: Difference, then: str = "before") -> str:
    """'1.4 points more than before (2.9 %): surely more, by 0.7 to 2.2 points'; `then`: what the other period is called."""
    if found.value is None or found.before.rate is None:
        return f"nothing to compare with {then}" if found.now.n else "nothing was inspected"
    usual = rates.percent(found.before.rate)
    if found.sure:
        more = "more" if found.value > 0 else "fewer"
        nearest, farthest = sorted((abs(found.low), abs(found.high)))
        return f"{points(found.value)} {more} than {then} ({usual}): surely {more}, by {_points(nearest)} to {points(farthest)}"
    said = f"about as {then} ({usual})" if round(abs(found.value) * 100, 2) < 0.05 else \
        f"{points(found.value)} {'more' if found.value > 0 else 'fewer'} than {then} ({usual})"
    why = "not sure, for days differ as much among themselves" if found.uneven else "chance alone explains that"
    return f"{said}: {why} (between {points(found.low)} fewer and {points(found.high)} more)"


def points(share: float) -> str:
    """'1.4 points', of a difference of percentages."""
    return f"{_points(share)} points"


def _points(share: float) -> str:
    size = abs(share) * 100
    return f"{size:.{0 if size >= 10 else 1 if size >= 0.1 or not size else 2}f}"
