"""What happened in a shift beside its numbers: who sent nothing, what people decided, what alarms called, how targets were met.

Stands between the store, control charts, alarms and `shift_facts`, whose rows these are: plain data, times of the plant.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from backend.jobs import alarms as alarming
from backend.jobs import pictures, signals
from backend.jobs.control import Alarm, Watched
from backend.quality import targets as aims
from backend.records import Filters
from backend.store import queries
from backend.store.calendar import Calendar, Span
from backend.store.database import Database

SILENT_H, WEEKS = 1.0, 3               # so long without a picture at the end is said; worked in so many of four weeks: it usually does
ENOUGH = 50                            # parts, below which a silence says nothing
MOST_CHANGES, MOST_SAID = 40, 400
Row = dict[str, Any]


def missing(of_lines: list[Row], usually: dict[str, int], still: set[str]) -> list[str]:
    """Lines that sent nothing though they usually work in this shift; not those that are said to stand still."""
    came = {r["name"] for r in of_lines if r["units"]}
    return [f"{name} sent nothing. It worked in this shift in {n} of the 4 weeks before." for name, n in usually.items()
            if n >= WEEKS and name not in came and not still & {"", name}]


def quiet(of_lines: list[Row], usually: dict[str, int], still: set[str]) -> list[str]:
    """The other lines that sent nothing, of which nobody expected more: that is told, and no reason to look."""
    why = {row["name"]: "is said to stand still" if still & {"", row["name"]} else "is not known to work" for row in of_lines
           if not row["units"] and (still & {"", row["name"]} or usually.get(row["name"], 0) < WEEKS)}
    return [f"{name} sent nothing; it {said} in this shift." for name, said in why.items()]


def fell_silent(of_lines: list[Row], plan: Calendar, span: Span, now: datetime) -> list[str]:
    """Lines that sent nothing more long before the end. That may be as planned: it is told, and no reason to look."""
    end, over = plan.local(min(span.end, now)), now >= span.end
    found = []
    for row in of_lines:
        last = datetime.fromisoformat(row["last"]) if row["last"] else end
        if row["units"] >= ENOUGH and (end - last).total_seconds() > SILENT_H * 3600:
            then = f"the shift {'ended at' if over else 'goes on, it is'} {end:%H:%M}"
            found.append(f"{row['name']} sent nothing after {last:%H:%M}; {then}.")
    return found


def targets(db: Database, asked: Filters) -> list[Row]:
    """How the shift stands against each target that people set; missed ones first. Nothing of those of which it made too little."""
    found = []
    for target in alarming.targets(db, asked.plant):
        seen = queries.totals(db, asked.but(line=target.line, product=target.product, class_name=target.class_name))
        outcome = aims.judge(target, seen["defective"], seen["units"])
        if outcome.state != "few":
            found.append(dict(where=target.where, words=outcome.words, state=outcome.state))
    return sorted(found, key=lambda t: aims.STATES.index(t["state"]))


def still(db: Database, plant: str, span: Span) -> set[str]:
    """Lines that people said do not work in this shift; '': the whole plant."""
    return {s["line"] for s in alarming.standstills(db, plant) if s["since"] < span.end and s["until"] > span.start}


def raised(db: Database, plant: str, plan: Calendar, span: Span) -> list[Row]:
    """Alarms that were open in this shift, but for those of control charts, which speak for themselves."""
    found = [a for a in alarming.alarms(db, plant) if a.kind != "chart" and a.opened < span.end and (a.over or span.end) >= span.start]
    return [dict(chart="", line=a.line, kind=a.class_name, worse=True,
                 words=f"{a.text.rstrip('.')} (noticed {clock(plan, a.opened, span)})", at=iso(plan, a.since),
                 open=a.is_open and not a.seen_text, current=False, by=a.seen_by[:80], text=a.seen_text[:MOST_SAID],
                 over=clock(plan, a.over, span) if a.over else "")
            for a in found]


def changes(rows: pd.DataFrame, plan: Calendar, span: Span) -> list[Row]:
    return [dict(at=iso(plan, r["at"].to_pydatetime()), text=_decided(r, plan, span), by=str(r["by"] or "")[:80])
            for r in pictures.rows(rows.tail(MOST_CHANGES))]


def _decided(row: Row, plan: Calendar, span: Span) -> str:
    said = str(row["text"])[:MOST_SAID]
    if pd.isna(row["back_at"]):
        return said
    return f"{said.rstrip('.')} (taken back at {clock(plan, row['back_at'].to_pydatetime(), span)})."


def called_by_charts(watched: Sequence[Watched], plan: Calendar, span: Span) -> list[Row]:
    """What control charts called in this shift, and what they had called before that still went on at its end."""
    start, end = iso(plan, span.start)[:19], iso(plan, span.end)[:19]
    found = []
    for w in watched:
        for alarm in w.alarms:
            if alarm.at < end and (alarm.current or alarm.at >= start):         # `last` may be the key of a day or a week: no moment
                found.append(dict(chart=signals.title(w), line=w.chart.line, kind=w.chart.characteristic, worse=alarm.side == w.worse,
                                  words=_said(w, alarm), at=alarm.at, open=alarm.open, current=alarm.current,
                                  text=alarm.text[:MOST_SAID], by=alarm.by[:80]))
    return found


def _said(w: Watched, alarm: Alarm) -> str:
    since = signals.when(alarm.at, w.chart.subgroup)
    if not alarm.side:
        return f"{'; '.join(alarm.words)}, since {since}"
    rare = w.chart.kind[0] in "gt"
    worse = "defects closer together than chance explains" if rare else "more defects than chance explains"
    better = "defects further apart than chance explains" if rare else "fewer defects than chance explains"
    return f"{worse if alarm.side == w.worse else better} since {since}"


def clock(plan: Calendar, moment: datetime, span: Span) -> str:
    """'04:10', or '10 Jun, 04:10' on a day that the shift does not touch."""
    at = plan.local(moment)
    return f"{at:%H:%M}" if at.date() in (plan.local(span.start).date(), plan.local(span.end).date()) else f"{at.day} {at:%b, %H:%M}"


def iso(plan: Calendar, moment: datetime) -> str:
    return plan.local(moment).isoformat(timespec="seconds")
