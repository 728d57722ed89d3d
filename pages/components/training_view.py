"""A training looked at, open or finished: curves, stages, samples, ranking, log; by what kind of run it is.

`run_panel` has drawn the head above. Knows nothing of how a run is asked for.
"""

import pandas as pd
import streamlit as st

from backend import jobs
from pages.components import anomaly_view, classifier_view, fidelity, plant, run_panel, stages, sweep, training_curves, words


def live(status: jobs.RunStatus) -> None:
    """What comes while it runs; a link to the model when it is done."""
    if status.state == "completed" and status.recipe in words.MODEL_MAKERS:
        kind = {"kind": "Anomaly models"} if status.recipe == "train-anomaly" else {}
        plant.link("models", "See the model and put it to use", icon=":material/arrow_forward:", **kind)
    points = jobs.live_metrics(status.run_id)
    if status.recipe == "train-distilled":
        stages.show(status, points)
    elif status.recipe == "probe-features":
        _ranking(status)
    elif status.recipe == "train-anomaly":
        anomaly_view.live(status, points)
    elif status.recipe == "train-classifier":
        classifier_view.live(status, points)
    else:
        _curves(status, points)
    if status.state == "completed":
        _advanced(status)
    run_panel.log(status.run_id)


def _curves(status: jobs.RunStatus, points: pd.DataFrame) -> None:
    drawn = stages.preview(status.run_id)
    if len(points):
        training_curves.show(points, status.run_id)
    elif status.is_open and not drawn:
        st.skeleton(240)
        st.caption("Curves begin after the first pass over the pictures.")


def _ranking(status: jobs.RunStatus) -> None:
    if status.result.get("ap"):
        sweep.show(status.result, status.run_id)
    elif status.is_open:
        st.skeleton(240)
        st.caption("The ranking appears when every block has been read at every timestep.")


def _advanced(status: jobs.RunStatus) -> None:
    found = fidelity.read(status.run_id)
    if found:
        with st.expander("Advanced", icon=":material/tune:", key=f"advanced_{status.run_id}"):
            fidelity.show(found, status.run_id)
