"""Control charts that people saved, and what there is to say of them: counts of the store, limits and rules of `quality`.

    store.spc.decided ─► Save, explanations ─┐
    points ──────────────────────────────────┴─► quality.stages.watch ─► stages, alarms ─► Watched, which pages show

Only what somebody saved has limits; what is filtered on a page never makes any. Limits stay as they were frozen, whatever data comes late;
where thresholds or the calendar changed since, history is stated anew and so are limits, from the same period. An alarm is open from the
moment at which somebody would have been called until somebody says what it was; what lies before the chart was made called nobody.
What a manager reads of it is `signals`; a chart that is being made is `trial`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from backend.errors import ConfigError
from backend.jobs import points as at_points
from backend.jobs.points import Points
from backend.quality import spc, stages
from backend.quality.episodes import SIGN, Episode, episodes
from backend.quality.stages import Promotion, SavedChart, Stage
from backend.records import Filters
from backend.store import spc as counts
from backend.store.database import Database

STATES = ("act", "look", "unjudged", "calm")                     # the worst first
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Save:
    """A chart as somebody saved it. `restated`: with limits made anew, since rules changed."""

    chart: SavedChart
    at: datetime | None = None         # plant time; None: not saved yet
    run_id: str = ""                   # what undo takes; '': part of a history
    by: str = ""
    restated: bool = False


@dataclass(frozen=True)
class Alarm:
    """One episode, by keys. Current: it reaches the newest point that is judged."""

    first: str
    last: str
    at: str
    side: str
    words: tuple[str, ...]
    current: bool
    open: bool
    text: str = ""                     # what somebody said of it
    by: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Watched:
    """A chart with all that it says. `frame`: the points, and as they are drawn value, center, low, high, stage (-1: set aside), out."""

    chart: SavedChart
    saves: list[Save]
    frame: pd.DataFrame
    stages: list[Stage]
    alarms: list[Alarm]                # the newest first
    promotions: list[Promotion] = field(default_factory=list)
    steps: dict[str, str] = field(default_factory=dict)
    changes: pd.DataFrame = field(default_factory=pd.DataFrame)          # local, text: rules that changed

    @property
    def chart_id(self) -> str:
        return self.chart.chart_id

    @property
    def worse(self) -> str:
        """The side on which things get worse; single values are shares of defective parts here."""
        return spc.KINDS[self.chart.kind].worse or "above"

    @property
    def now(self) -> Alarm | None:
        """What speaks at the newest point: the worse side before the other."""
        current = [a for a in self.alarms if a.current]
        return min(current, key=lambda a: (a.side != self.worse, a.first), default=None)

    @property
    def excess(self) -> float:
        """How far the newest point lies beyond the centre on the worse side, in standard errors; 0 where it does not."""
        chart = self.stages[-1].chart if self.stages else None
        return max(0.0, SIGN[self.worse] * float(chart.z[-1])) if chart is not None else 0.0

    @property
    def waiting(self) -> list[Alarm]:
        """Open alarms that are over, but for those that were for the better: they are listed, and ask for nobody's time."""
        better = {"above": "below", "below": "above"}[self.worse]
        return [a for a in self.alarms if a.open and not a.current and a.side != better]

    @property
    def state(self) -> str:
        """act | look | unjudged | calm."""
        if self.now:
            return "act" if self.now.side == self.worse else "look"
        if self.waiting:
            return "look"
        return "calm" if self.stages and self.stages[-1].limits else "unjudged"


def charts(db: Database, plant: str, at: datetime | None = None) -> list[Watched]:
    """All charts of a plant, the worst first. `at` is the present moment."""
    return _charts(db, plant, at, db.revision)


