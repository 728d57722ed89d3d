"""A classifier where a detector stands: whole-image boxes through inspect into the parts, probabilities through predict."""

import hashlib
import io
import json
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import Inspect, Predict
from backend.errors import ConfigError, InputError
from backend.inspection import engine as engines
from backend.inspection import inspect, looking, predict
from backend.inspection.anomaly_engine import load_anomaly
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.engine import Engine, load
from backend.inspection.runtimes import InMemory
from tests import plates, small_anomaly, tiny_model

IMGSZ = 32
ALL = ["blue", "good", "red"]                                    # the class of good parts may stand anywhere


@lru_cache(maxsize=1)
def onnx_bytes() -> bytes:
    """Which of blue, green and red a picture has most of, sharpened: a real network whose answers are known."""
    import torch
    from torch import nn

    class Colour(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (8 * images.mean((2, 3))).softmax(1).flip(1)                                       # (B, 3)

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")                     # of exporting, which is not what is tested
        torch.onnx.export(Colour().eval(), torch.zeros(2, 3, IMGSZ, IMGSZ), buffer, input_names=["images"],
                          output_names=["probabilities"], dynamic_axes={"images": {0: "batch"}, "probabilities": {0: "batch"}},
                          opset_version=17, dynamo=False)
    return buffer.getvalue()


def bundle(folder: Path, **changes: Any) -> Path:
    data = onnx_bytes()
    head = dict(name="colours", model_id=hashlib.sha256(data).hexdigest()[:16], kind="classifier", created_at="2026-01-01T00:00:00+00:00",
                classes=["blue", "red"], all_classes=ALL, imgsz=IMGSZ, thresholds={"blue": 0.6, "red": 0.3},
                preprocess={"resize": "stretch"}, snapshot_id="", dataset="", settings={}, chosen={}, metrics={}, versions={},
                code_version="0", licence="AGPL-3.0-or-later")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(head | changes))
    return folder


@pytest.fixture
def deployed(data_folder: Path) -> Path:
    """A run that made the classifier, and its folder."""
    return bundle(plates.run_of("train-classifier", lambda run: {}) / "model")


def picture(red: int, green: int, blue: int, size: tuple[int, int] = (90, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (red, green, blue)).save(out, "PNG")
    return out.getvalue()


PICTURES = {"a_red.png": (200, 90, 40), "b_good.png": (60, 250, 60), "c_blue.png": (60, 40, 240), "d_unsure.png": (120, 120, 122)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in PICTURES.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture(*colour))
    return tmp_path / "in"


def softmax(colour: tuple[int, int, int]) -> dict[str, float]:
    raised = np.exp(8 * np.array(colour) / 255)
    return dict(zip(["red", "good", "blue"], (raised / raised.sum()).tolist(), strict=True))


def test_a_box_as_large_as_the_picture_for_each_likely_defect(tmp_path: Path) -> None:
    engine = ClassifierEngine(bundle(tmp_path))
    shapes = [(40, 90), (16, 300), (200, 33)]
    images = [np.full((*s, 3), (200, 90, 40), np.uint8) for s in shapes]
    for (height, width), boxes in zip(shapes, engine.predict(images, 0.001), strict=True):
        told = softmax((200, 90, 40))
        assert boxes.dtype == np.float32
        np.testing.assert_allclose(boxes, [[0, 0, width, height, told["red"], 1], [0, 0, width, height, told["blue"], 0]], atol=1e-5)
    red, = engine.predict(images[:1], 0.3)
    assert red[:, 5].tolist() == [1.0], "blue is below the floor"
    good, = engine.predict([np.full((40, 90, 3), (0, 255, 0), np.uint8)], 0.05)
    assert good.shape == (0, 6), "good parts have no box"
    assert engine.predict([]) == []
    assert engine.classes == ["blue", "red"] and engine.thresholds == {"blue": 0.6, "red": 0.3}


def test_more_pictures_than_one_call_takes(tmp_path: Path) -> None:
    engine = ClassifierEngine(bundle(tmp_path), "onnxruntime-cpu")
    colours = [(5 * k, 255 - 5 * k, 100) for k in range(45)]
    assert len(colours) > engine.batch
    found = engine.probabilities([engine.prepare(np.full((20, 30, 3), c, np.uint8)) for c in colours])
    np.testing.assert_allclose(found, [[softmax(c)[name] for name in ALL] for c in colours], atol=1e-5)


def test_load_opens_either_kind(tmp_path: Path) -> None:
    colours, tiny = bundle(tmp_path / "a"), tiny_model.bundle(tmp_path / "b")
    assert type(load(colours)) is ClassifierEngine and type(load(tiny)) is Engine and load(colours) is load(colours)
    with pytest.raises(InputError, match="'colours' is a classifier; a detector is needed here"):
        Engine(colours)
    with pytest.raises(InputError, match="'tiny' is a detector; a classifier is needed here"):
        ClassifierEngine(tiny)
    with pytest.raises(InputError, match="'colours' is a classifier; an anomaly model is needed here"):
        load_anomaly(colours)


def test_bundles_that_do_not_fit_their_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="incomplete: model.json does not say all_classes"):
        load(bundle(tmp_path / "a", all_classes=["blue", "good"]))
    with pytest.raises(InputError, match=r"does not answer as a classifier of 4 classes: its output has the shape 1×3"):
        load(bundle(tmp_path / "b", all_classes=[*ALL, "green"]))
    (bundle(tmp_path / "c") / "model.json").write_text("[]")
    with pytest.raises(InputError, match="incomplete"):
        load(tmp_path / "c")
    (tmp_path / "c" / "model.json").write_text("{")
    with pytest.raises(InputError, match="model.json is no JSON"):
        load(tmp_path / "c")
    monkeypatch.setattr(engines, "open_network", lambda *a, **k: InMemory(lambda batch: np.full((len(batch), 3), np.nan)))
    with pytest.raises(InputError, match="values that are no numbers"):
        load(bundle(tmp_path / "d"))


