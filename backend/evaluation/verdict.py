"""What a comparison of two recipes comes to, in one word and one sentence: better, worse, no difference, or not enough evidence.

Stands on `paired`. From both arms' records, one per seed, to what a page shows: the sentence, which classes gain and which lose, and
how many more seeds would settle it. Knows nothing of runs, thresholds or the store.

    better, worse         the 95 % interval leaves out zero; of several arms against one baseline all intervals hold together
    no difference         all of it lies within the margin, a point of map50 unless said otherwise: less than one would act on. Or the
                          runs found the very same
    not enough evidence   neither. One seed a side never is enough: it cannot tell a recipe from its luck

Below five seeds it is provisional: in `tests.benchmarks.comparison` intervals hold what they promise from two seeds on, but the spread
between so few is hardly known, and they are wide or lucky.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.evaluation.intervals import Groups
from backend.evaluation.paired import Comparison, compare
from backend.evaluation.scored import Scored

MARGIN = 0.01                # a difference smaller than this is none that matters
SEEDS = 5                    # from here on a verdict is no longer provisional
LIKELY = 0.8                 # so likely should the stated number of seeds settle the matter,
WORTHWHILE = 0.7             # and this likely at least, or none is stated
EVENLY = (np.arange(24) + 0.5) / 24                                # shares that stand for a whole distribution
STEPS = [*range(1, 11), 12, 15, 20, 25, 30, 40, 50, 75, 100]      # numbers of seeds that are worth telling apart

BETTER, WORSE, SAME, OPEN = "better", "worse", "no difference", "not enough evidence"


@dataclass(frozen=True)
class Settings:
    """What a verdict is measured by."""

    metric: str = "map50"
    margin: float = MARGIN
    rounds: int = 1000        # the width of an interval is then known to a fiftieth
    seed: int = 0


def verdict(a: Sequence[Scored], b: Sequence[Scored], names: tuple[str, str], groups: Groups = None,
            settings: Settings = Settings()) -> dict[str, Any]:
    """Of `a` against `b`, one record per seed: an entry of comparison.json's `differences`. Raises ConfigError as `compare` does."""
    return told(compare(a, b, settings.metric, settings.rounds, settings.seed, groups), names, settings.margin)


def told(found: Comparison, names: tuple[str, str], margin: float = MARGIN) -> dict[str, Any]:
    """A comparison as comparison.json has it, in shares of 1."""
    word = judged(found, margin)
    entry = dict(a=names[0], b=names[1], metric=found.metric, difference=found.difference, low=found.low, high=found.high,
                 seeds=list(found.seeds), images=found.images, groups=found.groups, margin=margin, verdict=word,
                 among=found.among,
                 provisional=min(found.seeds) < SEEDS, more_seeds=more_seeds(found, margin) if word == OPEN else None,
                 classes=_classes(found), helps=_moved(found, 1), hurts=_moved(found, -1))
    return entry | dict(sentence=sentence(entry))


def judged(found: Comparison, margin: float) -> str:
    """The verdict's word."""
    if found.low == found.high == 0:
        return SAME
    if max(found.seeds) == 1:
        return OPEN
    if -margin <= found.low and found.high <= margin:
        return SAME
    return BETTER if found.low > 0 else WORSE if found.high < 0 else OPEN


def more_seeds(found: Comparison, margin: float) -> int | None:
    """About how many more of each side would settle it; None where even a hundred may not, and more test images are what is wanted.

    The fewest that do so four times in five or, where no number gets that far, nearly as often as a hundred would.
    """
    enough = max(SEEDS - min(found.seeds), 1)
    if max(found.seeds) == 1:
        return enough                                                     # nothing is known of the spread between seeds
    likely = {more: settles(found, margin, more) for more in STEPS if more >= enough}
    most = max(likely.values())
    return next(more for more, chance in likely.items() if chance >= min(LIKELY, 0.9 * most)) if most >= WORTHWHILE else None


