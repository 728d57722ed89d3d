"""Behind a control chart: its stages, what changed and who froze what; figures for quality engineers; new limits, and putting it away."""

from functools import partial

import pandas as pd
import streamlit as st

from backend import jobs
from backend.jobs import signals
from backend.jobs.control import Save, Watched
from backend.jobs.trial import Trial
from pages.components import ask, control_figure, control_form, person, plant, text, undo, words
from pages.components.cached import cached, lately


def show(w: Watched, shown: str) -> None:
    with st.container(border=True, key="control_stages"):
        st.markdown("#### Limits and changes")
        for line in _story(w, shown):
            st.markdown(line)
        stage = w.stages[-1] if w.stages else None
        if stage and stage.note:
            st.info(words.plain(stage.note[:1].upper() + stage.note[1:] + ".", 300), icon=":material/hourglass_empty:")
        with st.container(horizontal=True):
            st.button("Freeze new limits …", key="refreeze", icon=":material/lock:", on_click=control_form.open_with, args=(w.chart,))
            ask.question("retire", "Put this chart away …", "Put this chart away?", partial(_retire, w, shown), icon=":material/archive:",
                         type="tertiary")
    more = st.expander("For quality engineers", icon=":material/square_foot:", key="control_expert", on_change="rerun")
    if more.open:
        with more:
            _expert(w, cached("control_trial", shown, w.chart, lately()))


def _unknown(shown: str) -> str:
    """Of a model whose step is not known: a promotion looks back by itself, which takes minutes."""
    if jobs.recent(limit=1, recipes=("shadow",), plant=shown, open_only=True):
        return "It is looking back on the pictures of the last days: what it changes by itself will stand here."
    return "Nobody has looked back with it, so its step is not known apart from the process."


def _story(w: Watched, shown: str) -> list[str]:
    """Decisions and changes in the order of time, each a line of Markdown."""
    by, told = w.chart.subgroup, []
    for save in w.saves:
        if save.at:
            told.append((save.at.isoformat(), f":material/lock: {_saved(save)}" if save.chart.limits else
                         f":material/visibility: Watched since {text.day(save.at)}, without limits of its own"))
    for promotion in w.promotions:
        step = f"  \n:small[{words.plain(w.steps[promotion.at], 300)}]" if promotion.at in w.steps else \
            f"  \n:small[{_unknown(shown)}]"
        told.append((promotion.at, f":material/published_with_changes: **{words.plain(promotion.model, 60)}** was put to use, from "
                                   f"{signals.when(promotion.at, by)} on: another inspector, with limits of its own{step}"))
    for local, text_ in zip(w.changes["local"], w.changes["text"], strict=True):
        told.append((local.isoformat(), f":material/rule: {words.plain(text_, 200)} All counts here are restated with it, so it is no "
                                        "change of the process"))
    return [f"{line}" for _, line in sorted(told)]


def _saved(save: Save) -> str:
    chart, by = save.chart, f" by {words.plain(save.by, 40)}" if save.by else ""
    n = len(chart.excluded)
    left = f", {n} left out: {words.plain('; '.join(dict.fromkeys(chart.excluded.values())), 200)}" if n else ""
    again = ". Restated, since rules changed afterwards" if save.restated else ""
    on = f" on {text.day(save.at)}" if save.at else ""
    return (f"Limits were frozen{by}{on}, from {chart.limits['subgroups']} {chart.subgroup}s, "
            f"{signals.when(chart.since, chart.subgroup)} to {signals.when(chart.until, chart.subgroup)}{left}{again}")


def _retire(w: Watched, shown: str) -> None:
    st.markdown("It is judged no more, and its limits and notes rest with it. Undo brings it back as it is.")
    if st.button("Put it away", type="primary", key="retire_yes", **person.barred("adjust")):
        config = dict(chart=w.chart_id, line=w.chart.line, product=w.chart.product, characteristic=w.chart.characteristic)
        undo.record(f"{signals.title(w)} is put away.", "retire", [config], shown)


def _expert(w: Watched, trial: Trial) -> None:
    """Kind, limits, rules, false alarms, and the evidence behind the choice of the kind."""
    known, chart = cached("control_choices"), w.chart
    st.markdown(f"**{known['kinds'][chart.kind]}**, each point one {chart.subgroup}"
                + (f"; EWMA, weight of the newest {chart.weight:g}" if chart.weight < 1 else ""))
    limits = w.stages[-1].limits if w.stages else None
    if limits:
        sigma = f", σz {limits.sigma:.3f}" if "'" in limits.kind else f", σ {limits.sigma:.4g}" if limits.kind in ("i", "t") else ""
        st.markdown(f"Centre {limits.center:.5g}{sigma}, {limits.width:g} standard errors, from {limits.subgroups} subgroups. "
                    f"{control_figure.said(w)}")
    st.markdown("Rules, on standardised values: " + "; ".join(known["rules"][r].lower() for r in chart.rules) + ".")
    for line in (trial.false_alarms and f"{trial.false_alarms}, if nothing changes.", trial.evidence, trial.rare):
        if line:
            st.markdown(words.plain(line, 400))
    if chart.excluded:
        st.dataframe(pd.DataFrame({"Left out": [signals.when(k, chart.subgroup) for k in chart.excluded],
                                   "because": list(chart.excluded.values())}), hide_index=True, alt="What was left out of the period")
    st.caption(f"Times in {plant.zone()}. Definitions: Western Electric 1956, Nelson 1984; Laney 2002 for p′ and u′.")