def test_inspect_writes_whole_image_boxes(deployed: Path, folder: Path) -> None:
    config = Inspect(model="colours", images=str(folder), line="1")
    run = rundir.create("inspect", config.to_json())
    result = inspect.run(config, run, plates.silent)
    assert result["model_name"] == "colours" and result["inspected"] == 4
    names = {r["inspection_id"]: r["file_name"] for r in rundir.rows(run, "inspections").to_pylist()}
    rows = [(names[d["inspection_id"]], d["class_name"], round(d["confidence"], 4), d["x1"], d["y1"], d["x2"], d["y2"])
            for d in rundir.rows(run, "detections").to_pylist()]
    expected = [(name, c, round(p, 4), 0, 0, 90, 40) for name, colour in PICTURES.items()
                for c, p in sorted(softmax(colour).items(), key=lambda item: -item[1]) if c != "good" and p >= inspect.FLOOR]
    assert [r[:2] + r[3:] for r in rows] == [e[:2] + e[3:] for e in expected]
    np.testing.assert_allclose([r[2] for r in rows], [e[2] for e in expected], atol=2e-4)
    assert result["defective"] == 3, "red, blue, and the unsure one, whose red is above its own limit of 0.3"


def test_predict_writes_the_probabilities(deployed: Path, folder: Path, tmp_path: Path) -> None:
    result = predict.run(Predict(model="colours", images=str(folder), out=str(tmp_path / "out")), tmp_path, plates.silent)
    rows = json.loads((tmp_path / "out" / "predictions.json").read_bytes())
    assert [r["file_name"] for r in rows] == list(PICTURES) and [r["category"] for r in rows] == ["red", "good", "blue", "blue"]
    for row in rows:
        assert row["probabilities"] == pytest.approx(softmax(PICTURES[row["file_name"]]), abs=1e-4) and list(row["probabilities"]) == ALL
        assert row["score"] == row["probabilities"][row["category"]]
    with pytest.raises(ConfigError, match="Only a detector looks at pictures in tiles"):
        predict.run(Predict(model="colours", images=str(folder), out=str(tmp_path / "out"), tile=64), tmp_path, plates.silent)
    assert result["images"] == 4 and result["classes"] == ALL and result["path"].endswith("predictions.json")


def test_promoted_it_stands_in_the_detectors_place(deployed: Path, folder: Path) -> None:
    head = rundir.read_json(deployed / "model.json")
    rundir.create("promote", dict(model_id=head["model_id"], name=head["name"], kind="classifier"), state="completed")
    run = rundir.create("inspect", Inspect(images=str(folder)).to_json())
    assert inspect.run(Inspect(images=str(folder)), run, plates.silent)["model_id"] == head["model_id"]
    assert {d["class_name"] for d in rundir.rows(run, "detections").to_pylist()} == {"blue", "red"}


@pytest.mark.parametrize("runtime, beside", [("onnxruntime-cpu", "onnxruntime-cpu"), ("openvino-f32", "openvino-cpu-f32"),
                                             ("openvino-bf16", "openvino-cpu-f32"),
                                             ("cuda", "openvino-cpu-f32")])       # no GPU here, or one that cannot compute its network
def test_an_anomaly_model_computes_where_the_other_does_in_float32(data_folder: Path, runtime: str, beside: str) -> None:
    small_anomaly.bundle(plates.run_of("train-anomaly", lambda run: {}) / "model", imgsz=32)
    model = looking.anomaly("odd", runtime)
    assert model is not None and model.runtime.startswith(beside)


def test_an_anomaly_model_looks_beside_it(deployed: Path, folder: Path) -> None:
    """Each sees a picture in its own size, and neither changes what the other says."""
    small_anomaly.bundle(plates.run_of("train-anomaly", lambda run: {}) / "model", imgsz=32)
    (folder / "e_odd.png").write_bytes(small_anomaly.picture(1, (5, 5, 40, 30)))
    said = {}
    for beside in ("none", "odd"):
        config = Inspect(model="colours", anomaly=beside, images=str(folder))
        run = rundir.create("inspect", config.to_json())
        result = inspect.run(config, run, plates.silent)
        boxes = rundir.rows(run, "detections").select(["class_name", "confidence", "x2", "y2"]).to_pylist()
        said[beside] = (boxes, result["defective"], rundir.rows(run, "anomalies")["anomaly_score"].to_pylist())
    assert said["none"][:2] == said["odd"][:2] and said["none"][2] == []
    assert [score >= small_anomaly.THRESHOLD for score in said["odd"][2]] == [False] * 4 + [True] and result["unusual"] == 1
