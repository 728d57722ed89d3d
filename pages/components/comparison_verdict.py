"""The verdict: one sentence and its interval, what speaks against trusting it, seeds, kinds of defect, dose; what would decide it.

Reads `comparison.json`. While there is none for these runs, offers to work it out. Knows nothing of how an interval is reached.
"""

from functools import partial
from typing import Any

import streamlit as st

from backend import jobs
from pages.components import (
    ask,
    charts,
    comparison_dose,
    comparison_proof,
    comparison_table,
    plant,
    shadow_view,
    text,
    training_form,
    words,
)
from pages.components import comparison_figures as figures
from pages.components.cached import cached
from pages.components.comparison_subject import Subject

# kind of caution -> its icon; those named last only inform
STOPPING = ("Fix the number now, and judge when all of them are in: whoever looks after each addition, and stops once a difference shows, "
            "takes luck for a difference more often than the 1 time in 20 that the interval allows.")
GRAVE = {"near-duplicates": ":material/content_copy:", "steps": ":material/balance:"}


def show(subject: Subject) -> None:
    if not subject.result:
        _none_yet(subject)
        return
    found = subject.result
    cautions(found["warnings"])
    at = _choose(found["differences"])
    row = found["differences"][at]
    with st.container(border=True, key="verdict"):
        sentence(row, found)
        charts.show(figures.differences(found["differences"], found["margin"], at), f"whisker_{subject.run_id}_{at}", row["sentence"])
        st.caption(f"Bar: where the true difference lies, 19 times of 20. Grey: smaller than we would act on, {100 * found['margin']:g} "
                   f"{'point' if found['margin'] == 0.01 else 'points'} either way.")
        _decide(row, subject)
        _use(found, subject)
    _beside(row, found, subject)
    comparison_proof.show(row)
    if found.get("dose"):
        comparison_dose.show(found)
    comparison_table.show(found, subject)


def cautions(told: list[dict[str, str]]) -> None:
    """What bears on trusting it as banners; the rest as lines."""
    for caution in told:
        if icon := GRAVE.get(caution["kind"]):
            st.warning(words.plain(caution["text"], 600), icon=icon)
    for caution in told:
        if caution["kind"] not in GRAVE:
            st.caption(f":material/info: {words.plain(caution['text'], 600)}")


def _choose(rows: list[dict[str, Any]]) -> int:
    if len(rows) < 2:
        return 0
    names = [f"{words.short(r['a'], 40)} against {words.short(r['b'], 40)}" for r in rows]
    chosen = st.selectbox("Difference", names, key="difference", bind="query-params", width=420, label_visibility="collapsed")
    return names.index(chosen) if chosen in names else 0


def sentence(row: dict[str, Any], found: dict[str, Any]) -> None:
    """Large, with how sure it is in words."""
    word, color, icon, _, _ = figures.MEANS[row["verdict"]]
    st.markdown(f"## :{color}[{icon}] {words.plain(row['sentence'].partition(' Provisional:')[0], 600)}")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="verdict_badges"):
        st.badge(word, color=color, icon=icon)
        if row["provisional"]:
            st.badge(f"Provisional: {text.counted(min(row['seeds']), 'seed')}", color="orange", icon=":material/hourglass_empty:",
                     help="Below five seeds the interval is a hint: how much seeds differ is itself hardly known.")
        st.caption(drawn(row, found), width="content")


def drawn(row: dict[str, Any], found: dict[str, Any]) -> str:
    """What the interval covers."""
    few, many = sorted(row["seeds"])
    seeds = f"{text.counted(few, 'seed')} each" if few == many else f"{few} and {many} seeds"
    arms = f" · the intervals of all {row['among']} arms hold together" if row.get("among", 1) > 1 else ""
    units = f" in {text.count(found['groups'])} groups ({words.plain(found['grouped_by'])})" if found.get("grouped_by") else ""
    return f"{seeds} · {text.count(found['images'])} test pictures{units}{arms}"


