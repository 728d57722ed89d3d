"""A classifier on the pages: asked for on Training, watched, looked at and put to use among the detectors on Models."""

import base64
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image

from backend import jobs, rundir
from tests.test_pages_engineering import CLASSES, button, ingest, model, page, run, said, snapshot

FIGURES = dict(accuracy=0.75, balanced_accuracy=0.7, class_accuracy={"pits": 0.8, "scratch": 0.7, "good": 0.6}, images=20,
               confusion={"names": ["pits", "scratch", "good"], "counts": [[8, 1, 1], [2, 7, 1], [0, 0, 0]]},
               recall=dict(pits=0.9, scratch=0.8), missed=dict(pits=0.05, scratch=0.25), missed_images=0.15)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    st.cache_data.clear()


def classifier(model_id: str, name: str, **more: Any) -> str:
    """A trained classifier as its run leaves it."""
    config = jobs.TrainClassifier(dataset="Steel", name=name)
    metrics = dict(val=dict(FIGURES, accuracy=0.8), test={**FIGURES, **more})
    made = run("train-classifier", config.to_json(), result=dict(name=name, warnings=["The dataset has no <b>val</b> split."]),
               models=[dict(model_id=model_id, name=name, kind="classifier", created_at=datetime.now(UTC), snapshot_id="s" * 16, imgsz=128,
                            classes=CLASSES, metrics=json.dumps(metrics), settings=json.dumps({"steps": 1000}))],
               model_thresholds=[dict(model_id=model_id, class_name=c, threshold=0.4) for c in CLASSES])
    folder = rundir.run_path(made) / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"onnx")
    rundir.write_json(folder / "model.json", dict(name=name, model_id=model_id, kind="classifier", classes=CLASSES,
                                                  thresholds=dict.fromkeys(CLASSES, 0.4)))
    points = [dict(step=k, classification_loss=1 / k, train_accuracy=0.3 * k) for k in (1, 2)]
    (folder.parent / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    out = io.BytesIO()
    Image.new("RGB", (60, 40)).save(out, "PNG")
    (folder.parent / "samples.png").write_bytes(out.getvalue())
    return made


def test_it_is_asked_for(data_folder: object) -> None:
    snapshot()
    ingest()
    at = page("training", kind="classifier")
    assert "not where" in said(at)
    at.button(key="train_go").click().run()
    assert not at.exception
    [made] = jobs.recent(limit=1, recipes=("train-classifier",))
    assert made.config == jobs.TrainClassifier(dataset="s" * 16, name="Steel 1").to_json()


def test_a_training_is_watched(data_folder: object) -> None:
    snapshot()
    at = page("training", run=classifier("c1", "Kinds"))
    assert "What it takes them for" in said(at) and "Pictures it draws" not in said(at)
    assert any("no \\<b\\>val" in w.value for w in at.warning)
    assert len(at.get("plotly_chart")) == 1


def test_its_figures_stand_among_the_detectors(data_folder: object) -> None:
    snapshot()
    model("m1", "Steel 1")
    classifier("c1", "Kinds")
    ingest()
    at = page("models", model="c1")
    cards = {m.label: m.value for m in at.metric}
    assert cards["Accuracy on test"] == "75 %" and cards["Accuracy on val"] == "80 %" and cards["Missed defects"] == "15 %"
    assert not any("mAP" in label for label in cards)
    table, confusion = at.dataframe[0].value, at.dataframe[1].value
    assert table.set_index("Name").loc["Kinds", "Accuracy test"] == 0.75 and table.set_index("Name")["Accuracy test"].isna().sum() >= 1
    assert confusion.to_dict("list") == {"Shows": ["pits", "scratch", "good"], "pits": [8, 2, 0], "scratch": [1, 7, 0], "good": [1, 1, 0]}
    assert "What is taken for what" in said(at)
    bars = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    shown = {b["name"]: np.frombuffer(base64.b64decode(b["y"]["bdata"]), b["y"]["dtype"]).tolist() for b in bars}
    assert shown == {"Recognized": [0.8, 0.7], "Missed": [0.05, 0.25]}

    at = page("models", model="m1")
    assert "mAP50 on test" in {m.label for m in at.metric} and "What is taken for what" not in said(at)


def test_kinds_that_are_called_alike_have_columns_of_their_own(data_folder: object) -> None:
    snapshot()
    long = "scratches along the rolling direction"
    classifier("c1", "Kinds", confusion={"names": ["Shows", f"{long}, deep", f"{long}, flat"], "counts": [[8, 1, 1], [2, 7, 1], [0, 3, 5]]})
    ingest()
    at = page("models", model="c1")
    assert not at.exception
    table = at.dataframe[1].value
    assert table.iloc[:, 1:].to_numpy().tolist() == [[8, 1, 1], [2, 7, 1], [0, 3, 5]] and table.columns.is_unique


def test_it_is_put_to_use_in_the_detectors_place(data_folder: object) -> None:
    snapshot()
    model("m1", "Steel 1")
    classifier("c1", "Kinds")
    jobs.record("promote", dict(model_id="m1", name="Steel 1", kind="detector"))
    ingest()
    at = page("models", model="c1")
    assert "Steel 1 says where a defect is, Kinds only what a picture shows" in said(at)
    button(at, "Put to use …").click().run()
    assert "does not say where" in said(at)
    at.button(key="promote_yes").click().run()
    assert not at.exception and rundir.promoted_model("detector") == "c1"


def test_two_classifiers_compare(data_folder: object) -> None:
    snapshot()
    classifier("c1", "Kinds")
    classifier("c2", "Kinds 2", accuracy=0.85)
    jobs.record("promote", dict(model_id="c1", name="Kinds", kind="classifier"))
    ingest()
    at = page("models", model="c2")
    assert "on the same" in said(at) and "Recognized per kind" in said(at)
    [card] = [m for m in at.metric if m.label == "Accuracy"]
    assert (card.value, card.delta) == ("0.850", "+0.100")
