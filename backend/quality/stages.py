"""Who owns limits, and when they change: a saved chart, the period a person froze it from, and the stages that a change of model starts.

A chart that somebody saves owns its limits; what is filtered on a page never does. It remembers the period and what was left out, so
that the same limits can be made again: a threshold that is moved restates history from raw scores, and `frozen` restates the limits with
it, in the same stage. Another model is another inspector: from its promotion on a new stage runs, provisional until 20 subgroups are in
and a person froze new limits. Earlier stages keep their limits, so what was an alarm before stays one.

Subgroups are named by keys: plant time as ISO text (or any text whose order is that of time). A subgroup that was under way when the
model changed counts with the model it began with. Knows nothing of where counts come from.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from backend.config import Config
from backend.errors import ConfigError
from backend.quality import rules as run_rules
from backend.quality import spc
from backend.quality.spc import Chart, Limits, Numbers

Whole = np.ndarray[Any, np.dtype[np.int64]]
NEEDED, NEEDED_LANEY = 20, 25          # subgroups of a stable period; more where the spread between them is estimated too
FIRST = 8                              # from here on a stage has provisional limits of its own, if only the centre is estimated: a spread
                                       # from eight subgroups would be off by 60 % at times
SUBGROUPS = {"hour": "hours", "shift": "shifts", "day": "days", "week": "weeks", "lot": "lots", "defect": "defects", "part": "readings"}


def needed(kind: str) -> int:
    return NEEDED_LANEY if kind in ("p'", "u'") else NEEDED


def progress(kind: str, n: int, subgroup: str = "shift") -> str:
    """'needs 20 shifts; 6 so far'; '' where there are enough."""
    return "" if n >= needed(kind) else f"needs {needed(kind)} {SUBGROUPS.get(subgroup, 'subgroups')}; {n} so far"


@dataclass(frozen=True)
class SavedChart(Config):
    """A control chart: what it watches, how, and the limits it owns. `to_json` is the config of an inline run, `from_json` reads one."""

    line: str = ""
    product: str = ""                  # '': whatever the line makes, by a person's decision
    characteristic: str = ""           # a class; '': any defect
    subgroup: str = field(default="shift", metadata={"choices": tuple(SUBGROUPS)})
    kind: str = field(default="p", metadata={"choices": tuple(spc.KINDS)})
    rules: list[str] = field(default_factory=lambda: list(run_rules.DEFAULT))
    weight: float = 1.0                # below 1: an EWMA
    since: str = ""                    # keys of the first and last subgroup of the period, both in it
    until: str = ""
    excluded: dict[str, str] = field(default_factory=dict)       # key of a subgroup that is left out -> why
    limits: dict[str, Any] = field(default_factory=dict)         # empty: nobody has frozen any yet

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.line:
            raise ConfigError("A control chart belongs to one line. Of several lines together there is a trend, without limits.")
        run_rules.check(self.rules, self.weight)
        if any(not str(why).strip() for why in self.excluded.values()):
            raise ConfigError("Say why a subgroup is left out.")

    @property
    def owner(self) -> tuple[str, str, str, str, str, float]:
        """What makes two charts the same one. A selection that is not exactly a chart's own has no limits."""
        return self.line, self.product, self.characteristic, self.subgroup, self.kind, self.weight

    @property
    def chart_id(self) -> str:
        """The owner as a short name, for a link or for what is said of the chart."""
        return hashlib.sha256(json.dumps(self.owner).encode()).hexdigest()[:12]

    @property
    def own_limits(self) -> Limits | None:
        return Limits(**self.limits) if self.limits else None


