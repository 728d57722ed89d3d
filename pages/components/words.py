"""Runs in words: names safe to show, durations, the pill of a state.

Names of files, lines and models come from people, so they pass `plain` before any Markdown sees them.
"""

import re
import unicodedata
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from backend import jobs

_MARKS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&])")

RECIPES = {"import": "Dataset", "train-detector": "Training", "train-distilled": "Training with a teacher", "inspect": "Inspection",
           "watch": "Folder watch",
           "predict": "Prediction", "shadow": "Look back", "shift-report": "Shift report",
           "check": "Software check", "demo": "Demo plant", "demo-model": "Demo model",
           "draw-plates": "Drawn dataset", "demo-experiment": "Demo experiment",
           "train-diffusion": "Diffusion model", "probe-features": "Feature ranking",
           "build-repository": "Feature repository", "teach-backbone": "Taught backbone",
           "train-fused": "Fused teacher", "distill": "Distilled detector", "train-anomaly": "Anomaly model",
           "experiment": "Experiment", "compare": "Comparison",
           "synthesize": "Synthetic defects", "collect-masks": "Outlines of a new defect", "train-prior": "Surface prior",
           "adapt-prior": "Adapted prior", "measure-synthesis": "Quality of a synthetic set", "search-synthesis": "Search of settings",
           "score": "Scoring of a model", "measure-precision": "Measuring of bf16", "combine": "Dataset with added pictures",
           "relabel": "Dataset with new labels", "train-classifier": "Classifier", "backup": "Backup", "restore": "Restored backup",
           "retention": "Retention"}
DETECTOR_MAKERS = ("train-detector", "train-distilled", "distill")
MODEL_MAKERS = (*DETECTOR_MAKERS, "train-anomaly", "train-classifier")
TRAININGS = (*MODEL_MAKERS, "train-prior", "adapt-prior", "train-diffusion", "build-repository", "teach-backbone", "train-fused",
             "probe-features")
STATES = {"pending": ("Waiting", "gray", ":material/schedule:"), "running": ("Running", "blue", ":material/progress_activity:"),
          "completed": ("Done", "green", ":material/check:"), "failed": ("Failed", "red", ":material/error:"),
          "canceled": ("Canceled", "gray", ":material/block:"), "interrupted": ("Interrupted", "orange", ":material/power_off:")}


def short(name: object, limit: int = 48) -> str:
    """One line of at most `limit` characters, cut in the middle: a file name keeps its end. Nothing unprintable in it."""
    line = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in str(name)).strip()
    return line if len(line) <= limit else f"{line[:limit - limit // 3 - 1]}…{line[-(limit // 3):]}"


def plain(name: object, limit: int = 160) -> str:
    """The same, safe for Markdown: what a person typed is shown, never interpreted."""
    return _MARKS.sub(r"\\\1", short(name, limit))


def number(value: float | None) -> str:
    """A figure between 0 and 1 with three digits."""
    return "–" if value is None or value != value else f"{value:.3f}"


def span(seconds: float | None) -> str:
    """A duration as people say it."""
    if seconds is None or seconds != seconds:
        return "–"
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{round(seconds / 86_400)} days"


def moment(iso: Any) -> datetime | None:
    """A time from a status (ISO text) or a query (Timestamp), in the viewer's own time zone."""
    if iso is None or iso == "" or iso != iso:
        return None
    at = datetime.fromisoformat(iso) if isinstance(iso, str) else iso.to_pydatetime() if hasattr(iso, "to_pydatetime") else iso
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return at.astimezone(_zone())


def _zone() -> tzinfo:
    """The viewer's; UTC where the browser names none that is known here."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (KeyError, ValueError, OSError):          # unknown, malformed, or a folder of zones
        return UTC


def when(iso: Any) -> str:
    """'14:05' today, else '3 Nov 14:05'."""
    at = moment(iso)
    if at is None:
        return "–"
    return f"{at:%H:%M}" if at.date() == datetime.now(at.tzinfo).date() else f"{at.day} {at:%b %H:%M}"


def lasted(status: jobs.RunStatus) -> float | None:
    """Seconds a run took, or has taken so far."""
    begun, ended = moment(status.started_at), moment(status.finished_at)
    return None if begun is None else ((ended or datetime.now(UTC)) - begun).total_seconds()


def state(status: jobs.RunStatus) -> str:
    return "Stopping" if status.canceling and status.is_open else STATES[status.state][0]


def pill(status: jobs.RunStatus) -> None:
    _, color, icon = STATES[status.state]
    st.badge(state(status), color=color, icon=icon)


def title_of(status: jobs.RunStatus, limit: int = 60) -> str:
    """'Training · steel strip', escaped."""
    kind = RECIPES.get(status.recipe, status.recipe)
    return f"{kind} · {plain(status.name, limit)}" if status.name not in ("", kind) else kind


def sorry(error: jobs.DiffspectError) -> None:
    """An error worded for the person who meets it, as it stands."""
    st.error(plain(error, 600), icon=":material/error:")
