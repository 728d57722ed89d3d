"""Which model is in use, and the change from one to the next: look back, put to use, roll back, download; detectors and anomaly models
apart.

Every change is an event that can be taken back; results so far stay as they are.
"""

import re
from functools import partial
from typing import Any

import streamlit as st

from pages.components import ask, model_view, person, shadow_form, shadow_view, undo, words
from pages.components.cached import cached

DOWNLOAD = ("ONNX for inference, JSON with kinds, thresholds and figures, and a small program, infer.py, that uses them without "
            "Diffspect.")
MEANS = {"detector": "From now on **{}** inspects every new batch. Results so far stay as they are.",
         "classifier": "From now on **{}** says of every new batch which defect a picture shows, in place of the detector. It does not "
                       "say where. Results so far stay as they are.",
         "anomaly": "From now on **{}** looks at every new batch beside the detector and marks what is unlike good parts. It rejects "
                    "nothing. Results so far stay as they are."}


def actions(model: Any, current: Any) -> None:
    """Of the model looked at; `current`, of the same kind, is in use."""
    with st.container(horizontal=True):
        if not model.promoted:
            ask.question("promote", "Put to use …", "Put this model to use?", partial(_confirm, model, current), "medium", type="primary",
                         icon=":material/publish:")
        if model.kind != "anomaly":
            shadow_form.button(model)
        if last := last_promotion(model.kind):
            ask.question("roll_back", "Roll back …", "Roll back?", partial(_confirm_back, last, model.kind), icon=":material/undo:")
        if model.run_id:
            stem = re.sub(r"[^\w.-]+", "-", model.name).strip("-.") or "model"
            st.download_button("Download", model_view.bundle(model.run_id), f"{stem}.zip", "application/zip", icon=":material/download:",
                               on_click="ignore", key="bundle", help=DOWNLOAD)


def _confirm(model: Any, current: Any) -> None:
    st.markdown(MEANS[model.kind].format(words.plain(model.name)))
    if model.kind != "anomaly":
        shadow_view.brief(model)
    if current is not None and model.kind != "anomaly":
        model_view.compare(model, current, "dialog")
    if st.button("Put to use", type="primary", key="promote_yes", disabled=not person.told("promote")):
        chosen = {"model_id": model.model_id, "name": model.name, "kind": model.kind}
        undo.record(f"{model.name} is in use now.", "promote", [chosen], "real")


def _confirm_back(run_id: str, kind: str) -> None:
    before = "The model that was in use before comes back" + (", or none if there was none." if kind == "anomaly" else ".")
    st.markdown(f"{before} Results so far stay as they are.")
    if st.button("Roll back", type="primary", key="roll_back_yes", disabled=not person.told("promote")):
        undo.take_back([run_id], "Rolled back to the model before.")


def last_promotion(kind: str) -> str:
    """The change that put today's model to use; '' where it came with the program."""
    rows = cached("changes", "real", 500, "promote")
    place = "detector" if kind == "classifier" else kind                        # one stands in the other's place
    made = [r.run_id for r in rows.itertuples() if not r.undone and r.kind == place]
    return str(made[0]) if made else ""
