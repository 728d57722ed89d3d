"""What control charts say to somebody who runs a plant: a sentence each, without a word of statistics, and lines that a chart speaks of.

`raised` brings charts and the states of lines together, so that Overview never says "as usual" of a line whose chart says otherwise: a
chart can make a line's state worse, never better, and where it is calm it says nothing beside a line that is not.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from backend.jobs.control import Watched
from backend.quality import spc
from backend.quality.stages import SUBGROUPS
from backend.store import rises

COUNTED = {"p": "", "u": "defects per part", "i": "as single values", "g": "good parts between", "t": "hours between"}


def title(watched: Watched) -> str:
    """'Line 2, pits, by shift': names it among all others."""
    chart = watched.chart
    parts = [chart.line, chart.product, chart.characteristic.replace("_", " ") or "all defects",
             "" if chart.subgroup == "defect" else f"by {chart.subgroup}", COUNTED[chart.kind[0]],
             "extra spread allowed for" if "'" in chart.kind else "", "small lasting changes" if chart.weight < 1 else ""]
    return ", ".join(filter(None, parts))


def sentence(watched: Watched) -> str:
    """How the process stands, for a card."""
    now, by = watched.now, watched.chart.subgroup
    if now and now.side:
        return f"{_more(watched, now.side)} than chance explains since {when(now.at, by)}" + \
            ("" if now.side == watched.worse else ". Is it better, or is less seen?")
    if now:
        return f"Since {when(now.at, by)}: {now.words[0]}"
    if waiting := watched.waiting:
        others = f", and {len(waiting) - 1} more time{'s' * (len(waiting) > 2)}" if len(waiting) > 1 else ""
        return f"Nothing but chance now. Nobody has said yet what happened on {when(waiting[0].at, by)}{others}"
    if not watched.stages:
        return "Nothing was inspected yet"
    stage = watched.stages[-1]
    if stage.limits is None:
        return f"Too early to judge: {stage.note}"
    n = _calm_for(watched)
    many = SUBGROUPS.get(by, "subgroups")
    return f"Nothing but chance in the last {f'{n:,} {many}' if n != 1 else many.removesuffix('s')}"


def _more(watched: Watched, side: str) -> str:
    if spc.KINDS[watched.chart.kind].sized or watched.chart.kind == "i":
        return "More defects" if side == "above" else "Fewer defects"
    return "Defects come closer together" if side == "below" else "Defects lie further apart"


def _calm_for(watched: Watched) -> int:
    """Points since the last alarm, or since the limits began to hold."""
    judged = watched.frame[watched.frame["stage"] == len(watched.stages) - 1]
    last = watched.alarms[0].last if watched.alarms else ""
    return int((judged["key"] > last).sum())


def when(key: str, by: str = "shift") -> str:
    """'Friday 27 November, 22:00'; of days and weeks the date alone."""
    at = datetime.fromisoformat(key)
    day = f"{at:%A} {at.day} {at:%B}"
    return {"day": day, "week": f"the week of {day}"}.get(by, f"{day}, {at:%H:%M}")


def raised(rows: pd.DataFrame, watched: Sequence[Watched]) -> pd.DataFrame:
    """States of lines, as `store.lines` has them, with what charts say of them; `chart`: which one speaks ('' none)."""
    speaking: dict[str, Watched] = {}
    for w in watched:                                                    # the worst first
        if w.state == "act":
            speaking.setdefault(w.chart.line, w)
    names = [str(c) for c in rows]
    found = [(row := dict(zip(names, values, strict=True))) | _both(row, speaking.get(row["line"]))
             for values in rows.itertuples(index=False, name=None)]
    return pd.DataFrame(rises.worst_first(found), columns=[*names, "chart"])


def _both(row: dict[str, Any], watched: Watched | None) -> dict[str, Any]:
    if watched is None:
        return dict(chart="")
    kind = watched.chart.characteristic.replace("_", " ")
    said = sentence(watched) + (f" ({kind})" if kind else "")
    normal = row["state"] == "normal"
    return dict(chart=watched.chart_id, state="look" if normal else row["state"], excess=max(row["excess"], watched.excess),
                reason=said if normal else f"{row['reason']}. {said}")
