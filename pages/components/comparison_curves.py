"""Curves of all runs compared, laid over each other: one colour per arm, seeds thin, their mean thick; the model in use beside.

By pass over the pictures, by optimiser step or by time. Knows nothing of verdicts.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from pages.components import charts, stages, text, training_curves, words
from pages.components import comparison_figures as figures
from pages.components.cached import cached
from pages.components.comparison_subject import Subject

AXES = {"epoch": "Passes over the pictures", "step": "Optimiser steps", "time": "Minutes"}
WHAT = {"map50": "mAP50 on val", "map50_95": "mAP50–95 on val", "training": "Training loss", "validation": "Validation loss"}
FOUND = ("map50", "map50_95")
STAGE = "student_"                # curves of the detector in a guided run carry it
MOST = 400                        # points of a line that are drawn: more than a screen has room for
USED = charts.VIOLET


def show(subject: Subject) -> None:
    st.fragment(_overlay, key="curves")(subject)


def _overlay(subject: Subject) -> None:
    runs = tuple(subject.rows["run_id"])
    there = [what for what in WHAT if _names(what, cached("curve_names", list(runs)))]
    if not there:
        st.info("No curves were kept of these runs.", icon=":material/show_chart:")
        return
    what, axis, smooth = _tools(there)
    shown = along(curves(runs, what, jobs.results.revision()), subject.rows, axis)
    if shown["x"].isna().all():
        st.caption("When these runs reached each point was not written down. Choose another axis.")
        return
    used = in_use(subject) if what in FOUND else None
    charts.show(figure(shown, subject, what, axis, smooth, used), f"overlay_{what}_{axis}",
                f"{WHAT[what]} of every run, by {AXES[axis].lower()}")
    st.caption("Thin: one seed. Thick: the mean of an arm, as far as all of its seeds go."
               + (f" Dotted: {words.plain(used['name'], 40)}, in use now." if used is not None else ""))
    if what in FOUND:
        _table(subject, what, used)


def _tools(there: list[str]) -> tuple[str, str, float]:
    """Which curve, along what, how smooth."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="curve_tools"):
        what = st.segmented_control("Curve", there, default=there[0], required=True, format_func=WHAT.get, key="curve", wrap=True,
                                    bind="query-params")
        axis = st.segmented_control("Along", list(AXES), default="epoch", required=True, format_func=str.capitalize, key="along",
                                    bind="query-params")
        smooth = st.slider("Smoothing", 0.0, 0.95, 0.0, 0.05, key="smooth", width=180, bind="query-params",
                           help="Weight of what came before, at each point. The table below knows nothing of it.")
    return str(what), str(axis), float(smooth)


def _names(what: str, there: Iterable[str]) -> list[str]:
    """Curves, as runs call them, that one of ours is made of; the steps of a guided run's detector with them."""
    found = []
    for name in there:
        own = name.removeprefix(STAGE)
        is_loss = own.endswith(("loss", "mse")) and (what == "validation") == own.startswith("val")
        found += [name] if own == what or (what in ("training", "validation") and is_loss) else []
    return [*found, f"{STAGE}step"] if found else []


