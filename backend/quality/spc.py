"""Control charts: limits from subgroups of a stable period (Phase I), and where any subgroup lies against them (Phase II).

`fit` makes Limits, `draw` turns counts and Limits into a Chart, whose standardised values `rules` looks at. Which period is
stable, and who says so, is the business of `stages`.

    p   share of units defective      center +- width * sqrt(center (1 - center) / n): limits step with the subgroup's size
    u   defects per unit              center +- width * sqrt(center / n); a c chart is this with n = 1
    p'  u'                            as above, times sigma z (Laney, Quality Engineering 14, 2002): spread beyond chance allowed for
    i   single values                 mean +- width * (mean moving range / 1.128)
    g   good units between defects    probability limits of the geometric distribution. Three standard errors would leave no
                                      lower limit, and short gaps are what one wants to see
    t   time between defects          limits of single values on time ** (1 / 3.6), which makes waiting times nearly normal (Nelson,
                                      JQT 26, 1994)

With a weight below 1, any of them is an EWMA (exponentially weighted moving average) of the standardised values, for small shifts
that last. A limit that nothing can cross (a share below 0) is NaN: there is none. Formulas otherwise as in Montgomery, Introduction to
Statistical Quality Control, 8th ed., ch. 6, 7 and 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Any

import numpy as np

from backend.errors import ConfigError

Array = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = Sequence[float] | np.ndarray[Any, np.dtype[Any]]

D2, D4 = 1.128, 3.267          # mean range of two normal values, and its upper limit; rounded as in every table, for checks by hand
NELSON = 1 / 3.6


@dataclass(frozen=True)
class Kind:
    """One kind of chart. `worse`: the side on which things get worse, where the kind says so."""

    words: str
    worse: str                 # above | below | ''
    sized: bool                # counts come with the size of their subgroup


KINDS = {
    "p": Kind("Share of units defective (p)", "above", True),
    "u": Kind("Defects per unit (u)", "above", True),
    "p'": Kind("Share of units defective, extra spread allowed for (p′)", "above", True),
    "u'": Kind("Defects per unit, extra spread allowed for (u′)", "above", True),
    "i": Kind("Single values (I-MR)", "", False),
    "g": Kind("Good units between defects (g)", "below", False),
    "t": Kind("Time between defects (t)", "below", False),
}


@dataclass(frozen=True)
class Limits:
    """What a chart needs to judge any subgroup. Plain numbers: it goes to JSON and back as it is."""

    kind: str
    center: float              # of g the chance that a unit is defective; of t the mean of time ** (1 / 3.6)
    sigma: float = 1.0         # of i and t the standard deviation; of p' and u' sigma z
    subgroups: int = 0         # how many they rest on
    weight: float = 1.0        # of the newest subgroup; 1: each stands for itself
    width: float = 3.0         # in standard errors

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"There is no control chart {self.kind!r}; there are {', '.join(KINDS)}.")
        if not 0 < self.weight <= 1 or not self.width > 0:
            raise ConfigError("The weight of the newest subgroup lies between 0 and 1, the width of the limits above 0.")


@dataclass(frozen=True)
class Chart:
    """Points as they are drawn, all (n,). With weight < 1 they are averages of standard errors, but of kind i averages of values."""

    limits: Limits
    value: Array
    center: Array
    low: Array                 # NaN: there is none
    high: Array
    z: Array                   # in standard errors; outside the limits is |z| > width
    moving_range: Array | None = None        # of kind i: from the second point on, the first is NaN
    range_high: float | None = None


def fit(kind: str, counts: Numbers, sizes: Numbers | None = None, keep: Numbers | None = None, weight: float = 1.0,
        width: float = 3.0) -> Limits:
    """Limits from subgroups of a stable period; `keep` False leaves one out. Raises ConfigError where there is nothing to go by."""
    limits = Limits(kind, 0.0, weight=weight, width=width)
    x, n = _checked(kind, counts, sizes)
    kept = np.ones(len(x), bool) if keep is None else np.asarray(keep, bool)
    if kept.sum() < 2:
        raise ConfigError("Limits need at least two subgroups.")
    center, sigma = _center(kind, x[kept], n[kept]), 1.0
    if kind in ("p'", "u'"):
        sigma = sigma_z(kind, x, n, kept)
    elif kind in ("i", "t"):
        sigma = _spread(_scaled(kind, x), kept)
    if not sigma > 0:
        raise ConfigError("All values of the period are the same. A chart needs values that vary.")
    return Limits(kind, center, sigma, int(kept.sum()), limits.weight, limits.width)


def draw(limits: Limits, counts: Numbers, sizes: Numbers | None = None) -> Chart:
    """Subgroups against limits. An EWMA starts at the centre."""
    x, n = _checked(limits.kind, counts, sizes)
    z = _standardised(limits, x, n)
    if limits.weight < 1:
        return _smoothed(limits, z)
    value = x / n if KINDS[limits.kind].sized else x
    low, center, high = (_at(limits, side * limits.width, n) for side in (-1, 0, 1))
    if limits.kind != "i":
        low = np.where(low > 0, low, np.nan)
    if limits.kind in ("p", "p'"):
        high = np.where(high < 1, high, np.nan)
    ranges = np.abs(np.diff(x, prepend=np.nan)) if limits.kind == "i" else None
    return Chart(limits, value, center, low, high, z, ranges, D4 * D2 * limits.sigma if limits.kind == "i" else None)


def sigma_z(kind: str, counts: Numbers, sizes: Numbers, keep: Numbers | None = None) -> float:
    """Spread from subgroup to subgroup, in units of what chance alone gives: 1 where the binomial or Poisson assumption holds."""
    x, n = _checked(kind, counts, sizes)
    kept = np.ones(len(x), bool) if keep is None else np.asarray(keep, bool)
    plain = Limits(kind[0], _center(kind, x[kept], n[kept]))
    return _spread(_standardised(plain, x, n), kept)


def _checked(kind: str, counts: Numbers, sizes: Numbers | None) -> tuple[Array, Array]:
    x = np.asarray(counts, float)
    n = np.asarray(sizes, float) if sizes is not None else np.ones(len(x))
    assert x.ndim == 1 and x.shape == n.shape, "one size for each count"
    if KINDS[kind].sized and not (n > 0).all():
        raise ConfigError("A subgroup without units cannot be charted. Leave it out.")
    if not np.isfinite(x).all() or (kind != "i" and (x < 0).any()) or (kind in ("p", "p'") and (x > n).any()):
        raise ConfigError("Some subgroups hold no number, a negative one, or more defective units than units.")
    return x, n


def _center(kind: str, x: Array, n: Array) -> float:
    if kind == "g":
        if not x.sum():
            raise ConfigError("No good unit lies between any two defects of the period. Count the share of defective units (p).")
        return float(len(x) / (x.sum() + len(x)))
    if not KINDS[kind].sized:
        return float(_scaled(kind, x).mean())
    center = float(x.sum() / n.sum())
    if center == 0 or (kind in ("p", "p'") and center == 1):
        raise ConfigError("No unit of the period is defective, or all are: such a period has no limits. For a defect as rare as that, "
                          "count the good units between two of them (g).")
    return center


def _scaled(kind: str, x: Array) -> Array:
    return x ** NELSON if kind == "t" else x


def _spread(values: Array, kept: Flags) -> float:
    """Mean moving range / 1.128, of neighbours both of which are kept."""
    ranges = np.abs(np.diff(values))[kept[1:] & kept[:-1]]
    return float(ranges.mean() / D2) if len(ranges) else 0.0


def _error(limits: Limits, n: Array) -> Array:
    """Standard error of each point, on the scale of `_scaled`."""
    variance = {"p": limits.center * (1 - limits.center), "u": limits.center}.get(limits.kind[0], 1.0)
    return np.sqrt(variance / n) * limits.sigma


def _standardised(limits: Limits, x: Array, n: Array) -> Array:
    if limits.kind == "g":
        return _gap_scores(limits.center, x)
    values = x / n if KINDS[limits.kind].sized else _scaled(limits.kind, x)
    return (values - limits.center) / _error(limits, n)


def _at(limits: Limits, z: float, n: Array) -> Array:
    """The value that lies z standard errors from the centre; of g and t on their own scale, NaN below 0."""
    if limits.kind == "g":
        return np.full(len(n), _gap_at(limits.center, z))
    found = limits.center + z * _error(limits, n)
    return np.where(found > 0, found, np.nan) ** (1 / NELSON) if limits.kind == "t" else found


def _gap_scores(chance: float, gaps: Array) -> Array:
    """Gaps as normal scores, by the middle of each gap's step in the distribution, so that a gap of 0 is not minus infinity."""
    normal, log_over = NormalDist(), gaps * np.log1p(-chance) + np.log1p(-chance / 2)            # chance of a longer gap, and half of equal
    over, under = np.exp(log_over).clip(1e-300), (-np.expm1(log_over)).clip(1e-300)                # the smaller of the two keeps its digits
    return np.array([-normal.inv_cdf(o) if o < u else normal.inv_cdf(u) for o, u in zip(over.tolist(), under.tolist(), strict=True)])


