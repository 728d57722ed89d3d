"""Dose and response: what comes of more synthetic pictures, and of more real labels, with intervals; what the one is worth in the other.

Reads `dose` of `comparison.json`. Knows nothing of how an interval, or a worth, is reached.
"""

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from pages.components import charts, text, words
from pages.components.comparison_figures import HOVER, METRICS

TITLES = {"synthetic": "**Synthetic pictures** beside the real ones", "labels": "**Labelled real pictures** alone"}
AXES = {"synthetic": "Synthetic pictures", "labels": "Labelled real pictures"}


def show(found: dict[str, Any]) -> None:
    """The worth is told with its interval, or not at all."""
    dose = found["dose"]
    curves = [dose, *([{"by": "labels", "points": dose["labels"]}] if dose.get("labels") else [])]
    with st.container(border=True, key="dose"):
        st.markdown("#### More of it, and what comes of it")
        grid = st.grid(len(curves), min_column_width=320)
        for curve in curves:
            with grid.container():
                st.markdown(TITLES[curve["by"]])
                charts.show(figure(curve, found["metric"]), f"dose_{curve['by']}", f"{METRICS[found['metric']]} by number of "
                                                                                   f"{AXES[curve['by']].lower()}, with intervals")
        if same := dose.get("equivalent"):
            st.markdown(f":material/swap_horiz: **{words.plain(same['sentence'], 300)}**")
        elif len(curves) > 1:
            st.caption("What the synthetic pictures are worth in real labels cannot be told: the two curves do not reach the same height.")


def figure(found: dict[str, Any], metric: str) -> go.Figure:
    """Means in a band, each with its interval."""
    rows, color = sorted(found["points"], key=lambda p: p["dose"]), charts.BLUE
    x, y = [p["dose"] for p in rows], [p["mean"] for p in rows]
    made, edge = go.Figure(), dict(x=x, mode="lines", line=dict(width=0), hoverinfo="skip")
    made.add_scatter(y=[p["high"] for p in rows], **edge)
    made.add_scatter(y=[p["low"] for p in rows], fill="tonexty", fillcolor=f"{color}29", **edge)
    made.add_scatter(x=x, y=y, mode="lines+markers", line=dict(color=color, width=2), marker=dict(size=10), hovertemplate=HOVER,
                     hovertext=[f"{text.html(p['arm'])}: {p['mean']:.3f} ({p['low']:.3f} to {p['high']:.3f})" for p in rows],
                     error_y=dict(array=[p["high"] - p["mean"] for p in rows], arrayminus=[p["mean"] - p["low"] for p in rows],
                                  color=color, thickness=2))
    room = 0.04 * max(x[-1], 1)
    made.update_xaxes(title=AXES[found["by"]], tickmode="array", tickvals=x, tickformat=",d", range=[-room, x[-1] + room])
    made.update_yaxes(title=METRICS[metric], nticks=6)
    return charts.layout(made, 300, hovermode="closest")