@st.cache_data(max_entries=12, show_spinner=False)      # 25 runs of 1,000 passes are 25,000 rows
def curves(run_ids: tuple[str, ...], what: str, revision: int) -> pd.DataFrame:
    """run_id, step, value, at_s of one of WHAT. Of a guided run, its detector's."""
    raw = jobs.results.curves(list(run_ids), tuple(_names(what, jobs.results.curve_names(list(run_ids)))))
    parts = [_of_run(rows, what).assign(run_id=run_id) for run_id, rows in raw.groupby("run_id")]
    columns = ["run_id", "step", "value", "at_s"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _of_run(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    if rows["name"].str.startswith(STAGE).any():
        rows = stages.of_stage(rows, STAGE.rstrip("_"))
    when = rows.groupby("step")["at_s"].max()
    shown = rows[rows["name"] == what] if what in FOUND else training_curves.losses(rows).query("name == @what")
    return shown.assign(at_s=shown["step"].map(when))


def along(points: pd.DataFrame, rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    """With `x` as the axis counts."""
    if axis == "time":
        return points.assign(x=points["at_s"] / 60)
    each = (rows.set_index("run_id")["steps"] / rows.set_index("run_id")["epochs"]).to_dict()
    return points.assign(x=points["step"] * (points["run_id"].map(each) if axis == "step" else 1.0))


def figure(points: pd.DataFrame, subject: Subject, what: str, axis: str, smooth: float, used: pd.Series | None) -> go.Figure:
    made = go.Figure()
    for at, arm in enumerate(subject.arms):
        color, _, dash = figures.style(at)
        lines = [smoothed(points[points["run_id"] == run].sort_values("x"), smooth) for run in subject.arms[arm]]
        lines = [line for line in lines if len(line)]
        for line in lines:
            made.add_scatter(x=line["x"], y=line["value"], mode="lines", line=dict(color=color, width=1, dash=dash), opacity=0.45,
                             showlegend=False, hoverinfo="skip")
        if lines:
            x, y = mean(lines)
            made.add_scatter(x=x, y=y, mode="lines", line=dict(color=color, width=3.5, dash=dash), name=text.html(words.short(arm, 40)),
                             hovertemplate="%{y:.3f}")
    if used is not None:
        made.add_hline(y=float(used[f"val_{what}"]), line=dict(color=USED, width=2, dash="dot"), annotation_text="in use",
                       annotation_position="top left", annotation_font=dict(color=USED))
    made.update_xaxes(title=AXES[axis], nticks=8, rangemode="tozero")
    made.update_yaxes(title=WHAT[what], nticks=7)
    return charts.layout(made, 400, hovermode="x unified").update_layout(showlegend=True, legend=charts.LEGEND)


def smoothed(line: pd.DataFrame, weight: float) -> pd.DataFrame:
    """An exponential mean that starts at the first value; thinned to what a screen can show."""
    value = line["value"].ewm(alpha=1 - weight, adjust=True).mean() if weight else line["value"]
    line = line.assign(value=value)
    return line.iloc[np.unique(np.linspace(0, len(line) - 1, MOST).astype(int))] if len(line) > MOST else line


def mean(lines: Sequence[pd.DataFrame]) -> tuple[list[float], list[float]]:
    """Where every line of an arm is: none reaches beyond its shortest one."""
    low, high = max(line["x"].iloc[0] for line in lines), min(line["x"].iloc[-1] for line in lines)
    x = np.unique(np.concatenate([line["x"].to_numpy(float) for line in lines]))
    x = x[(x >= low) & (x <= high)]
    x = x[np.unique(np.linspace(0, len(x) - 1, MOST).astype(int))] if len(x) > MOST else x
    y = np.mean([np.interp(x, line["x"].to_numpy(float), line["value"].to_numpy(float)) for line in lines], axis=0)
    return x.tolist(), y.tolist()


def in_use(subject: Subject) -> pd.Series | None:
    """The model in use, where it was scored on the same test set."""
    known = cached("scored_runs")
    rows = known[known["promoted"].astype(bool) & known["test_set_id"].isin(subject.rows["test_set_id"])]
    return rows.iloc[0] if len(rows) else None


def _table(subject: Subject, what: str, used: pd.Series | None) -> None:
    """Final figures, mean of the seeds, with the step from the baseline and from the model in use."""
    name, base = figures.METRICS[what], subject.runs(subject.baseline)[what].mean()
    rows = [{"Arm": words.short(arm, 40), "Seeds": len(of), f"{name} val": of[f"val_{what}"].mean(), f"{name} test": of[what].mean(),
             "Against the baseline": "baseline" if arm == subject.baseline else figures.points(of[what].mean() - base),
             **({"Against the model in use": figures.points(of[what].mean() - used[what])} if used is not None else {})}
            for arm in subject.arms if len(of := subject.runs(arm))]
    column = st.column_config.NumberColumn(format="%.3f")
    st.dataframe(pd.DataFrame(rows), hide_index=True, alt="Final figures of each arm", column_config={
        "Arm": st.column_config.TextColumn(pinned=True), f"{name} val": column, f"{name} test": column})
    if used is not None:
        st.caption(f"In use: {words.plain(used['name'], 60)}, {name} {words.number(used[what])} on test, one run of one seed. Steps are in "
                   "points, of test; a small one may be chance.")
