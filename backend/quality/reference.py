"""The inspector inspected: does the software still say the same, do the pictures still look the same, do people agree with themselves?

    software check   stored golden pictures give the stored scores, within what the runtime's arithmetic may differ: pass or fail
    imaging check    physical master parts, photographed each shift: single-value charts of score, brightness and sharpness
    agreement        some reviews are asked twice, blind: Cohen's kappa

Together they tell an alarm of the process from one of the camera or of the model (`hint`). Knows nothing of pictures or models: scores and
measures come in as numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.errors import ConfigError
from backend.quality import rates, spc
from backend.quality import rules as run_rules
from backend.quality.spc import Array, Chart, Limits, Numbers
from backend.quality.stages import progress

MEASURES = ("score", "brightness", "sharpness")
RECENT = 3                         # shifts: what a person who looks at an alarm means by "now"
TOLERANCE = 1e-3                   # of a score from 0 to 1: what an exported detector may be off by, see detection.export
EXTREME = 0.1                      # a category this rare, or its opposite, makes kappa hard to read


# ---- software check

@dataclass(frozen=True)
class SoftwareCheck:
    """Stored pictures scored again."""

    passed: bool
    compared: int
    worst: float                       # largest deviation; infinite where a picture gave another number of scores, or none
    worst_name: str
    missing: tuple[str, ...]           # stored pictures that were not scored again
    tolerance: float

    @property
    def words(self) -> str:
        if self.missing:
            return (f"Failed: {len(self.missing)} of {len(self.missing) + self.compared} stored pictures were not scored, for instance "
                    f"{self.missing[0]}.")
        said = f"largest deviation {self.worst:.2g} ({self.worst_name}), allowed {self.tolerance:.2g}"
        return f"{'Passed' if self.passed else 'Failed'}: {self.compared} stored pictures, {said}."


def software_check(stored: Mapping[str, Numbers], now: Mapping[str, Numbers], tolerance: float = TOLERANCE) -> SoftwareCheck:
    """Scores of each golden picture as they were stored and as they come out today. Raises ConfigError where none is stored."""
    if not stored:
        raise ConfigError("No picture is stored to check the software against.")
    missing = tuple(sorted(set(stored) - set(now)))
    off = {name: _deviation(stored[name], now[name]) for name in sorted(set(stored) & set(now))}
    worst = max(off, key=lambda name: off[name], default="")
    passed = not missing and off[worst] <= tolerance
    return SoftwareCheck(passed, len(off), off.get(worst, float("inf")), worst, missing, tolerance)


def _deviation(stored: Numbers, now: Numbers) -> float:
    a, b = np.atleast_1d(np.asarray(stored, float)), np.atleast_1d(np.asarray(now, float))
    if a.shape != b.shape or not np.isfinite(b).all():
        return float("inf")
    return float(np.abs(a - b).max(initial=0.0))


# ---- imaging check

@dataclass(frozen=True)
class Steadiness:
    """One measure of the master parts, shift by shift."""

    measure: str
    note: str                          # why there is no chart: needs 20 shifts; 6 so far. Else empty
    chart: Chart | None
    violations: tuple[run_rules.Violation, ...]

    @property
    def now(self) -> list[run_rules.Violation]:
        """Violations that reach into the last shifts."""
        return [v for v in self.violations if self.chart is not None and v.last >= len(self.chart.z) - RECENT]

    @property
    def words(self) -> str:
        """What is wrong now, or that nothing is."""
        if self.chart is None:
            return f"{self.measure.capitalize()} of the master parts {self.note}"
        said = self.now[-1].words[0].lower() + self.now[-1].words[1:] if self.now else "steady"
        return f"{self.measure.capitalize()} of the master parts: {said}."


def by_shift(shifts: Sequence[str], parts: Sequence[str], values: Numbers) -> tuple[list[str], Array]:
    """Mean over the master parts, shift by shift. A shift in which a part was not photographed is left out: its mean is of other parts.

    A part photographed twice in a shift counts with its mean. Whoever replaces a part starts a new chart.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for shift, part, value in zip(shifts, parts, np.asarray(values, float).tolist(), strict=True):
        found.setdefault(shift, {}).setdefault(part, []).append(value)
    whole = sorted(s for s, seen in found.items() if len(seen) == len(set(parts)))
    return whole, np.array([np.mean([np.mean(v) for v in found[s].values()]) for s in whole])


