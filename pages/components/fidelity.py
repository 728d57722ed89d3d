"""Fidelity: does the student see what the diffusion model sees, and does it find the defects? Level by level, kind by kind.

Reads `fidelity.json` of a finished run: cosine of the student's features with the decoded ones of the diffusion model, by level
and class, and the student's AP50 by class, on val. Knows nothing of how they were compared.
"""

import json
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from backend import jobs
from pages.components import charts, heat, text


def read(run_id: str) -> dict[str, Any]:
    """Empty where the run has none."""
    try:
        found: dict[str, Any] = json.loads(jobs.run_file(run_id, "fidelity.json").read_bytes())
    except jobs.NotFoundError:
        return {}
    return found


def show(found: dict[str, Any], key: str) -> None:
    st.markdown("**Fidelity:** does the student see what the diffusion model sees?")
    st.caption("Each cell says how alike the two see one kind of defect (1: the same), from fine (P3) to coarse (P5); the bar beside "
               "says how well the student finds that kind. A pale row with a short bar is a kind it has not learned to see yet.")
    charts.show(figure(found), f"fidelity_{key}", "Likeness of features by level and kind of defect, beside AP50 of each kind")
    split = {"val": "validation", "test": "test", "train": "training"}.get(found["split"], found["split"])
    st.caption(f"On {text.count(found['images'])} {split} pictures.")


def figure(found: dict[str, Any]) -> go.Figure:
    """Kinds from the best found on top to the worst; map and bars share them."""
    ap = [found["ap50"].get(c) for c in found["classes"]]
    order = sorted(range(len(ap)), key=lambda i: -1.0 if ap[i] is None else ap[i])            # Plotly counts from the bottom
    names = [text.html(found["classes"][i]) for i in order]
    values = [[level[i] for level in found["cosine"]] for i in order]
    shown = make_subplots(1, 2, shared_yaxes=True, column_widths=[0.55, 0.45], horizontal_spacing=0.04,
                          subplot_titles=("Likeness (cosine)", "Found (AP50)"))
    shown.add_trace(heat.cells(values, [level.upper() for level in found["levels"]], names), 1, 1)
    shown.add_bar(x=[ap[i] for i in order], y=names, orientation="h", marker_color=charts.BLUE, row=1, col=2, textposition="auto",
                  text=["–" if ap[i] is None else f"{ap[i]:.2f}" for i in order], hovertemplate="%{y}: %{x:.3f}<extra></extra>")
    shown.update_xaxes(range=[0, 1.02], nticks=3, row=1, col=2)
    shown.update_yaxes(type="category")
    return charts.layout(shown, 90 + 36 * len(names)).update_layout(margin=dict(l=0, r=4, t=32, b=0))
