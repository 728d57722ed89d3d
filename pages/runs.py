"""Runs: everything this machine was asked to do, how it went, and why it failed. The run looked at stands in the URL as `run`."""

import json

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import plant, results_note, run_panel, words
from pages.components.cached import cached

MOST = 200
PILLS = st.column_config.MultiselectColumn(options=[s for s, _, _ in words.STATES.values()], color=[c for _, c, _ in words.STATES.values()])
NEXT = {"inspect": ("inspection", "See the batch", "batch"), "watch": ("inspection", "See its pictures", "batch"),
        "import": ("datasets", "See the datasets", ""), "demo": ("overview", "See the demo plant", ""),
        "synthesize": ("synthesis", "See the pictures", "set"), "combine": ("datasets", "See the datasets", ""),
        "experiment": ("comparison", "See the experiment", "experiment"), "compare": ("comparison", "See the comparison", "run"),
        "shadow": ("models", "See both trends", "look"), **dict.fromkeys(words.TRAININGS, ("training", "See the curves", "run"))}


def table(runs: list[jobs.RunStatus]) -> pd.DataFrame:
    return pd.DataFrame({
        "State": [[words.state(r)] for r in runs], "What": [words.RECIPES.get(r.recipe, r.recipe) for r in runs],
        "Name": [words.short(r.name) for r in runs], "Asked": [words.when(r.created_at) for r in runs],
        "Took": [words.span(words.lasted(r)) for r in runs], "Plant": ["Demo" if r.plant == "demo" else "Yours" for r in runs]})


def choose(runs: list[jobs.RunStatus]) -> str:
    """The chosen run's id: the row tapped, else the one in the URL, else the newest. A new run above moves no choice."""
    ids = [r.run_id for r in runs]
    asked = st.query_params.get("run", "")
    at = ids.index(asked) if asked in ids else 0
    state = st.dataframe(table(runs), hide_index=True, key=f"runs_{ids[0]}", on_select="rerun", selection_mode="single-row-required",
                         selection_default={"selection": {"rows": [at], "columns": []}}, alt="Runs, newest first",
                         column_config={"Name": st.column_config.TextColumn(width=220), "State": PILLS})
    st.query_params["run"] = ids[(state["selection"]["rows"] or [at])[0]]
    return str(st.query_params["run"])


def more(status: jobs.RunStatus) -> None:
    """Below the head: where its outcome is seen, the log, what was asked, what came out."""
    if status.recipe in NEXT and status.state == "completed":
        page, label, parameter = NEXT[status.recipe]
        plant.link(page, label, icon=":material/arrow_forward:", **({parameter: status.run_id} if parameter else {}))
    run_panel.log(status.run_id)
    if len(refused := cached("refused", status.run_id)):
        with st.expander(f"{len(refused):,} files were not usable", icon=":material/report:"):
            st.dataframe(refused, hide_index=True, column_config={"file_name": "File", "reason": "Why"}, alt="Files that were not usable")
    for label, content in (("What was asked", status.config), ("What came out", status.result)):
        if content:
            with st.expander(label, icon=":material/data_object:"):
                st.code(json.dumps(content, indent=2, ensure_ascii=False, default=str), language="json", height=320)
    st.caption(f"Run {status.run_id}")


def look(seen: list[tuple[str, str]]) -> None:
    """While something is open, the table follows."""
    if states(jobs.recent(limit=MOST)) != seen:
        st.rerun()


def states(runs: list[jobs.RunStatus]) -> list[tuple[str, str]]:
    return [(r.run_id, r.state) for r in runs]


st.title("Runs", anchor=False)
with plant.sound():
    runs = jobs.recent(limit=MOST)
    results_note.unread()
    if not runs:
        st.info("Nothing was run yet. Imports, trainings and inspections appear here, with their log.", icon=":material/list_alt:")
        st.stop()
    if any(r.is_open for r in runs) and not jobs.worker_alive():
        st.warning("The worker is not running yet; it starts by itself. Waiting tasks begin then.", icon=":material/hourglass_empty:")
    chosen = choose(runs)
    run_panel.show(chosen, more)
    if any(r.is_open for r in runs):
        st.fragment(look, run_every=2.0)(states(runs))
    if len(runs) == MOST:
        st.caption(f"The newest {MOST} are shown.")
