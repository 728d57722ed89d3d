"""The curves a person watches while something learns: losses, what is found, and whether the teacher is heard.

Takes the points of one training: of a plain run, or of one stage of a guided run with its prefix taken off. A panel is there
when its points are. Knows nothing of runs or stages.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import charts

FOUND = {"map50": "mAP50", "map50_95": "mAP50–95"}
TERM = {"box_loss": "boxes", "distill_loss": "distillation", "logit_loss": "class answers"}
NORMAL = {"cosine_loss": "cosine", "focal_loss": "focal", "overlap_loss": "overlap", "image_loss": "whole image"}
TAP = r"^tap_t(\d+)_b(\d+)$"
LIKE = {"resvae_cosine": "training", "cosine": "training"}


@dataclass(frozen=True)
class Panel:
    """One chart: its heading, the points in it with names as shown, and a sentence from them."""

    title: str
    alt: str
    points: Callable[[pd.DataFrame], pd.DataFrame]
    note: Callable[[pd.DataFrame], str] = lambda points: ""
    top: float | None = None


def show(points: pd.DataFrame, key: str) -> None:
    """`points` as `jobs.live_metrics` gives them: step, name, value."""
    unit = "Pass over the pictures" if set(points["name"]) & {*FOUND, "box_loss"} else "Step"
    grid = st.grid(2, min_column_width=280)
    for number, panel in enumerate(PANELS):
        shown = panel.points(points)
        if len(shown):
            with grid.container():
                _draw(panel, shown, unit, f"curve{number}_{key}")


def _draw(panel: Panel, points: pd.DataFrame, unit: str, key: str) -> None:
    st.markdown(panel.title)
    charts.show(_axes(charts.curves(points), unit, panel.top), key, f"{panel.alt} per {unit.lower()}")
    if note := panel.note(points):
        st.caption(note)


def losses(points: pd.DataFrame) -> pd.DataFrame:
    """The parts of the loss (box, class, edge) added up, for training and for validation.

    Without the distillation terms: validation has none, and the two should compare.
    """
    apart = ("distill_loss", "logit_loss", *NORMAL)
    parts = points[points["name"].str.endswith(("loss", "mse")) & ~points["name"].str.endswith(apart)]
    which = parts["name"].str.startswith("val").map({True: "validation", False: "training"}).astype("str")
    return parts.assign(name=which).groupby(["step", "name"])[["value"]].sum(min_count=1).reset_index()


def gates(points: pd.DataFrame) -> pd.DataFrame:
    open_ = points[points["name"].str.startswith("gate_")]
    return open_.assign(name=open_["name"].str.removeprefix("gate_").str.upper())


def taps(points: pd.DataFrame) -> pd.DataFrame:
    """What each feature map (timestep, block of the decoder) counts for, as mean over the pictures of an epoch."""
    weights = points[points["name"].str.match(TAP)]
    return weights.assign(name=weights["name"].str.replace(TAP, r"step \1, block \2", regex=True))


def term(points: pd.DataFrame) -> pd.DataFrame:
    """The distillation terms beside the box loss, their measure; nothing where there is no distillation."""
    return _named(TERM)(points) if {"distill_loss", "logit_loss"} & set(points["name"]) else points.head(0)


def said_of_gates(points: pd.DataFrame) -> str:
    now = _latest(points)
    if not now.any():
        return ":material/lock: Closed: nothing of the diffusion model's features comes in yet."
    return ":material/lock_open: Open: " + ", ".join(f"{name} {value:.3f}" for name, value in now.items()) + "."


def said_of_term(points: pd.DataFrame) -> str:
    now = _latest(points)
    box = now.get("boxes", 0.0)
    value = now.sum() - box
    if not value:
        return ":material/hearing_disabled: Distillation is off: its term is zero."
    return ":material/hearing: Distillation is on" + (f": its term is {value / box:.1f} times the box loss." if box else ".")


def _latest(points: pd.DataFrame) -> pd.Series:
    return points.dropna(subset=["value"]).sort_values("step").groupby("name")["value"].last()


def _named(names: dict[str, str]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def chosen(points: pd.DataFrame) -> pd.DataFrame:
        found = points[points["name"].isin(list(names))]
        return found.assign(name=found["name"].map(names))
    return chosen


def _axes(figure: go.Figure, unit: str, top: float | None) -> go.Figure:
    figure.update_xaxes(title=unit, tickformat="d", nticks=8, rangemode="tozero")
    return figure.update_yaxes(range=[0, top]) if top else figure.update_yaxes(rangemode="tozero")


PANELS = (
    Panel("**Loss:** should fall", "Loss on training and validation pictures", losses),
    Panel("**What is normal, and where it ends:** each should fall", "Losses of an anomaly model", _named(NORMAL)),
    Panel("**Found on validation pictures:** should rise", "mAP on validation pictures", _named(FOUND)),
    Panel("**Distillation beside the box loss:** two like terms", "Distillation term and box loss", term, said_of_term),
    Panel("**Gates:** how much comes in from the diffusion model", "Mean gate of each level", gates, said_of_gates),
    Panel("**Weights of the feature maps:** which of them count", "Mean weight of each feature map of the diffusion model", taps),
    Panel("**Likeness of what is unpacked:** should come near 1", "Cosine of compressed and true features", _named(LIKE), top=1.02),
)
