"""Models: how well each does on its locked test, which is in use, and the change from one to the next.

Detectors and anomaly models stand apart: they do not compare, and one of each is in use. What is looked at stands in the URL.
"""

from typing import Any

import streamlit as st

from pages.components import anomaly_view, model_view, plant, promotion, run_panel, shadow_view, undo, words
from pages.components.cached import cached

KINDS = {"Detectors": "detector", "Anomaly models": "anomaly"}
NONE_YET = {"detector": "No model yet. Train one on a dataset; it appears here with its figures.",
            "anomaly": "No anomaly model yet. It learns from pictures of good parts alone and marks whatever is unlike them, also what "
                       "nobody has labelled. Train one; it appears here with its figures."}


def choose(models: Any, kind: str) -> Any:
    """The table; a row chosen there, else the one in the URL, else the newest."""
    ids = models["model_id"].tolist()
    asked = st.query_params.get("model") or shadow_view.model_of(st.query_params.get("look", ""))
    column, figure = st.column_config, st.column_config.NumberColumn(format="%.3f")
    state = st.dataframe(
        model_view.overview(models) if kind == "detector" else anomaly_view.overview(models), hide_index=True, key=f"models_{kind}",
        on_select="rerun", selection_mode="single-row-required", alt="Models", placeholder="–",
        selection_default={"selection": {"rows": [ids.index(asked) if asked in ids else 0], "columns": []}},
        column_config={"Name": column.TextColumn(pinned=True), "mAP50 test": figure, "mAP50 val": figure,
                       "Missed defects": column.NumberColumn(format="percent"),
                       "Accuracy test": column.NumberColumn(format="percent"), "Unusual from": column.NumberColumn(format="%.4g"),
                       **{label: figure for label, _ in anomaly_view.FIGURES.values()}})
    at = (state["selection"]["rows"] or [0])[0]
    st.query_params["model"] = ids[at]
    return list(models.itertuples(index=False))[at]


def none_yet(kind: str) -> None:
    if run_panel.awaited(*(r for r in words.MODEL_MAKERS if (r == "train-anomaly") == (kind == "anomaly"))):
        return
    st.info(NONE_YET[kind], icon=":material/model_training:")
    plant.link("training", "Train a model" if kind == "detector" else "Train an anomaly model", icon=":material/arrow_forward:",
               **({"kind": kind} if kind == "anomaly" else {}))


st.title("Models", anchor=False)
undo.bar()
with plant.sound():
    kind = KINDS[st.segmented_control("Kind of model", list(KINDS), default="Detectors", required=True, key="kind", bind="query-params",
                                      label_visibility="collapsed")]
    models = model_view.usable(cached("models", kind))
    if models.empty:
        none_yet(kind)
        st.stop()
    used = models[models["promoted"]]
    current: Any = next(used.itertuples(index=False), None)
    model = choose(models, kind)
    promotion.actions(model, current)
    (model_view if kind == "detector" else anomaly_view).show(model)
    if current is not None and not model.promoted and kind == "detector":
        st.subheader("Against the model in use", anchor=False)
        model_view.compare(model, current, "page")
        if model.run_id and current.run_id and not model_view.comparable(model, current):
            plant.link("comparison", "Compare them picture by picture", icon=":material/balance:", runs=f"{model.run_id},{current.run_id}")
    if kind == "detector":
        shadow_view.section(model)
