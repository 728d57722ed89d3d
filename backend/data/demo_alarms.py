"""The demo plant's targets and alarms: one target, two rules, an alarm that somebody acknowledged and that is over, and one that is open.

The open one is of the planted process shift on line 2: its target has been missed since, and nobody has said anything yet. Figures are
those of each shift as it was drawn, words those of the code that speaks of any plant's shift.
"""

import json
from datetime import datetime, timedelta
from typing import Any

from backend.data.demo_charts import Story, Tally
from backend.data.demo_schedule import LINES, Shift
from backend.quality import rates
from backend.quality.alertness import OVER, AlertRule, cause
from backend.quality.targets import Target, judge

SET, NOTICED = timedelta(days=30), timedelta(minutes=5)         # how long ago people set them; how soon after a shift it was noticed
TARGET = Target(line=LINES[1], value=0.03)                      # about 3 % were usual there, 4 to 7 % are found now
LEAST = 50
SEEN = "Scratches on the whole width: roll 3 is being looked at."


def history(shifts: list[Shift], tally: Tally, story: Story, now: datetime) -> list[dict[str, Any]]:
    """Events; nothing of what a short demo has no shift for."""
    at = max(story.start, now - SET)
    first, second = story.people
    found = [_event(at, "target", first, TARGET.to_json()), _event(at, "alert", first, AlertRule("target").to_json()),
             _event(at, "alert", second, AlertRule("rise", LINES[0]).to_json())]
    return [*found, *_risen(shifts, tally, story), *_missed(shifts, tally, story, now)]


def _risen(shifts: list[Shift], tally: Tally, story: Story) -> list[dict[str, Any]]:
    """Line 1 while its roll was worn: noticed after the first shift, seen, and over a day after the roll was changed."""
    begin, end = story.planted.excursion
    own = [i for i, s in enumerate(shifts) if s.line == LINES[0]]
    during, before = [i for i in own if begin <= shifts[i].start < end], [i for i in own if shifts[i].start < begin]
    if not during or not before:
        return []
    i = during[0]
    usual = rates.percent(tally.defective[before].sum() / tally.units[before].sum())
    text = f"{LINES[0]}: Defects are up: {rates.percent(tally.defective[i] / tally.units[i])} against usually {usual}"
    why = cause("rise", LINES[0])
    alarm = dict(id=f"{why}#1", cause=why, kind="rise", line=LINES[0], text=text, since=shifts[i].start.isoformat(), page="trends",
                 query=dict(line=LINES[0]))
    return [_event(shifts[i].end + NOTICED, "alarm", "lookout", alarm),
            _event(shifts[i].end + timedelta(hours=1), "alarm-seen", story.people[1], dict(alarm=alarm["id"], line=LINES[0], text=SEEN)),
            _event(end + timedelta(days=1), "alarm-over", "lookout", dict(alarm=alarm["id"], line=LINES[0], text=OVER["rise"]))]


def _missed(shifts: list[Shift], tally: Tally, story: Story, now: datetime) -> list[dict[str, Any]]:
    """Line 2 since the first shift after the planted change that surely missed the target."""
    for i, s in enumerate(shifts):
        if s.line != TARGET.line or s.start < story.planted.process_shift or s.end > now:
            continue
        outcome = judge(TARGET, int(tally.defective[i]), int(tally.units[i]), LEAST)
        if outcome.state == "missed":
            why, begin = cause("target", TARGET.target_id), datetime.fromisoformat(story.key(s.start))
            text = (f"{TARGET.where}: {outcome.words}, in the shift from {begin:%A} {begin.day} {begin:%B}, {begin:%H:%M}")
            return [_event(s.end + NOTICED, "alarm", "lookout", dict(
                id=f"{why}#1", cause=why, kind="target", line=TARGET.line, text=text, since=s.start.isoformat(), page="trends",
                query=dict(line=TARGET.line, since=begin.date().isoformat())))]
    return []


def _event(at: datetime, recipe: str, by: str, config: dict[str, Any]) -> dict[str, Any]:
    return dict(at=at, recipe=recipe, config=json.dumps(config), by=by)