def settles(found: Comparison, margin: float, more: int) -> float:
    """How likely, with this many more seeds a side, the interval would leave out zero or lie within the margin.

    The difference itself will move as seeds are added, as it is reckoned for the predictive power of trials (Spiegelhalter et al.,
    Controlled Clinical Trials 7, 1986). How far depends on the spread of seeds, which a few hardly tell: all that it may well be is gone
    through. Where it is wider than it was seen to be, more seeds will show so, and the interval shrinks less. To take the spread as it was
    seen promised too much, for a number is named rather where, by chance, it was seen too small: of simulated experiments with two seeds a
    side 69 % were settled where 81 % were foreseen; it is 76 % and 79 % now.
    """
    from scipy.special import chdtri, ndtr

    doubt, later = found.doubt, [n + more for n in found.seeds]
    freedom, added = doubt.luck.freedom, 2 * more
    true = freedom / chdtri(freedom, EVENLY)                              # variance of seeds over the one seen, each as likely as the next
    half = doubt.varied((freedom + added * true) / (freedom + added)).half(*later, share=found.share)
    moves = np.sqrt(doubt.luck.per_seed * true * sum(1 / n - 1 / k for n, k in zip(found.seeds, later, strict=True)))

    def below(edge: np.ndarray) -> np.ndarray:
        """How likely the difference will lie below this edge."""
        where = edge - found.difference
        return np.asarray(ndtr(np.divide(where, moves, out=np.copysign(np.full_like(where, np.inf), where), where=moves > 0)))

    inner = np.clip(margin - half, 0, half)                               # differences this small would be called none
    return float(np.mean(below(-half) + (1 - below(half)) + (below(inner) - below(-inner))))


def sentence(entry: dict[str, Any]) -> str:
    """'Synthetic adds 4.1 map50 [1.2, 7.0], 5 seeds: helps scratches, hurts pits.'"""
    few, many = sorted(entry["seeds"])
    seeds = f"{few if few == many else f'{few} and {many}'} seed{'s' if many > 1 else ''}"
    moved = [f"{verb} {_listed(entry[verb])}" for verb in ("helps", "hurts") if entry[verb] and len(entry["classes"]) > 1]
    core = f"{_amount(entry)}, {seeds}" + (f": {', '.join(moved)}" if moved else "")
    if entry["verdict"] == SAME and entry["low"] == entry["high"]:
        return f"No difference: {entry['a']} and {entry['b']} found the same on every test image, {seeds}."
    points = f"{100 * entry['margin']:g} point{'' if entry['margin'] == 0.01 else 's'}"
    opened = {SAME: f"No difference that matters, all within {points}: ", OPEN: f"{_wanted(entry)}: "}.get(entry["verdict"], "")
    return _capital(f"{opened}{core}.") + (f" Provisional: fewer than {SEEDS} seeds are only indicative." if entry["provisional"] else "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _wanted(entry: dict[str, Any]) -> str:
    more = entry["more_seeds"]
    if more is None:
        return f"{OPEN}, and more seeds alone may not give it; more test images would help"
    return f"{OPEN}, about {more} more seed{'s' if more > 1 else ''} needed"


def _amount(entry: dict[str, Any]) -> str:
    """'synthetic adds 4.1 map50 [1.2, 7.0]'; what is lost is told as a loss, and so is its interval. One that may be a gain as well is told
    with its sign: 'with synthetic, map50 changes by -5.3 [-30.2, 19.7]'."""
    if entry["difference"] < 0 <= entry["high"]:
        change, low, high = (_points(entry[side]) for side in ("difference", "low", "high"))
        return f"with {entry['a']}, {entry['metric']} changes by {change} [{low}, {high}]"
    verb, low, high = ("adds", entry["low"], entry["high"]) if entry["difference"] >= 0 else ("loses", -entry["high"], -entry["low"])
    return f"{entry['a']} {verb} {_points(abs(entry['difference']))} {entry['metric']} [{_points(low)}, {_points(high)}]"


def _points(share: float) -> str:
    """Points of a hundred with one digit, and a second where one would say 0.0 of what is not zero."""
    return f"{100 * share + 0.0:.{1 if abs(share) >= 0.0005 or share == 0 else 2}f}"


def _listed(classes: list[str]) -> str:
    *most, last = (c.replace("_", " ") for c in classes)
    return f"{', '.join(most)} and {last}" if most else last


def _classes(found: Comparison) -> dict[str, dict[str, float]]:
    """`low_all` and `high_all` hold for all classes together, `low` and `high` for each alone."""
    return {c: dict(difference=i.difference, low=i.low, high=i.high, low_all=found.corrected[c].low, high_all=found.corrected[c].high)
            for c, i in found.classes.items()}


def _moved(found: Comparison, sign: int) -> list[str]:
    """Classes that gain (1) or lose (-1) for certain, in all classes' corrected intervals; of one seed a side nothing is certain."""
    sure = {c: min(sign * i.low, sign * i.high) > 0 for c, i in found.corrected.items()}
    return [c for c, is_sure in sure.items() if is_sure and max(found.seeds) > 1]
