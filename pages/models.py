"""Models: how well each does on its locked test, which is in use, and the change from one to the next."""

import re
from functools import partial
from typing import Any

import streamlit as st

from pages.components import ask, model_view, plant, run_panel, undo, words
from pages.components.cached import cached


def choose(models: Any) -> Any:
    """The table; a row chosen there, else the one in the URL, else the newest."""
    ids = models["model_id"].tolist()
    asked = st.query_params.get("model", "")
    column = st.column_config
    state = st.dataframe(
        model_view.overview(models), hide_index=True, key="models", on_select="rerun", selection_mode="single-row-required",
        alt="Models", placeholder="–",
        selection_default={"selection": {"rows": [ids.index(asked) if asked in ids else 0], "columns": []}},
        column_config={"Name": column.TextColumn(pinned=True), "mAP50 test": column.NumberColumn(format="%.3f"),
                       "mAP50 val": column.NumberColumn(format="%.3f"), "Missed defects": column.NumberColumn(format="percent")})
    at = (state["selection"]["rows"] or [0])[0]
    st.query_params["model"] = ids[at]
    return list(models.itertuples(index=False))[at]


def actions(model: Any, current: Any) -> None:
    with st.container(horizontal=True):
        if not model.promoted:
            ask.question("promote", "Put to use …", "Put this model to use?", partial(confirm, model, current), "medium", type="primary",
                         icon=":material/publish:")
        if last := last_promotion():
            ask.question("roll_back", "Roll back …", "Roll back?", partial(confirm_back, last), icon=":material/undo:")
        if model.run_id:
            stem = re.sub(r"[^\w.-]+", "-", model.name).strip("-.") or "model"
            st.download_button("Download", model_view.bundle(model.run_id), f"{stem}.zip", "application/zip", icon=":material/download:",
                               on_click="ignore", key="bundle", help="ONNX for inference, JSON with kinds, thresholds and figures.")


def confirm(model: Any, current: Any) -> None:
    st.markdown(f"From now on **{words.plain(model.name)}** inspects every new batch. Results so far stay as they are.")
    if current is not None:
        model_view.compare(model, current, "dialog")
    if st.button("Put to use", type="primary", key="promote_yes"):
        undo.record(f"{model.name} is in use now.", "promote", [{"model_id": model.model_id, "name": model.name}], "real")


def confirm_back(run_id: str) -> None:
    st.markdown("The model that was in use before comes back. Results so far stay as they are.")
    if st.button("Roll back", type="primary", key="roll_back_yes"):
        undo.take_back([run_id], "Rolled back to the model before.")


def last_promotion() -> str:
    """The change that put today's model to use; '' where it came with the program."""
    rows = cached("changes", "real", 500, "promote")
    made = [r.run_id for r in rows.itertuples() if not r.undone]
    return str(made[0]) if made else ""


st.title("Models", anchor=False)
undo.bar()
with plant.sound():
    models = model_view.usable(cached("models"))
    if models.empty and run_panel.awaited(*words.MODEL_MAKERS):
        st.stop()
    if models.empty:
        st.info("No model yet. Train one on a dataset; it appears here with its figures.", icon=":material/model_training:")
        plant.link("training", "Train a model", icon=":material/arrow_forward:")
        st.stop()
    used = models[models["promoted"]]
    current = next(used.itertuples(index=False), None)
    model = choose(models)
    actions(model, current)
    model_view.show(model)
    if current is not None and not model.promoted:
        st.subheader("Against the model in use", anchor=False)
        model_view.compare(model, current, "page")