def imaging_check(readings: Mapping[str, Numbers], limits: Mapping[str, Limits] | None = None,
                  rules: Sequence[str] = run_rules.DEFAULT) -> list[Steadiness]:
    """Each measure's values, one a shift, oldest first, as a chart of single values. Where nobody froze limits, the first 20 give them."""
    return [_steadiness(name, np.asarray(values, float), (limits or {}).get(name), rules) for name, values in readings.items()]


def _steadiness(name: str, values: Array, limits: Limits | None, rules: Sequence[str]) -> Steadiness:
    missing = progress("i", len(values), "shift")
    if limits is None and missing:
        return Steadiness(name, f"{missing}.", None, ())
    try:
        chart = spc.draw(limits or spc.fit("i", values[:20]), values)
    except ConfigError as error:                             # a measure that never varies is not measured
        return Steadiness(name, f"cannot be judged. {error}", None, ())
    return Steadiness(name, "", chart, tuple(run_rules.violations(chart.z, rules)))


# ---- process, camera or model?

@dataclass(frozen=True)
class Hint:
    """Where to look first, and why. It is a hint: two things can go wrong on one day."""

    cause: str                         # process | camera | model | unclear | none
    words: str
    reasons: tuple[str, ...]


LOOK = {"model": "Look at the model and its software first.", "camera": "Look at camera, lens and light first.",
        "process": "Look at the process first.", "unclear": "It cannot be said yet where to look first.",
        "none": "Nothing is out of the ordinary."}


def hint(alarm: bool, imaging: Sequence[Steadiness] = (), software: SoftwareCheck | None = None, new_model: str = "") -> Hint:
    """`alarm`: the process's own chart has one now; `new_model`: one that was put to use since the last calm shift."""
    moved, known = {s.measure for s in imaging if s.now}, {s.measure for s in imaging if s.chart is not None}
    reasons = [software.words if software else "The software was not checked.", *(s.words for s in imaging)]
    reasons += [f"{m.capitalize()} of the master parts is not known." for m in MEASURES if m not in {s.measure for s in imaging}]
    reasons += [f"{new_model} was put to use."] if new_model else []
    if software and not software.passed:
        cause = "model"
    elif moved & {"brightness", "sharpness"}:
        cause = "camera"
    elif "score" in moved:                                   # the model is the same and yet sees known parts differently
        cause = "camera" if software and not new_model else "unclear"
        reasons.append("Known parts score differently: look at their position, at the colour of the light, and whether they are clean.")
    elif new_model and alarm:
        cause = "model"
    else:
        cause = "none" if not alarm else "process" if software and known >= set(MEASURES) else "unclear"
    return Hint(cause, LOOK[cause], tuple(reasons))


# ---- agreement

@dataclass(frozen=True)
class Agreement:
    """Two judgements of the same units."""

    n: int
    observed: float                    # share judged alike
    kappa: float | None                # None: there was but one category, so agreement says nothing
    low: float
    high: float
    pabak: float                       # as kappa would be if all categories were equally frequent
    rarest: float                      # share of the rarest category
    note: str


def agreement(first: Sequence[str], second: Sequence[str]) -> Agreement:
    """Cohen's kappa (1960). Its 95 % interval comes from the exact one of the share judged alike: 20 of 20 are no proof of 1."""
    if not first or len(first) != len(second):
        raise ConfigError("Agreement needs units that were judged twice.")
    names, codes = np.unique([*first, *second], return_inverse=True)
    n, m = len(first), len(names)
    once, again = np.bincount(codes[:n], minlength=m), np.bincount(codes[n:], minlength=m)
    same = int((codes[:n] == codes[n:]).sum())
    alike, chance = same / n, float((once * again).sum()) / n**2
    rarest = float((once + again).min()) / (2 * n) if m > 1 else 0.0
    pabak = (m * alike - 1) / (m - 1) if m > 1 else alike
    if chance == 1:
        return Agreement(n, alike, None, -1.0, 1.0, pabak, rarest, "All was judged to be the same: agreement on anything else is unknown.")
    ends = rates.share(same, n, exact=True)
    kappa, low, high = ((p - chance) / (1 - chance) for p in (alike, ends.low, ends.high))
    note = "" if rarest >= EXTREME else (f"One category is rare ({rarest:.0%}), which makes kappa low or erratic even where people agree: "
                                         f"see the share judged alike, and PABAK ({pabak:.2f}).").replace("%", " %")
    return Agreement(n, alike, kappa, max(low, -1.0), min(high, 1.0), pabak, rarest, note)
