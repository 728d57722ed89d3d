"""The two curves a person watches while a detector learns: its loss, and what it finds on the validation pictures."""

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pages.components import charts

FOUND = {"map50": "mAP50", "map50_95": "mAP50–95"}


def show(points: pd.DataFrame, key: str) -> None:
    """`points` as `jobs.live_metrics` gives them: step, name, value."""
    left, right = st.columns(2)
    with left:
        st.markdown("**Loss:** should fall")
        charts.show(_axes(charts.curves(losses(points))), f"loss_{key}", "Loss on training and validation pictures per pass")
    with right:
        st.markdown("**Found on validation pictures:** should rise")
        found = points[points["name"].isin(list(FOUND))]
        found = found.assign(name=found["name"].map(FOUND))
        charts.show(_axes(charts.curves(found)), f"found_{key}", "mAP on validation pictures per pass")


def losses(points: pd.DataFrame) -> pd.DataFrame:
    """The parts of the loss (box, class, edge) added up, for training and for validation."""
    parts = points[points["name"].str.endswith("loss")]
    which = parts["name"].str.startswith("val").map({True: "validation", False: "training"}).astype("str")
    return parts.assign(name=which).groupby(["step", "name"])[["value"]].sum().reset_index()


def _axes(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(title="Pass over the pictures", tickformat="d", nticks=8, rangemode="tozero")
    return figure.update_yaxes(rangemode="tozero")
