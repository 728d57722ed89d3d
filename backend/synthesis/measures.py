"""How far, how copied, how varied: the figures of `quality` and `search` as plain arithmetic on feature vectors.

Stands below both; arrays in, numbers out. Knows nothing of pictures, networks or files.

Distance is the kernel distance KID (Bińkowski et al. 2018, arXiv 1801.01401, section 3): the unbiased squared MMD with the kernel
(x·y/d + 1)³. Zero means that no difference is seen, a little below zero too.

Its interval holds all true values q that the estimate does not speak against: it may lie from q by as much as its variance at q
lets it, which is c q + s. c is the spread of single pictures' terms (the first order of Hoeffding's expansion), which is in
proportion to q; s, that of pairs (the second order), is left where there is no difference (as in Gretton et al. 2012, JMLR 13,
theorem 8 and 12). Student's t, by Welch's degrees of freedom. Measured, for 8 to 100 pictures a side: 90 to 97 of 100 intervals held
the truth, on features of real surfaces and on drawn ones, be there no difference, slight noise, or another class. The usual
estimate ± t errors falls to 83 where the difference is small; the bootstrap (percentile, basic) rises to 100 where there is none.
Pictures made from one parent are not independent: pairs within a group are left out, and the error counts groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit
from scipy.stats import betabinom

Vectors = np.ndarray[Any, np.dtype[Any]]

LEVEL = 0.95             # of intervals
COPIED = 0.01            # of real pictures lie nearer than this to another one
MANY = 0.05              # of made ones: fewer copies are no fault, whatever chance would make. Our choice
SPLITS = 500             # of real pictures, to see what chance does
ROWS = 128               # of vectors whose distances are worked out at once


@dataclass(frozen=True)
class Estimate:
    """A figure, and where it may lie."""

    value: float
    low: float
    high: float


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Of independent ones, each with the same weight. Its ends from theirs, each side for itself (Zou & Donner 2008, "MOVER")."""
    value, low, high = np.array([(e.value, e.low, e.high) for e in estimates]).T
    n, middle = len(estimates), float(value.mean())
    return Estimate(middle, middle - float(np.hypot.reduce(value - low)) / n, middle + float(np.hypot.reduce(high - value)) / n)


# ---- distance

def kernel(a: Vectors, b: Vectors) -> Vectors:
    """(n, d) and (m, d) to (n, m)."""
    assert a.shape[1] == b.shape[1], f"features of one network: {a.shape}, {b.shape}"
    return np.asarray((a.astype(np.float64) @ b.T.astype(np.float64) / a.shape[1] + 1) ** 3)


def kid(made: Vectors, real: Vectors, of_made: Sequence[Any] | None = None, of_real: Sequence[Any] | None = None) -> Estimate:
    """Distance of features (n, d) from features (m, d). `of_made`, `of_real`: what group each is of; none: each stands for itself."""
    groups = [_numbered(names, len(x)) for names, x in ((of_made, made), (of_real, real))]
    own, across = [kernel(x, x) for x in (made, real)], kernel(made, real)                   # (n, n) and (m, m), (n, m)
    within = [_within(k, g) for k, g in zip(own, groups, strict=True)]
    value = sum(w[0] for w in within) - 2 * float(across.mean())
    terms = [w[1] - 2 * (across.mean(axis) - across.mean()) / len(w[1]) for w, axis in zip(within, (1, 0), strict=True)]
    sides = [_spread_of(t, g) for t, g in zip(terms, groups, strict=True)]
    first, small = sum(v for v, _ in sides), sum(v**2 / (n - 1) for v, n in sides)
    biased = float(own[0].mean() + own[1].mean() - 2 * across.mean())                        # what the terms' spread is in proportion to
    return _interval(value, first / biased if biased > 0 else 0.0, _paired(own, across, groups), first**2 / small if small else np.inf)