@lru_cache(maxsize=8)
def _charts(db: Database, plant: str, at: datetime | None, revision: int) -> list[Watched]:
    """Overview and the page of the charts ask in turn: what was counted for one serves the other."""
    clock = counts.clock(db, plant, at)
    decided = counts.decided(db, plant, clock)
    said: dict[str, list[dict[str, Any]]] = {}
    for row in decided:
        if row["recipe"] == "explain":
            said.setdefault(str(row["config"].get("chart")), []).append(row)
    rules, moment = counts.rules_key(db), clock.local.replace(minute=clock.local.minute // 10 * 10, second=0, microsecond=0)
    found = [_judged(_Asked((id(db), plant, chart_id, rules, moment, db.counted(plant, saves[-1].chart.line)), db, saves,
                            said.get(chart_id, []), clock)) for chart_id, saves in saved(decided).items()]
    return sorted(found, key=lambda w: (STATES.index(w.state), w.chart.owner))


@dataclass(frozen=True)
class _Asked:
    """A chart to be judged, known by all that the answer hangs on. A batch on one line leaves the other lines' charts as they were."""

    key: tuple[Any, ...]
    db: Database = field(compare=False)
    saves: list[Save] = field(compare=False)
    said: list[dict[str, Any]] = field(compare=False)
    clock: counts.Clock = field(compare=False)


@lru_cache(maxsize=200)
def _judged(asked: _Asked) -> Watched:
    return _watched(asked.db, asked.key[1], asked.saves, asked.said, asked.clock)


def saved(decided: Sequence[dict[str, Any]]) -> dict[str, list[Save]]:
    """Charts in use, each as it was saved over time. One that was put away and made again starts anew."""
    found: dict[str, list[Save]] = {}
    for row in decided:
        if row["recipe"] == "retire":
            found.pop(str(row["config"].get("chart")), None)
        elif row["recipe"] == "chart":
            try:
                chart = SavedChart.from_json(row["config"])
                _ = chart.own_limits                             # limits of a kind that there is not, for instance
            except (ConfigError, TypeError) as error:
                _log.warning("A control chart of %s is passed over: %s", row["local"], error)
                continue
            found.setdefault(chart.chart_id, []).append(Save(chart, row["local"], row["run_id"], row["by"]))
    return found


def _watched(db: Database, plant: str, saves: list[Save], said: list[dict[str, Any]], clock: counts.Clock) -> Watched:
    """A chart begins with the first period that limits come from; one without any, with the data."""
    chart = saves[-1].chart
    frozen = [s.chart.since for s in saves if s.chart.limits]
    found = at_points.points(db, plant, chart, clock, min(frozen) if frozen else "")
    changes = counts.restating(db, Filters(plant, chart.line, chart.product, class_name=chart.characteristic), clock)
    local = changes["local"].max() if len(changes) else None
    return watch([_restated(s, found) if local is not None and s.at and s.at < local else s for s in saves], found, said,
                 changes[changes["text"] != ""])


def _restated(save: Save, found: Points) -> Save:
    """The same period under the rules of today; as it was where that is no period any more, after another calendar for instance."""
    if not save.chart.limits:
        return save
    try:
        chart = stages.frozen(save.chart, *found.asked(save.chart.kind), found.promotions)
    except ConfigError:
        return save
    return replace(save, chart=chart, restated=chart.limits != save.chart.limits)


def watch(saves: list[Save], found: Points, said: Sequence[dict[str, Any]] = (), changes: pd.DataFrame | None = None) -> Watched:
    """A chart judged. `said`: explanations, oldest first."""
    chart = saves[-1].chart
    keys, n, sizes = found.asked(chart.kind)
    judged = stages.watch([s.chart for s in saves], keys, n, sizes, found.promotions)
    happened = [episode for stage in judged for episode in episodes(stage)]
    excluded = {key: why for save in saves for key, why in save.chart.excluded.items()}
    since = next((s.at for s in saves if s.at), None)
    called = [since is not None and over > since for over in found.judged["over"]]
    alarms = [_alarm(e, keys, said, excluded, called[e.at]) for e in happened]
    return Watched(chart, saves, _drawn(found, judged, chart.kind, chart.weight < 1), judged, alarms[::-1], found.promotions, found.steps,
                   pd.DataFrame(columns=["local", "text"]) if changes is None else changes)


def _alarm(e: Episode, keys: list[str], said: Sequence[dict[str, Any]], excluded: dict[str, str], called: bool) -> Alarm:
    first, last, at = keys[e.first], keys[e.last], keys[e.at]
    told = next((s for s in reversed(said) if s["config"].get("side") == e.side and first <= str(s["config"].get("key")) <= last), None)
    reason = next((why for key, why in excluded.items() if first <= key <= last), "")
    text = str(told["config"].get("text") or "") if told else reason
    return Alarm(first, last, at, e.side, e.words, e.last == len(keys) - 1, called and not text, text,
                 (told["by"] or str(told["config"].get("by") or "")) if told else "", told["run_id"] if told else "")


def _drawn(found: Points, judged: list[Stage], kind: str, smoothed: bool) -> pd.DataFrame:
    """Points with what each stage's chart says of them; NaN where there is nothing to say."""
    frame, rows = found.frame, found.judged.index
    drawn = frame.assign(value=frame["count"] / frame["size"].fillna(1), center=np.nan, low=np.nan, high=np.nan, stage=-1, out=False)
    for number, stage in enumerate(judged):
        own = rows[stage.first:stage.last + 1]
        drawn.loc[own, "stage"] = number
        if stage.chart:
            drawn.loc[own, ["value", "center", "low", "high"]] = np.column_stack(
                [stage.chart.value, stage.chart.center, stage.chart.low, stage.chart.high])
        for violation in stage.violations:
            drawn.loc[rows[violation.first:violation.last + 1], "out"] = True
    if kind == "i" and not smoothed:
        drawn["low"] = drawn["low"].where(drawn["low"] > 0)              # single values are shares here: none lies below 0
    if smoothed:
        drawn.loc[drawn["center"].isna(), "value"] = np.nan              # averages of standard errors are on another scale
    return drawn
