"""Targets of a plant: what was set, how the newest shift stands against each, and the forms to set one, change it and take it away."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from backend import jobs
from backend.jobs import signals
from backend.jobs.alarms import MEASURES, Target
from pages.components import charts, person, plant, text, undo, words
from pages.components.cached import cached, lately

STATES = {"missed": ("Missed", ":material/error:", "red"), "near": ("Near", ":material/visibility:", "orange"),
          "met": ("Met", ":material/check_circle:", "green"), "few": ("Too few", ":material/hourglass_empty:", "gray")}


def show(shown: str) -> None:
    st.markdown("### Targets")
    judged = cached("target_outcomes", shown, lately())
    if not judged:
        st.caption("No target is set. One holds for a line, a product or a kind of defect, and each shift is judged by it.")
    grid = st.grid(3, min_column_width=290)
    for one in judged:
        with grid.cell():
            _card(one, shown)
    if person.told("adjust"):
        with st.popover("Set a target", icon=":material/flag:", key="new_target"):
            _form(shown, None)


def shares(asked: jobs.Filters) -> list[float]:
    """Defect rates that are aimed at for just this selection; of a mixed one there is none."""
    if asked.shift or asked.camera or asked.lot or asked.run_id:
        return []
    return [target.value if target.measure == "defect rate" else 1 - target.value for target in cached("targets", asked.plant)
            if (target.line, target.product, target.class_name) == (asked.line, asked.product, asked.class_name)]


def draw(figure: go.Figure, aimed: list[float], buckets: "pd.Series[pd.Timestamp]") -> None:
    """Each as a line of its own, with its figure."""
    for share in aimed if len(buckets) else ():
        figure.add_scatter(x=[buckets.iloc[0], buckets.iloc[-1]], y=[share, share], mode="lines+text", hoverinfo="skip", row=1, col=1,
                           line=dict(color=charts.GREEN, width=1.5, dash="8px,4px"), textposition="top right", cliponaxis=False,
                           text=[f"target {text.percent(share)}", ""], textfont=dict(color=charts.GREEN, size=11))


def _card(one: Any, shown: str) -> None:
    target = one.target
    word, icon, color = STATES[one.outcome.state] if one.outcome else ("No shift yet", ":material/hourglass_empty:", "gray")
    with st.container(border=True, height="stretch", key=f"target_{target.target_id}", gap="xsmall"):
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"**{words.plain(target.where[:1].upper() + target.where[1:], 80)}**", width="content")
            st.badge(word, icon=icon, color=color)
        st.markdown(words.plain(target.words, 80))
        st.caption(words.plain(_said(one), 300))
        with st.container(horizontal=True, vertical_alignment="center"):
            query = {"line": target.line, "product": target.product, "kind": target.class_name}
            plant.link("trends", "See the trend", icon=":material/trending_up:", **{k: v for k, v in query.items() if v})
            if person.may("adjust"):
                with st.popover("Change", type="tertiary", icon=":material/edit:", key=f"edit_target_{target.target_id}"):
                    _form(shown, target)


def _said(one: Any) -> str:
    if one.outcome is None:
        return "No shift of the last days brought anything."
    began: datetime = one.bucket
    return f"Shift from {signals.when(began.isoformat())}: {one.outcome.words.removesuffix(f', target {_goal(one.target)}')}"


def _goal(target: Target) -> str:
    return target.words.partition(" at ")[2] and f"at {target.words.partition(' at ')[2]}"


def _form(shown: str, target: Target | None) -> None:
    known, key = cached("choices", shown), target.target_id if target else "new"
    with st.form(f"target_form_{key}", border=False):
        if target is None:
            line = _one("Line", known["lines"], "The whole plant")
            product = _one("Product", known["products"], "All products")
            kind = _one("Kind of defect", known["classes"], "All defects")
            measure = st.selectbox("Measure", list(MEASURES), format_func=MEASURES.get)
            target = Target(line, product, kind, str(measure))
        value = st.number_input("Target, in %", 0.0, 100.0, 100 * target.value if key != "new" else None, step=0.1, format="%.2f",
                                placeholder="2.00")
        if st.form_submit_button("Save", type="primary") and value is not None:
            one = replace(target, value=value / 100)
            undo.record(f"Target for {one.where}: {one.words}.", "target", [one.to_json()], shown)
    if key != "new" and st.button("Take it away", key=f"drop_target_{key}", icon=":material/delete:", type="tertiary"):
        undo.record(f"The target for {target.where} is taken away.", "target", [replace(target, removed=True).to_json()], shown)


def _one(label: str, known: list[str], nothing: str) -> str:
    return str(st.selectbox(label, ["", *known], format_func=lambda v: v or nothing) or "")
