"""Run rules: which points, or runs of points, are too unlikely to be chance. Violations are data, with words a person can read.

All rules look at standardised values (standard errors from the centre), so they hold for stepped limits as for straight ones. Each says,
for every point, how many points up to and including it speak (its span; 0: none). Spans that overlap or touch are one violation, whose `at`
is the point at which somebody would have been called. Definitions: Western Electric, Statistical Quality Control Handbook, 1956; Nelson,
JQT 16, 1984. A NaN breaks every run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from backend.errors import ConfigError
from backend.quality.spc import D2, D4, Array, Flags

Spans = np.ndarray[tuple[int], np.dtype[np.int64]]
Found = Iterator[tuple[str, Spans]]            # side (above | below | '') and spans


@dataclass(frozen=True)
class Violation:
    """Points first to last speak together; at point `at` one could first know. All are indices into the values given."""

    rule: str
    at: int
    first: int
    last: int
    side: str                  # above | below | ''
    words: str


@dataclass(frozen=True)
class Rule:
    words: str                 # to choose by
    told: str                  # of a violation; {n} points, on {side} of the centre, {more} than before
    find: Callable[[Array, float], Found]


def violations(z: Array, rules: Sequence[str], width: float = 3.0) -> list[Violation]:
    """Every violation of these rules in standardised values (n,), in the order in which they would have been noticed."""
    check(rules)
    found = [Violation(name, at, first, last, side, _tell(name, last - first + 1, side))
             for name in rules for side, spans in RULES[name].find(z, width) for at, first, last in _episodes(spans)]
    return sorted(found, key=lambda v: (v.at, rules.index(v.rule)))


def _tell(name: str, n: int, side: str) -> str:
    if name == "beyond" and n > 1:
        return f"{n} in a row {side} the limits"
    return RULES[name].told.format(n=n, side=side, more={"above": "higher", "below": "lower", "": ""}[side])


def spans(z: Array, rules: Sequence[str], width: float = 3.0) -> Spans:
    """For each point the shortest span of any rule that speaks there; 0 where none does."""
    check(rules)
    none = np.iinfo(np.int64).max
    shortest = np.full(len(z), none)
    for name in rules:
        for _, found in RULES[name].find(z, width):
            np.minimum(shortest, np.where(found > 0, found, none), out=shortest)
    return np.where(shortest < none, shortest, 0)


def check(rules: Sequence[str], weight: float = 1.0) -> None:
    """Raises ConfigError for a rule that does not exist, or does not suit an EWMA."""
    if not rules or any(r not in RULES for r in rules) or len(set(rules)) < len(rules):
        raise ConfigError(f"Choose at least one rule, each once, of: {', '.join(RULES)}.")
    if weight < 1 and tuple(rules) != ("beyond",):
        raise ConfigError("An EWMA carries earlier subgroups along, so runs are no sign of anything. It knows only the rule 'beyond'.")


def _episodes(spans: Spans) -> list[tuple[int, int, int]]:
    """(at, first, last) of each stretch of spans that overlap or touch."""
    ends = np.flatnonzero(spans)
    firsts = ends - spans[ends] + 1
    starts = np.flatnonzero(np.append([True] * bool(len(ends)), firsts[1:] > ends[:-1] + 1))
    stops = np.append(starts[1:], len(ends)) - 1 if len(ends) else starts
    return list(zip(ends[starts].tolist(), firsts[starts].tolist(), ends[stops].tolist(), strict=True))


# ---- the rules

def _beyond(z: Array, width: float) -> Found:
    yield "above", (z > width).astype(np.int64)
    yield "below", (z < -width).astype(np.int64)


def _one_side(z: Array, width: float, k: int) -> Found:
    yield "above", _runs(z > 0, k)
    yield "below", _runs(z < 0, k)


def _trend(z: Array, width: float, k: int) -> Found:
    step = np.diff(z, prepend=np.nan)
    for side, sign in (("above", 1), ("below", -1)):
        run = _runs(sign * step > 0, k - 1)
        yield side, np.where(run > 0, k, 0)


def _alternating(z: Array, width: float, k: int) -> Found:
    step = np.diff(z, prepend=np.nan)
    turns = np.append([False], step[1:] * step[:-1] < 0)[:len(z)]
    yield "", np.where(_runs(turns, k - 2) > 0, k, 0)


def _some_of(z: Array, width: float, k: int, m: int, beyond: float) -> Found:
    """k of m points in a row beyond so many standard errors, on one side; the newest of them is one."""
    for side, sign in (("above", 1), ("below", -1)):
        hits = np.flatnonzero(sign * z > beyond)
        found = np.zeros(len(z), np.int64)
        lengths = hits[k - 1:] - hits[:len(hits) - k + 1] + 1 if len(hits) >= k else hits[:0]
        found[hits[k - 1:]] = np.where(lengths <= m, lengths, 0)
        yield side, found


def _hugging(z: Array, width: float, k: int) -> Found:
    yield "", _runs(np.abs(z) < 1, k)


def _avoiding(z: Array, width: float, k: int) -> Found:
    yield "", _runs(np.abs(z) > 1, k)


def _jump(z: Array, width: float) -> Found:
    step = np.diff(z, prepend=np.nan)
    yield "above", np.where(step > D4 * D2, 2, 0)
    yield "below", np.where(step < -D4 * D2, 2, 0)


def _runs(flags: Flags, k: int) -> Spans:
    """k where the flags of a point and of the k - 1 before it all stand, else 0."""
    place = np.arange(1, len(flags) + 1)
    length = place - np.maximum.accumulate(np.where(flags, 0, place)) if len(flags) else place
    return np.where(length >= k, k, 0)


RULES = {
    "beyond": Rule("A point outside the limits", "One point {side} the limits", _beyond),
    "nine": Rule("Nine in a row on one side of the centre", "{n} in a row {side} the centre", partial(_one_side, k=9)),
    "eight": Rule("Eight in a row on one side of the centre", "{n} in a row {side} the centre", partial(_one_side, k=8)),
    "trend": Rule("Six in a row, each higher, or each lower, than the last", "{n} in a row, each {more} than the one before",
                  partial(_trend, k=6)),
    "alternating": Rule("Fourteen in a row, up and down in turn", "{n} in a row, up and down in turn: do two streams alternate?",
                        partial(_alternating, k=14)),
    "two of three": Rule("Two of three more than 2 standard errors out, on one side",
                         "Two of three far {side} the centre (2 standard errors)", partial(_some_of, k=2, m=3, beyond=2.0)),
    "four of five": Rule("Four of five more than 1 standard error out, on one side",
                         "Four of five {side} the centre by more than 1 standard error", partial(_some_of, k=4, m=5, beyond=1.0)),
    "hugging": Rule("Fifteen in a row within 1 standard error", "{n} in a row close to the centre: are streams mixed, or limits too old?",
                    partial(_hugging, k=15)),
    "avoiding": Rule("Eight in a row, none within 1 standard error", "{n} in a row, none close to the centre: are two processes mixed?",
                     partial(_avoiding, k=8)),
    "jump": Rule("Two neighbours further apart than ever (the moving range of single values)",
                 "A jump to a {more} value, further than neighbours lie apart", _jump),
}
DEFAULT = ("beyond", "nine")
WESTERN_ELECTRIC = ("beyond", "two of three", "four of five", "eight")
NELSON = ("beyond", "nine", "trend", "alternating", "two of three", "four of five", "hugging", "avoiding")