def _interval(value: float, c: float, s: float, freedom: float) -> Estimate:
    """All q with (value - q)² <= t² (c q + s)."""
    t = float(stdtrit(max(1.0, freedom), (1 + LEVEL) / 2)) if np.isfinite(freedom) else float(ndtri((1 + LEVEL) / 2))
    middle = value + t**2 * c / 2
    reach = max(0.0, t**2 * (c * value + t**2 * c**2 / 4 + s)) ** 0.5
    return Estimate(float(value), float(min(value, middle - reach)), float(max(0.0, value, middle + reach)))


def _numbered(names: Sequence[Any] | None, n: int) -> Vectors:
    assert names is None or len(names) == n, "a group for each"
    found = np.arange(n) if names is None else np.unique(np.asarray(names), return_inverse=True)[1]
    assert len(np.unique(found)) > 1, "two independent ones at least"
    return found


def _within(k: Vectors, groups: Vectors) -> tuple[float, Vectors]:
    """Mean of a kernel (n, n) over pairs of different groups, and by how much each of the n moves it (n,); these sum to zero."""
    apart = groups[:, None] != groups[None]                                                  # (n, n)
    value = float((k * apart).sum() / apart.sum())
    return value, 2 * ((k - value) * apart).sum(1) / apart.sum()


def _spread_of(terms: Vectors, groups: Vectors) -> tuple[float, int]:
    """Variance of the sum of terms (n,) of independent groups, and how many groups there are."""
    sums = np.bincount(groups, terms)
    n = len(sums)
    return float(n / (n - 1) * ((sums - sums.mean()) ** 2).sum()), n


def _paired(own: Sequence[Vectors], across: Vectors, groups: Sequence[Vectors]) -> float:
    """What pairs of groups add to the variance, where there is no difference or any."""
    total = 4 * float((_summed(across, *groups) ** 2).sum()) / across.size**2
    for k, g in zip(own, groups, strict=True):
        squares = _summed(k, g, g) ** 2                                                      # (groups, groups)
        total += 2 * float(squares.sum() - np.trace(squares)) / float((g[:, None] != g[None]).sum()) ** 2
    return total


def _summed(k: Vectors, rows: Vectors, columns: Vectors) -> Vectors:
    """A kernel, less the means of its rows and columns, summed over groups."""
    centred = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
    return np.asarray(np.eye(rows.max() + 1)[rows].T @ centred @ np.eye(columns.max() + 1)[columns])


