"""A control chart as somebody makes it: what a period gives, and what there is to know before limits are frozen from it.

Nothing here is kept: what is saved is `Trial.chart`, as an event. A period is proposed; a person decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from backend.errors import ConfigError
from backend.jobs import control
from backend.jobs import points as at_points
from backend.jobs.control import Save, Watched
from backend.jobs.points import Points
from backend.quality import alarms, rules, spc, stages
from backend.quality.stages import SavedChart
from backend.store import spc as counts
from backend.store.database import Database

PROPOSED = 60                  # subgroups: three weeks of shifts, more than enough, and no older than people remember
MONTH = 30.44                  # days


@dataclass(frozen=True)
class Trial:
    chart: SavedChart          # with its period; with limits where the period gives any
    watched: Watched           # what it would say
    why_not: str               # no limits can be frozen; '' where they can
    evidence: str              # of p and u: how far subgroups spread beyond chance; '' where there is too little
    spread: bool               # the evidence speaks for p' or u'
    rare: str                  # another kind of chart would say more
    false_alarms: str
    outside: tuple[str, ...]   # points of the period that stand out of its own limits


def trial(db: Database, plant: str, chart: SavedChart, at: datetime | None = None) -> Trial:
    """A chart that nobody has saved. Without `since` a period is proposed."""
    found = at_points.points(db, plant, replace(chart, limits={}), counts.clock(db, plant, at))
    chart = replace(chart, limits={}) if chart.since else _proposed(chart, found)
    chart, why_not = _frozen(chart, found)
    before = replace(found, promotions=[p for p in found.promotions if p.at > chart.since])      # of earlier models, points alone
    watched = replace(control.watch([Save(chart)], before), promotions=found.promotions)
    evidence, spread = _evidence(chart, found)
    limits, size = _typical(chart, found)
    return Trial(chart, watched, why_not, evidence, spread, alarms.too_rare(limits, size) if limits else "",
                 _false_alarms(chart, found, size), _outside(chart, found))


def _frozen(chart: SavedChart, found: Points) -> tuple[SavedChart, str]:
    try:
        return stages.frozen(chart, *found.asked(chart.kind), found.promotions), ""
    except ConfigError as error:
        return chart, str(error)


def _proposed(chart: SavedChart, found: Points) -> SavedChart:
    """What the model in use has judged, without the newest quarter: that is what limits are to judge."""
    begin = found.promotions[-1].at if found.promotions else ""
    keys = [k for k in found.judged["key"] if k >= begin]
    keys = keys[:max(stages.needed(chart.kind), len(keys) * 3 // 4)][-PROPOSED:]
    return replace(chart, since=keys[0], until=keys[-1], excluded={}) if keys else chart


def _period(chart: SavedChart, found: Points) -> tuple[at_points.Array, at_points.Array | None, at_points.Array]:
    """Counts, sizes and which of them are kept, of the period."""
    keys, n, sizes = found.asked(chart.kind)
    inside = np.array([chart.since <= k <= chart.until for k in keys], bool)
    keep = ~np.isin(np.array(keys, str)[inside], list(chart.excluded)) if inside.any() else np.zeros(0, bool)
    return n[inside], None if sizes is None else sizes[inside], keep


def _evidence(chart: SavedChart, found: Points) -> tuple[str, bool]:
    n, sizes, keep = _period(chart, found)
    if sizes is None or keep.sum() < stages.FIRST:
        return "", False
    try:
        shown = spc.dispersion(chart.kind, n, sizes, keep)
    except ConfigError:                                          # no defect at all, for instance: `why_not` says so
        return "", False
    return shown.advice, shown.p_more < 0.01 and shown.sigma_z > shown.high


def _typical(chart: SavedChart, found: Points) -> tuple[spc.Limits | None, float]:
    """Limits, or their centre alone where there are none yet; the usual size of a subgroup (0: it has none)."""
    n, sizes, keep = _period(chart, found)
    size = float(np.median(sizes)) if sizes is not None and len(sizes) else 0.0
    if chart.own_limits or not size or not n[keep].sum():
        return chart.own_limits, size
    assert sizes is not None
    return spc.Limits(chart.kind, float(n[keep].sum() / sizes[keep].sum())), size


def _false_alarms(chart: SavedChart, found: Points, size: float) -> str:
    """Of a process that does not change, at the pace at which subgroups came; '' where that cannot be said yet."""
    begins = found.judged["bucket"]
    days = (begins.max() - begins.min()).total_seconds() / 86_400 if len(begins) > 1 else 0.0
    if not chart.own_limits or not days:
        return ""
    return alarms.false_alarms(chart.own_limits, chart.rules, MONTH * (len(begins) - 1) / days, size).words


def _outside(chart: SavedChart, found: Points) -> tuple[str, ...]:
    """By the rule of single points: runs say that the level moved, and no point of them is to blame."""
    keys: Sequence[str] = [k for k in found.judged["key"] if chart.since <= k <= chart.until and k not in chart.excluded]
    if not chart.own_limits:
        return ()
    n, sizes, keep = _period(chart, found)
    z = spc.draw(chart.own_limits, n[keep], None if sizes is None else sizes[keep]).z
    spoken = rules.spans(z, ("beyond",), chart.own_limits.width)
    return tuple(k for k, speaks in zip(keys, spoken, strict=True) if speaks)
