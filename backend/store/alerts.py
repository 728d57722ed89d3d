"""Targets, alert rules and alarms as people and the lookout left them: all are events.

    target, alert      what somebody set; the newest of an owner holds
    standstill         a line (or, without one, the plant) that is not planned to work from one moment to another
    alarm              opened by `jobs.lookout`, once per cause; `alarm-over` when it was normal again
    alarm-seen         a person acknowledges it, by name and with a note
    alarm-rest         a person lets its cause rest until a moment: nothing is sent meanwhile
    channel            where messages go; `alert-test` asks for one

What makes an alarm, and what its state is, `jobs.conditions` and `jobs.alarms` say.
"""

import json
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from backend.records import Filters
from backend.store import calendar, lines, queries
from backend.store.database import Database

LATELY = timedelta(days=3)             # older shifts are history: nobody is called for them


def events(db: Database, plant: str, *recipes: str) -> list[dict[str, Any]]:
    """event_id, run_id ('' where it is part of a history), recipe, at (UTC), config, by; of what is in force, oldest first."""
    with db.cursor() as cursor:
        rows = cursor.execute("""
            SELECT event_id, if(event_id = run_id, run_id, '') AS run_id, recipe, "at", config, "by" FROM events
            WHERE recipe IN (SELECT unnest($recipes)) AND NOT undone AND plant = $plant ORDER BY "at", event_id""",
            {"plant": plant, "recipes": list(recipes)}).dicts()
    return [row | {"config": json.loads(row["config"])} for row in rows]


def newest_shift(db: Database, filters: Filters, plan: calendar.Calendar, local: datetime) -> dict[str, Any] | None:
    """bucket (plant time at which it began), units, defective of the newest shift that is over and brought anything; None where there is
    none of the last days. `local`: the present moment in plant time."""
    over = {start for _, start in plan.complete(local, int(LATELY.total_seconds() // 3600))}
    rows: pd.DataFrame = queries.trend(db, filters.but(since=(local - LATELY - timedelta(days=1)).date()), "shift")
    rows = rows[rows["bucket"].isin(list(over)) & (rows["inspected"] > 0)]
    if rows.empty:
        return None
    newest = rows.iloc[-1]
    return dict(bucket=newest["bucket"].to_pydatetime(), units=int(newest["inspected"]), defective=int(newest["defective"]))


def came(db: Database, plant: str, until: datetime) -> dict[str, datetime]:
    """When the newest picture of each line was taken, UTC; what lies after `until`, by a camera clock that runs ahead, is left out."""
    with db.cursor() as cursor:
        return lines.newest(cursor, plant, calendar.current(cursor, plant).time_zone, until)


def tell(recipe: str, config: dict[str, Any]) -> str:
    """One of these events as a plain sentence."""
    where = f" on {config['line']}" if config.get("line") else ""
    gone = bool(config.get("removed"))
    match recipe:
        case "target":
            what = f"{config.get('measure', '')} {float(config.get('value') or 0):.1%}".replace("%", " %")
            return f"Target{where}: {'removed' if gone else what}."
        case "alert":
            return f"Alarm rule{where} {'removed' if gone else 'set'}: {config.get('kind', '')}."
        case "standstill":
            return f"Not planned to work{where}: {str(config.get('since', ''))[:16]} to {str(config.get('until', ''))[:16]}."
        case "alarm-seen":
            return f"An alarm was acknowledged: {config.get('text', '')}"
        case "alarm-rest":
            return f"An alarm rests until {str(config.get('until', ''))[:16]} UTC."
        case "channel":
            return f"Messages by {config.get('kind', '')}{' removed' if gone else ''}: {config.get('name', '')}."
        case _:
            return str(config.get("text") or "")
