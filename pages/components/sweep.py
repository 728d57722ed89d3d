"""Which features? What a linear reader finds with each decoder block at each timestep, as a map; and asking for that ranking.

Reads the result of a `probe-features` run. Knows nothing of how features are read.
"""

import json
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from pages.components import charts, form, heat, run_panel, words

TOGETHER = "All blocks"


def ask(dataset: str) -> None:
    """Part of the form: rank the features of a diffusion model of this dataset; nothing where there is none yet."""
    made = denoisers(dataset)
    if not made:
        return
    st.markdown("**Which features?** Rank blocks and timesteps")
    st.caption("A small reader is fitted to what the diffusion model sees, block by block and timestep by timestep, "
               "and scored on the validation pictures.")
    chosen = st.selectbox("Diffusion model", made, format_func=words.short, key="rank_denoiser")
    values = form.fields(jobs.ProbeFeatures, ("timesteps", "images", "seed"), "rank")
    if st.button("Rank them", icon=":material/leaderboard:", key="rank_go"):
        run_panel.start(jobs.ProbeFeatures(dataset=dataset, denoiser=chosen, **values), "run")


def denoisers(dataset: str) -> list[str]:
    """Names of the finished diffusion models of a dataset's snapshot, newest first."""
    heads = (_head(r.run_id) for r in jobs.recent(limit=100, recipes=("train-diffusion", "train-distilled")) if r.state == "completed")
    return list(dict.fromkeys(str(h["name"]) for h in heads if h.get("snapshot_id") == dataset))


def _head(run_id: str) -> dict[str, Any]:
    try:
        head: dict[str, Any] = json.loads(jobs.run_file(run_id, "denoiser/head.json").read_bytes())
    except jobs.NotFoundError:                       # it reused one
        return {}
    return head


def show(found: dict[str, Any], key: str) -> None:
    rows, at = table(found)
    st.markdown("**What a linear reader finds** with each block, at each timestep (mean AP on validation pictures)")
    charts.show(figure(rows, [f"t = {t}" for t in found["timesteps"]], at), f"sweep_{key}", "Mean AP by decoder block and timestep")
    row, column = at
    name, timestep = list(rows)[row], found["timesteps"][column]
    st.caption(f":material/star: Best: **{name[:1].lower() + name[1:]}** at timestep **{timestep}**, {rows[name][column]:.3f}. "
               "Block 0 is the innermost: it sees most of the picture, in the least detail. A training reads all blocks at timestep 20, "
               "unless its Advanced settings say others.")


def table(found: dict[str, Any]) -> tuple[dict[str, list[float | None]], tuple[int, int]]:
    """Rows from the innermost block to all together, a value per timestep; and where the best stands (row, column)."""
    rows = {f"Block {b}": [per_block[i] for per_block in found["ap"]] for i, b in enumerate(found["blocks"])}
    if found.get("together"):
        rows[TOGETHER] = list(found["together"])
    cells = [(v, (r, c)) for r, row in enumerate(rows.values()) for c, v in enumerate(row) if v is not None]
    return rows, max(cells)[1]


def figure(rows: dict[str, list[float | None]], timesteps: list[str], at: tuple[int, int]) -> go.Figure:
    names = list(rows)
    shown = go.Figure(heat.cells(list(rows.values()), timesteps, names, digits=3))
    heat.frame(shown, at[1], at[0], charts.AMBER)
    shown.update_yaxes(autorange="reversed", type="category").update_xaxes(type="category", side="top")
    return charts.layout(shown, 60 + 46 * len(names)).update_layout(margin=dict(l=0, r=4, t=32, b=0))
