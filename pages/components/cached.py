"""Answers of the store, kept between reruns until something new is ingested.

Stands between pages and `jobs.results`: the key is the store's revision, so a page never shows rows older than the last ingest
and never asks twice for the same. What only counts is kept until a verdict on its plant and line changes: with thirty people at work
something comes in every few seconds, and is seldom what the others look at. Knows nothing of what is asked.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import person

# One entry is a table of at most some thousand rows (well under 1 MB); a picture is 5-200 kB. Both caps keep the app under 150 MB.
_TABLES, _PICTURES = 300, 600
COUNTS = ("totals", "trend", "unusual_trend", "breakdown", "pareto", "per_million", "compared")         # hang on verdicts alone
# Their first argument is a plant, and they speak of it alone, and of no present moment but one that is an argument.
OF_A_PLANT = ("choices", "lines_now", "alarms", "control_charts", "control_trial", "reviews", "targets", "alert_rules", "annotations",
              "standstills", "named_kinds", "imaging", "target_outcomes", "put_to_use", "changes", "rules")
PERSONAL = ("reviews",)                # what the admin and the person see of it is not what others do


def cached(fn_name: str, *args: Any, **kwargs: Any) -> Any:
    """`jobs.results.<fn_name>(*args, **kwargs)`, asked again only after the next ingest. Errors are not kept."""
    return _answer(fn_name, _as_of(fn_name, args), person.named() if fn_name in PERSONAL else "", args, kwargs)


def _as_of(fn_name: str, args: tuple[Any, ...]) -> int:
    asked = [a for a in args if isinstance(a, jobs.Filters)]
    if fn_name in COUNTS and asked:
        return max(jobs.results.counted(a.plant, a.line) for a in asked)
    plants = {a.plant for a in asked} | ({args[0]} if fn_name in OF_A_PLANT else set())
    return max(map(jobs.results.known, plants)) if plants else jobs.results.revision()


def lately() -> datetime:
    """The present moment, to ten minutes: what hangs on the clock as well is asked again that often."""
    now = datetime.now(UTC)
    return now - timedelta(minutes=now.minute % 10, seconds=now.second, microseconds=now.microsecond)


def picture(inspection_id: int, width: int, boxes: bool = True, threshold: float | dict[str, float] | None = None) -> bytes:
    """The image of an inspection as JPEG, `width` pixels wide at most. Raises NotFoundError where the image was not kept."""
    return _picture(inspection_id, jobs.results.revision(), width, boxes, threshold)


@st.cache_data(max_entries=_TABLES, show_spinner=False)
def _answer(fn_name: str, revision: int, whose: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return getattr(jobs.results, fn_name)(*args, **kwargs)


@st.cache_data(max_entries=_PICTURES, show_spinner=False)
def _picture(inspection_id: int, revision: int, width: int, boxes: bool, threshold: float | dict[str, float] | None) -> bytes:
    return jobs.results.picture(inspection_id=inspection_id, width=width, boxes=boxes, threshold=threshold)
