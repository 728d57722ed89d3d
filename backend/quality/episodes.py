"""Violations that belong together: one thing that happened, which somebody looks into once, whatever rules speak of it.

An episode lasts until the process is back: until a point lies on the other side of the centre. A change that lasts puts some points
within the limits again, by chance; without this it would come and go from shift to shift. Knows nothing of who explains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.quality.rules import Violation
from backend.quality.stages import Stage

SIGN = {"above": 1, "below": -1, "": 0}


@dataclass(frozen=True)
class Episode:
    """Points first to last; at point `at` one could first know. Indices are those of the violations."""

    at: int
    first: int
    last: int
    side: str                          # above | below | ''
    words: tuple[str, ...]             # what each rule says, in the order in which they spoke


def episodes(stage: Stage) -> list[Episode]:
    """In the order in which they would have been noticed."""
    found: list[list[Violation]] = []
    last = -1
    for v in sorted(stage.violations, key=lambda v: (v.side, v.first)):
        if found and found[-1][0].side == v.side and v.first <= last + 1:
            found[-1].append(v)
        else:
            found.append([v])
            last = -1
        last = max(last, _back(stage, v) - 1)
    return sorted((_joined(stage, group) for group in found), key=lambda e: e.at)


def _back(stage: Stage, violation: Violation) -> int:
    """The first point after a violation at which the process is back; one beyond the stage where it is not."""
    assert stage.chart is not None
    after = range(violation.last + 1, stage.last + 1)
    return next((i for i in after if not stage.chart.z[i - stage.first] * SIGN[violation.side] > 0), stage.last + 1)


def _joined(stage: Stage, group: Sequence[Violation]) -> Episode:
    group = sorted(group, key=lambda v: v.at)
    return Episode(group[0].at, min(v.first for v in group), max(_back(stage, v) for v in group) - 1, group[0].side,
                   tuple(dict.fromkeys(v.words for v in group)))