def chance(real: Vectors, size: int, other: int, seed: int = 0) -> float:
    """The distance below which two samples of real pictures of one kind, of `size` and `other`, stay 95 times of 100.

    From splits of these sizes. Where there are fewer pictures, from halves, brought to these sizes: where there is no difference, the
    distance is in proportion to 1/size + 1/other (Gretton et al. 2012, theorem 12). Measured on drawn features of 12 to 40 pictures: 5
    to 7 of 100 lie above it; of smaller samples as they are, it would be two to five times as far.
    """
    rng, k, n = np.random.default_rng(seed), kernel(real, real), len(real)
    first, second = (size, other) if size + other <= n else (n // 2, n - n // 2)
    smaller = (1 / size + 1 / other) / (1 / first + 1 / second)
    found = []
    for _ in range(SPLITS):
        order = rng.permutation(n)
        a, b = order[:first], order[first:first + second]
        found.append(_pairs(k[np.ix_(a, a)]) + _pairs(k[np.ix_(b, b)]) - 2 * k[np.ix_(a, b)].mean())
    return smaller * float(np.quantile(found, LEVEL))


def _pairs(k: Vectors) -> float:
    n = len(k)
    return float((k.sum() - np.trace(k)) / (n * (n - 1)))


# ---- copies

@dataclass(frozen=True)
class Copies:
    """Nearest distances of made pictures to those learned from, beside what real pictures have."""

    distance: Vectors                # (n,) of each made one
    which: Vectors                   # (n,) the nearest, as a number among those learned from
    real: Vectors                    # (m,) of real ones, to the nearest that is another picture
    limit: float                     # 1 % of real ones are nearer; where they are less than 100, hardly any

    @property
    def copied(self) -> Vectors:
        return np.asarray(self.distance < self.limit)

    @property
    def counted(self) -> "Counted":
        return Counted(int(self.copied.sum()), len(self.distance), len(self.real))


@dataclass(frozen=True)
class Counted:
    """So many copies among so many made pictures, by a limit that so many real ones have set.

    The limit is a low quantile of few distances, so pictures that nobody copied lie below it more often than 1 in 100: new ones rank
    among the real ones by chance alone. 12 of 100 do beside 8 real ones, 3 beside 40, 1.1 beside 1,000.
    """

    copied: int
    made: int
    real: int

    @property
    def share(self) -> float:
        return self.copied / self.made

    @property
    def chance(self) -> float:
        """The share that counts as copies where none is one: the limit's mean rank among the real ones and a new one."""
        return self.rank / (self.real + 1)

    @property
    def rank(self) -> float:
        """Of the limit among the real ones, 1 the nearest: `np.quantile` lies between two of them."""
        return 1 + COPIED * (self.real - 1)


def copying(found: Sequence[Counted]) -> bool:
    """Whether so many copies are more than MANY, and more than chance makes 95 times of 100, all classes together.

    How far below the limit new pictures lie is a draw itself, alike for all of a class: their number is not binomial, but its mixture
    over that draw, beta-binomial.
    """
    copied, made = sum(c.copied for c in found), sum(c.made for c in found)
    if copied <= MANY * made:
        return False
    odds = np.ones(1)
    for c in found:
        odds = np.convolve(odds, betabinom.pmf(np.arange(c.made + 1), c.made, c.rank, c.real + 1 - c.rank))
    return bool(odds[copied:].sum() < 1 - LEVEL)


def copies(made: Vectors, known: Vectors, real: Vectors, of_known: Sequence[Any], of_real: Sequence[Any]) -> Copies:
    """Layouts of made (n, D) and real (r, D) pictures, and of those learned from (m, turns, D). A real one is not compared with its own
    group: itself and near copies."""
    distance, which = nearest(made, known)
    others, _ = nearest(real, known, np.asarray(of_real)[:, None] == np.asarray(of_known)[None])
    others = others[np.isfinite(others)]
    return Copies(distance, which, others, float(np.quantile(others, COPIED)) if len(others) else 0.0)


def nearest(of: Vectors, among: Vectors, without: Vectors | None = None) -> tuple[Vectors, Vectors]:
    """Distance of vectors (n, D), of length 1, to the nearest of (m, turns, D) in any turn, and which: (n,), (n,). `without` (n, m):
    never these; infinitely far where nothing is left."""
    likeness = np.empty((len(of), len(among)), np.float32)                                    # cosines
    for first in range(0, len(among), ROWS):
        some = np.asarray(among[first:first + ROWS], np.float32)                              # (ROWS, turns, D)
        found = np.asarray(of, np.float32) @ some.reshape(-1, some.shape[2]).T
        likeness[:, first:first + ROWS] = found.reshape(len(of), len(some), -1).max(2)
    if without is not None:
        likeness[without] = -np.inf
    which = likeness.argmax(1)
    return np.sqrt(np.maximum(0, 2 - 2 * likeness[np.arange(len(of)), which])), which


# ---- variety

def spread(features: Vectors) -> float:
    """Mean distance of all pairs of features (n, d)."""
    x = features.astype(np.float64)
    squares, n, total = (x**2).sum(1), len(x), 0.0
    for some in (slice(i, i + ROWS) for i in range(0, n, ROWS)):
        total += float(np.sqrt(np.maximum(0, squares[some, None] + squares[None] - 2 * x[some] @ x.T)).sum())
    return total / (n * (n - 1))