def _decide(row: dict[str, Any], subject: Subject) -> None:
    """What would settle it, where the sentence says that more seeds would."""
    if more := row["more_seeds"]:
        seeds = text.counted(more, "more seed")
        if subject.experiment:
            ask.question("seeds", f"Plan {seeds} …", f"{seeds} for each arm", partial(_more, subject.experiment, more), "medium",
                         icon=":material/add:", type="primary")
        else:
            plant.link("comparison", f"Plan an experiment with {seeds}", icon=":material/science:", new="plan")
        st.caption(f":material/info: {STOPPING}")


def _use(found: dict[str, Any], subject: Subject) -> None:
    """On to the model that is best on validation pictures: looked back with, then put to use."""
    runs = found["arms"].get(found["best_on_val"], dict(runs=[]))["runs"]
    best = max(runs, key=lambda run: run[f"val_{found['metric']}"], default=None)
    rows = subject.rows[subject.rows["run_id"] == best["run_id"]] if best else subject.rows.head(0)
    if len(rows) and not rows["promoted"].any() and rows["model_id"].iloc[0] in set(cached("models")["model_id"]):
        name = words.short(rows["name"].iloc[0], 40)
        shadow_view.link(str(rows["model_id"].iloc[0]), f"Best on validation: {name}. Look back with it, then put it to use")


def _more(experiment: str, more: int) -> None:
    """The same with more seeds: what is trained already is found again, so only the new ones take time."""
    asked = jobs.experiment(experiment)["config"]
    config = jobs.Experiment.from_json({**asked, "seeds": asked["seeds"] + more})
    try:
        plan = jobs.plan_experiment(config)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.markdown(f"**{words.plain(config.name, 60)}** with {config.seeds} seeds. Runs that are done are used again.")
    takes = f"About {words.span(plan['seconds'])} on this machine." if plan["seconds"] else "How long it takes is known after a first run."
    st.caption(f":material/timer: {takes}{training_form.ahead()}")
    if st.button("Start", type="primary", icon=":material/play_arrow:", key="seeds_go"):
        st.query_params.from_dict({"experiment": jobs.start_experiment(config)})
        ask.answered()
        st.rerun()


def _beside(row: dict[str, Any], found: dict[str, Any], subject: Subject) -> None:
    """Seeds as dots, kinds of defect as bars."""
    grid = st.grid(2, min_column_width=340)
    order, metric = list(subject.arms), str(found["metric"])
    with grid.container(border=True, key="seeds", height="stretch"):
        st.markdown("**Each seed a dot**, the mean a line")
        charts.show(figures.seeds(found["arms"], order, metric), f"seeds_{subject.run_id}",
                    f"{figures.METRICS[metric]} of each seed, arm by arm")
    with grid.container(border=True, key="kinds", height="stretch"):
        st.markdown(f"**Kind by kind:** {words.plain(row['a'], 40)} against {words.plain(row['b'], 40)}")
        charts.show(figures.classes(row), f"kinds_{subject.run_id}_{row['a']}_{row['b']}",
                    "Difference of each kind of defect, with its interval")
        st.caption("The intervals hold for all kinds together, 19 times of 20. Hatched: it may be chance.")


def _none_yet(subject: Subject) -> None:
    """Finished runs without a verdict: the button that works it out, or the run that does."""
    with st.container(border=True, key="no_verdict"):
        st.markdown("#### :material/balance: No verdict yet")
        seeds = [len(runs) for runs in subject.arms.values()]
        few = " With fewer than five seeds an arm it will be provisional." if min(seeds) < 5 else ""
        st.markdown("Whether the arms differ is worked out from what each run found in every test picture: the difference, and where it "
                    f"may lie had other pictures been tested and other seeds run. It takes seconds, and is kept.{few}")
        if not subject.rows["scored"].astype(bool).all():
            st.caption(":material/info: Some of these runs have no stored finds yet; `python -m backend score --model NAME` adds them.")
        if st.button("Work out the verdict", type="primary", icon=":material/balance:", key="compare_go"):
            start(subject.arms, subject.baseline, subject.name)


def start(arms: dict[str, list[str]], baseline: str, name: str) -> None:
    """Hand it over, and look at it."""
    try:
        run_id = jobs.compare(arms, baseline, name)
    except jobs.DiffspectError as error:
        words.sorry(error)
        return
    st.query_params.from_dict({"run": run_id})
    st.rerun()