def _gap_at(chance: float, z: float) -> float:
    over = NormalDist().cdf(-z)
    return float((np.log(over) - np.log1p(-chance / 2)) / np.log1p(-chance))


def _smoothed(limits: Limits, z: Array) -> Chart:
    weight = limits.weight
    average = np.array(list(accumulate(z.tolist(), lambda e, v: e + weight * (v - e), initial=0.0))[1:])
    error = np.sqrt(weight / (2 - weight) * (1 - (1 - weight) ** (2 * np.arange(1, len(z) + 1))))          # grows to its final width
    center, scale = (limits.center, limits.sigma) if limits.kind == "i" else (0.0, 1.0)
    half = limits.width * scale * error
    middle = np.full(len(z), center)
    return Chart(limits, center + scale * average, middle, middle - half, middle + half, average / error)


@dataclass(frozen=True)
class Dispersion:
    """Is there more spread between subgroups than chance explains? What a person looks at before choosing p' or u'."""

    subgroups: int
    sigma_z: float             # from neighbour to neighbour, in units of chance
    low: float                 # where chance alone puts sigma z in 95 of 100 periods as long as this one
    high: float
    overall: float             # spread about the mean, in units of chance: slow changes show here, and hardly in sigma z
    p_more: float              # chance of as much spread or more (chi-squared test of homogeneity)
    p_less: float

    @property
    def advice(self) -> str:
        """What it speaks for, in words."""
        said = f"From one subgroup to the next, values spread {self.sigma_z:.2f} times as much as chance alone explains"
        usual = f"{said} (chance gives {max(self.low, 0):.2f} to {self.high:.2f})"
        if self.p_more < 0.01 and self.sigma_z > self.high:
            return f"{usual}. Limits that allow for it raise fewer false alarms."
        if self.p_more < 0.01:
            return (f"{usual}, but over the whole period {self.overall:.2f} times: the level moved. Find out why first; "
                    "wider limits would only hide it.")
        if self.p_less < 0.01:
            return f"{usual}: less than chance allows. Are pictures counted twice, or several streams mixed in each subgroup?"
        return f"{usual}. Nothing speaks for wider limits."


def dispersion(kind: str, counts: Numbers, sizes: Numbers, keep: Numbers | None = None) -> Dispersion:
    """The evidence for or against p' (kind p or p') or u'. The range of sigma z: Cryer & Ryan, JQT 22, 1990."""
    from scipy.special import chdtr, chdtrc

    x, n = _checked(kind, counts, sizes)
    kept = np.ones(len(x), bool) if keep is None else np.asarray(keep, bool)
    found, m = sigma_z(kind, x, n, kept), int(kept.sum())
    z = _standardised(Limits(kind[0], _center(kind, x[kept], n[kept])), x, n)[kept]
    chi2, half = float((z**2).sum()), 1.96 * np.sqrt(0.8264 / (m - 1))
    return Dispersion(m, found, float(1 - half), float(1 + half), float(np.sqrt(chi2 / (m - 1))), float(chdtrc(m - 1, chi2)),
                      float(chdtr(m - 1, chi2)))