@dataclass(frozen=True)
class Step:
    """What a change of model does by itself: the same recent units, judged by both models."""

    units: int
    both: int                          # called defective by both
    only_old: int
    only_new: int

    def __post_init__(self) -> None:
        if min(self.both, self.only_old, self.only_new) < 0 or self.both + self.only_old + self.only_new > self.units or not self.units:
            raise ConfigError("Both models have to judge the same units, at least one.")

    @property
    def old(self) -> float:
        return (self.both + self.only_old) / self.units

    @property
    def new(self) -> float:
        return (self.both + self.only_new) / self.units

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of new - old, paired, with half a unit added to each cell (Agresti & Min, Stat. Med. 24, 2005)."""
        n, more, less = self.units + 2, self.only_new + 0.5, self.only_old + 0.5
        middle, half = (more - less) / n, 1.96 * np.sqrt((more + less) / n - ((more - less) / n) ** 2) / np.sqrt(n)
        return float(middle - half), float(middle + half)

    @property
    def words(self) -> str:
        low, high = self.interval
        return (f"Of the same {self.units:,} units the old model calls {self.old:.2%} defective, the new one {self.new:.2%} "
                f"({self.new - self.old:+.2%}; {low:+.2%} to {high:+.2%}).").replace("%", " %")

    def moved(self, limits: Limits) -> Limits | None:
        """The old limits as the new model would have had them: the centre times new / old. None where that cannot be said.

        As a ratio, for what a model misses is a share of the defects there are. What it rejects wrongly is not: one more reason why such
        limits are provisional.
        """
        if limits.kind[0] not in "pu" or not self.old or not self.new:
            return None
        center = limits.center * self.new / self.old
        return None if limits.kind[0] == "p" and center >= 1 else replace(limits, center=center)


@dataclass(frozen=True)
class Promotion:
    """A model was put to use. `at` is comparable with the keys of subgroups."""

    at: str
    model: str
    step: Step | None = None


@dataclass(frozen=True)
class Stage:
    """Subgroups first to last, under one model and one set of limits. Indices of violations are those of all subgroups."""

    first: int
    last: int
    why: str                           # what began it
    note: str                          # what is still missing, or what the limits are; '' where they are frozen
    provisional: bool
    limits: Limits | None
    chart: Chart | None                # None with `limits`: a trend without limits
    violations: tuple[run_rules.Violation, ...] = ()


def frozen(chart: SavedChart, keys: Sequence[str], counts: Numbers, sizes: Numbers | None = None,
           promotions: Sequence[Promotion] = ()) -> SavedChart:
    """The chart with limits from its period, less what it leaves out: to freeze it, or to restate it after a threshold was moved."""
    inside = np.array([chart.since <= k <= chart.until for k in keys], bool)
    keep = inside & ~np.isin(keys, list(chart.excluded))
    if strange := sorted(set(chart.excluded) - {k for k, i in zip(keys, inside, strict=True) if i}):
        raise ConfigError(f"{strange[0]} is left out of the period, but is not in it.")
    for change in promotions:
        if chart.since < change.at <= chart.until:
            raise ConfigError(f"{change.model} was put to use within the period. Choose a period under one model.")
    if missing := progress(chart.kind, int(keep.sum()), chart.subgroup):
        raise ConfigError(f"The period is too short: it {missing}.")
    sized = None if sizes is None else np.asarray(sizes)[inside]
    limits = spc.fit(chart.kind, np.asarray(counts)[inside], sized, keep[inside], chart.weight)
    return replace(chart, limits=asdict(limits))


def watch(charts: Sequence[SavedChart], keys: Sequence[str], counts: Numbers, sizes: Numbers | None = None,
          promotions: Sequence[Promotion] = ()) -> list[Stage]:
    """All subgroups in stages. `charts`: the one chart as it was saved over time, the last in force, each from its period on."""
    assert charts and len({c.owner for c in charts}) == 1, "one chart, as it was saved over time"
    assert list(keys) == sorted(keys) and len(keys) == len(counts), "subgroups in the order of time, each with a count"
    history = _History(charts, sorted(promotions, key=lambda p: p.at))
    models, rulings = history.models(keys), history.rulings(keys)
    new = (np.diff(models, prepend=-1) != 0) | (np.diff(rulings, prepend=-2) != 0)
    starts = np.flatnonzero(new).tolist()
    found = []
    for first, end in zip(starts, [*starts, len(keys)][1:], strict=True):
        own = np.asarray(counts)[first:end], None if sizes is None else np.asarray(sizes)[first:end]
        model, ruling = int(models[first]), int(rulings[first])
        limits, provisional, note = history.limits(keys[first], model, ruling, own)
        why = history.changes[model - 1].model + " was put to use" if first and model > models[first - 1] else ""
        found.append(_stage(first, why or "Limits were frozen" * (ruling >= 0), note, provisional, limits, charts[-1], own))
    return found


@dataclass(frozen=True)
class _History:
    """What was decided when: charts as they were saved, promotions by their time."""

    charts: Sequence[SavedChart]
    changes: Sequence[Promotion]

    def models(self, keys: Sequence[str]) -> Whole:
        """How many promotions each subgroup has behind it."""
        return np.searchsorted(np.array([p.at for p in self.changes], str), np.asarray(keys, str), side="right")

    def rulings(self, keys: Sequence[str]) -> Whole:
        """For each subgroup the last chart saved whose period had begun; -1 where none had."""
        found = np.full(len(keys), -1)
        for i, chart in enumerate(self.charts):
            if chart.limits:
                found[bisect_left(keys, chart.since):] = i
        return found

    def limits(self, key: str, model: int, ruling: int, own: tuple[Numbers, Numbers | None]) -> tuple[Limits | None, bool, str]:
        """Limits of the stage that begins with this subgroup, whether they are provisional, and what there is to say of them."""
        chart = self.charts[ruling] if ruling >= 0 else None
        since = self.models([c.since for c in self.charts])
        if chart and since[ruling] == model:
            return chart.own_limits, False, ""
        if any(c.limits and c.since > key and m == model for c, m in zip(self.charts, since, strict=True)):
            return None, False, "before the period that the limits come from"
        change = self.changes[model - 1] if model else None
        moved = change.step.moved(chart.own_limits) if chart and chart.own_limits and change and change.step else None
        return _provisional(self.charts[-1], moved, own)


def _provisional(chart: SavedChart, moved: Limits | None, own: tuple[Numbers, Numbers | None]) -> tuple[Limits | None, bool, str]:
    """Limits of a stage that nobody has frozen any for: from its first subgroups; while they are few, the old ones moved by the step."""
    (counts, sizes), enough, n = own, needed(chart.kind), len(own[0])
    missing = progress(chart.kind, n, chart.subgroup)
    if moved and missing:
        return moved, True, f"{missing}; until then the old limits, moved by what the new model changed"
    note = missing or f"{n} {SUBGROUPS[chart.subgroup]} are in: limits can be frozen"
    if n < (FIRST if chart.kind in ("p", "u", "g") else enough):
        return None, True, note
    try:
        return spc.fit(chart.kind, counts[:enough], None if sizes is None else sizes[:enough], weight=chart.weight), True, note
    except ConfigError:                                      # nothing varies yet, or no defect was seen
        return None, True, note


def _stage(first: int, why: str, note: str, provisional: bool, limits: Limits | None, chart: SavedChart,
           own: tuple[Numbers, Numbers | None]) -> Stage:
    last = first + len(own[0]) - 1
    if limits is None:
        return Stage(first, last, why, note, provisional, None, None)
    drawn = spc.draw(limits, *own)
    found = [replace(v, at=v.at + first, first=v.first + first, last=v.last + first)
             for v in run_rules.violations(drawn.z, chart.rules, limits.width)]
    return Stage(first, last, why, note, provisional, limits, drawn, tuple(found))
