"""Rates of what the model says, with 95 % intervals that are honest where counts are small: good first time, defects per unit, PPM.

What is true behind them is `truth`.
"""

from dataclasses import dataclass

import numpy as np

from backend.errors import ConfigError

Z = 1.959964


@dataclass(frozen=True)
class Rate:
    """k of n, and where the rate behind it may lie. `rate` is None where nothing was seen."""

    k: int
    n: int
    rate: float | None
    low: float
    high: float


def share(k: int, n: int, exact: bool = False) -> Rate:
    """k units of n: Wilson's interval, or the exact one (Clopper & Pearson, 1934), which covers 95 % or more whatever the rate is."""
    check(k, n)
    if not n:
        return Rate(k, n, None, 0.0, 1.0)
    low, high = exact_interval(k, n) if exact else wilson(k, n)
    return Rate(k, n, k / n, low, high)


def good_first_time(units: int, defective: int) -> Rate:
    """Units that no inspection rejected, of those begun: not one minus scrap, for a unit that was reworked was not good first time."""
    return share(units - defective, units)


def ppm(units: int, defective: int) -> Rate:
    """Defective units in a million, with the exact interval: where PPM are spoken of, counts are small."""
    found = share(defective, units, exact=True)
    return Rate(defective, units, None if found.rate is None else found.rate * 1e6, found.low * 1e6, found.high * 1e6)


def defects_per_unit(units: int, defects: int) -> Rate:
    """DPU, with the exact interval of a Poisson count (Garwood, 1936)."""
    from scipy.special import chdtri

    if units < 0 or defects < 0:
        raise ConfigError("Units and defects are counts.")
    if not units:
        return Rate(defects, units, None, 0.0, float("inf"))
    low = float(chdtri(2 * defects, 0.975)) / 2 if defects else 0.0
    return Rate(defects, units, defects / units, low / units, float(chdtri(2 * defects + 2, 0.025)) / 2 / units)


def none_in(n: int, least: float | None = None) -> str:
    """Nothing found in n reads is not nothing there: 'none in 300 reads: at most 1.0 % (3/n)', with 95 % certainty.

    `least`: how many reads those of the part read least are worth, where not all parts were read alike.
    """
    if n < 1:
        return "no reads yet, so nothing is known"
    least = n if least is None or least > 0.95 * n else least
    most = min(3 / least, 1.0)
    return (f"none in {n:,} read{'s' if n > 1 else ''}: at most {percent(most)} "
            f"({'3/n' if least == n else f'3/{least:.0f}, by the part read least'})")


def check(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ConfigError(f"{k} of {n} is no share.")


def percent(rate: float) -> str:
    """1.3 %; two places below 1 %."""
    return f"{rate * 100:.{1 if rate >= 0.01 or not rate else 2}f} %"


def wilson(k: float, n: float) -> tuple[float, float]:
    p = k / n
    middle, half = (p + Z**2 / (2 * n)) / (1 + Z**2 / n), Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n))
    return max(float(middle - half), 0.0) if k else 0.0, min(float(middle + half), 1.0) if k < n else 1.0


def exact_interval(k: int, n: int) -> tuple[float, float]:
    from scipy.special import betaincinv

    return float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0


def needed(rate: float, half_width: float) -> int:
    """Units to read at random so that Wilson's interval about this rate is no wider than +- half_width."""
    if not 0 <= rate <= 1 or not 0 < half_width < 0.5:
        raise ConfigError("A rate lies between 0 and 1, the wanted half-width between 0 and 0.5.")
    low, high = 0, 1
    while _half(rate, high) > half_width:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _half(rate, middle) > half_width else (low, middle)
    return high


def _half(rate: float, n: int) -> float:
    low, high = wilson(rate * n, n)
    return (high - low) / 2
