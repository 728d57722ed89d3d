"""Comparison: does it help, by how much, and how sure is that? Of finished runs, or of an experiment.

What is looked at stands in the URL: `run` (a comparison), `experiment`, or `runs` (any finished runs, separated by commas).
"""

import streamlit as st

from backend import jobs
from pages.components import charts, comparison_live, comparison_new, comparison_subject, comparison_view, plant, run_panel, undo, words
from pages.components.cached import cached

st.title("Comparison", anchor=False)
undo.bar()


def of_run(run_id: str) -> None:
    """A comparison, or the run that is working it out."""
    status = jobs.status(run_id)
    if status.recipe == "experiment":
        of_experiment(run_id)
    elif status.recipe != "compare":
        st.error("This run has compared nothing.", icon=":material/error:")
    elif status.state == "completed":
        comparison_view.show(comparison_subject.of_comparison(run_id))
    else:
        run_panel.show(run_id, lambda status: run_panel.log(status.run_id))


def of_experiment(run_id: str) -> None:
    """The grid while it runs; the verdict, once there is one, with the grid behind it."""
    found = jobs.experiment(run_id)
    if found["state"] != "completed":
        comparison_live.show(run_id)
        return
    comparison_view.show(comparison_subject.of_comparison(found["comparison"]))
    with st.expander("Every run of the experiment", icon=":material/grid_view:", key="members"):
        st.html(comparison_live.STYLE + comparison_live.grid(found))


def of_runs(run_ids: str) -> None:
    comparison_view.show(comparison_subject.of_runs(filter(None, run_ids.split(","))))


def show(name: str, asked: str) -> None:
    """What the URL asks for; where it cannot be shown, why."""
    try:
        OF[name](asked)
    except jobs.DiffspectError as error:
        words.sorry(error)


OF = {"run": of_run, "experiment": of_experiment, "runs": of_runs}

with plant.sound():
    name = next((name for name in OF if st.query_params.get(name)), "")
    looked_at = st.query_params.get(name, "")
    if name in ("", "runs") and cached("scored_runs").empty and run_panel.awaited(*words.DETECTOR_MAKERS):
        st.stop()
    if not looked_at:
        st.caption("Do synthetic pictures help? Is the new model better? Ask with several seeds and the same test, and get an answer with "
                   "its interval.")
    with st.expander("New comparison", icon=":material/balance:", expanded=not looked_at, key=f"new_{looked_at[:60]}",
                     on_change="rerun") as box:
        if box.open:                                 # hundreds of runs to choose from are not read behind a closed lid
            comparison_new.show()
    if name:
        show(name, looked_at)
    comparison_view.earlier(looked_at)
    charts.let_touch_scroll()
