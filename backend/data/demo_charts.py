"""The demo plant's control charts: what its people froze after calm weeks, and what they have said of alarms since.

Made by the code that makes any plant's (`quality`), from the counts of each shift as it was drawn. Each line has one chart, of all defects
by shift: frozen in the plant's first month, and again four weeks after its model changed. Of the planted process shift nobody has said
anything yet. A demo too short for limits gets charts that still wait for them.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from backend.data.demo_inspections import Day, Detector
from backend.data.demo_schedule import LINES, Planted, Shift
from backend.quality import stages
from backend.quality.episodes import episodes
from backend.quality.stages import Promotion, SavedChart

CALM, DECIDED = timedelta(days=28), timedelta(hours=3)          # how long a period is; how long after it somebody froze limits
CHANCE = "Looked through the pictures: nothing in common. Put down to chance."


class Tally:
    """Units of each shift of the plant, and how many of them are defective; both (shifts,)."""

    def __init__(self, shifts: int) -> None:
        self.units, self.defective = np.zeros(shifts, int), np.zeros(shifts, int)

    def add(self, own: list[int], drawn: Day, old: Detector, new: Detector) -> None:
        """A day, whose shifts are these; counted as the store counts: a unit with two views is one, defective if either is."""
        n, rows, kinds = len(drawn.ids), drawn.boxes.row, drawn.boxes.kind
        threshold = np.where(drawn.new[rows], new.thresholds[kinds], old.thresholds[kinds])
        rejected = rows[drawn.boxes.confidence.astype(np.float32) >= threshold.astype(np.float32)]
        units, which = np.unique(drawn.shift * n + np.where(drawn.unit < 0, np.arange(n), drawn.unit), return_inverse=True)
        bad = np.isin(np.arange(len(units)), which[rejected])
        self.units[own] = np.bincount(units // n, minlength=len(own))
        self.defective[own] = np.bincount(units[bad] // n, minlength=len(own))


@dataclass(frozen=True)
class Story:
    """Who tells it, and what they know. `model` took over at the planted change; `reason` is what was said of the excursion."""

    planted: Planted
    start: datetime
    time_zone: str
    model: str
    people: tuple[str, str]
    reason: str

    def key(self, at: datetime) -> str:
        """A shift's name among subgroups."""
        return at.astimezone(ZoneInfo(self.time_zone)).replace(tzinfo=None).isoformat()

    def troubled(self, line: str, key: str) -> bool:
        begin, end = self.planted.excursion
        return line == LINES[0] and self.key(begin) <= key < self.key(end)

    @property
    def periods(self) -> list[tuple[datetime, datetime]]:
        """Four weeks under each model, as far as nothing planted falls into them."""
        first, second = self.start, self.planted.model_change
        return [(first, min(first + CALM, second)), (second, min(second + CALM, self.planted.process_shift))]


@dataclass(frozen=True)
class _Line:
    """The shifts of a line that are over."""

    name: str
    keys: list[str]
    counts: np.ndarray
    sizes: np.ndarray
    changes: list[Promotion]


def history(shifts: list[Shift], tally: Tally, story: Story, now: datetime) -> list[dict[str, Any]]:
    """Events: charts as they were saved, and what was said of their alarms."""
    found = []
    for name in LINES:
        over = [i for i, s in enumerate(shifts) if s.line == name and s.end <= now]
        line = _Line(name, [story.key(shifts[i].start) for i in over], tally.defective[over], tally.units[over],
                     [Promotion(story.key(story.planted.model_change), story.model)])
        saves = [(end + DECIDED, _frozen(line, story, begin, end)) for begin, end in story.periods]
        saves = [(at, chart) for at, chart in saves if chart.limits] or [(story.start + DECIDED, SavedChart(line=name))]
        found += [_event(at, "chart", by, chart.to_json()) for (at, chart), by in zip(saves, story.people, strict=False)]
        found += _explained(line, saves, story)
    return found


def _frozen(line: _Line, story: Story, begin: datetime, end: datetime) -> SavedChart:
    """With limits from the period where it is long enough."""
    keys = [k for k in line.keys if story.key(begin) <= k < story.key(end)]
    left_out = {k: story.reason for k in keys if story.troubled(line.name, k)}
    if stages.progress("p", len(keys) - len(left_out)):
        return SavedChart(line=line.name)
    chart = SavedChart(line=line.name, since=keys[0], until=keys[-1], excluded=left_out)
    return stages.frozen(chart, line.keys, line.counts, line.sizes, line.changes)


def _explained(line: _Line, saves: list[tuple[datetime, SavedChart]], story: Story) -> list[dict[str, Any]]:
    """Of each alarm since somebody watched, but not of what is going on now."""
    judged = stages.watch([chart for _, chart in saves], line.keys, line.counts, line.sizes, line.changes)
    since, until = story.key(saves[0][0]), story.key(story.planted.process_shift)
    found = []
    for n, e in enumerate(e for stage in judged for e in episodes(stage)):
        key = line.keys[e.at]
        if since < key and line.keys[e.last] < until:
            trouble = next((k for k in line.keys[e.first:e.last + 1] if story.troubled(line.name, k)), "")
            at = datetime.fromisoformat(trouble or key).replace(tzinfo=ZoneInfo(story.time_zone)) + timedelta(hours=10)   # two after it
            text = story.reason if trouble else CHANCE
            found.append(_event(at, "explain", story.people[n % 2], dict(chart=saves[0][1].chart_id, line=line.name, key=key,
                                                                         side=e.side, text=text)))
    return found


def _event(at: datetime, recipe: str, by: str, config: dict[str, Any]) -> dict[str, Any]:
    return dict(at=at, recipe=recipe, config=json.dumps(config), by=by)
