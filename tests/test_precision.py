"""bf16 only where it changes nothing: what was measured of a model decides, and a person may decide otherwise."""

import hashlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.config import Inspect, MeasurePrecision, demo_assets
from backend.data import demo
from backend.errors import ConfigError, InputError
from backend.evaluation import precision
from backend.inspection import engine, inspect, int8, runtimes
from backend.inspection.precision import FILE, INT8, keep, said
from backend.jobs import runs
from pages.components import arithmetic
from tests import bright_model, plates
from tests.test_classifier_engine import bundle as classifier

needs_int8 = pytest.mark.skipif(not runtimes.has_int8(), reason="this processor computes no int8")
needs_bf16 = pytest.mark.skipif(not runtimes.has_bf16(), reason="this processor computes no bf16")
ROOT = Path(__file__).resolve().parents[1]
SIDE, BOX = bright_model.IMGSZ, [8.0, 8.0, 16.0, 16.0]                 # where that model's one box lies


def coarse(folder: Path, offset: float = 100.0) -> Path:
    """A detector that is as sure of "pits" as a picture is red, by way of numbers so large that bf16 keeps no digit behind the point."""
    def constant(name: str, values: Any, kind: type = np.float32) -> Any:
        return numpy_helper.from_array(np.array(values, kind), name)

    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [helper.make_node("Conv", ["images", "eye", "up"], ["large"]), helper.make_node("Relu", ["large"], ["positive"]),
             helper.make_node("Conv", ["positive", "eye", "down"], ["small"]),
             helper.make_node("ReduceMean", ["small", "sides"], ["means"], keepdims=0),                    # (B, 3)
             helper.make_node("Slice", ["means", "start", "end", "axis"], ["two"]),
             helper.make_node("Unsqueeze", ["two", "last"], ["sure"]),
             helper.make_node("Mul", ["sure", "zero"], ["nothing"]), helper.make_node("ReduceSum", ["nothing", "axis"], ["none"]),
             helper.make_node("Add", ["none", "box"], ["boxes"]), helper.make_node("Concat", ["boxes", "sure"], ["output"], axis=1)]
    graph = helper.make_graph(
        nodes, "coarse", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 6, 1])],
        [constant("eye", eye), constant("up", [offset] * 3), constant("down", [-offset] * 3), constant("sides", [2, 3], np.int64),
         constant("start", [0], np.int64), constant("end", [2], np.int64), constant("axis", [1], np.int64),
         constant("last", [2], np.int64), constant("zero", 0),
         constant("box", np.array([16, 16, 16, 16], np.float32).reshape(1, 4, 1))])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    made = bright_model.bundle(folder, "coarse", model_id=hashlib.sha256(data).hexdigest()[:16])
    (made / "model.onnx").write_bytes(data)
    return made


def shade(red: float) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), (round(255 * red), 0, 0), np.uint8)


def shades(n: int = 20) -> precision.Pictures:
    """From dark to red; from 0.45 on there are pits. In bf16 the coarse model cannot tell 0.3 from 0.7."""
    reds = {f"{k:02d}": 0.3 + 0.4 * k / n for k in range(n)}
    return precision.Pictures("val", list(reds), lambda name: shade(reds[name]),
                              {name: [("pits", BOX)] if red >= 0.45 else [] for name, red in reds.items()})


def test_without_a_measurement_it_is_float32_and_a_person_may_force_either(tmp_path: Path) -> None:
    folder, head = bright_model.bundle(tmp_path / "model"), json.loads((bright_model.bundle(tmp_path / "model") / "model.json").read_text())
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 ") and said(folder, head["model_id"]) == {}
    keep(folder, dict(model_id="another", bf16=True))
    assert engine.load(folder, "openvino").runtime.startswith("openvino-cpu-f32 "), "measured of the network that was here before"
    (folder / FILE).write_text("no JSON")
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 ")
    keep(folder, dict(model_id=head["model_id"], bf16=True))
    fast = "openvino-cpu-bf16 " if runtimes.has_bf16() else "openvino-cpu-f32 "
    assert engine.load(folder).runtime.startswith(fast), "a warm process reads it too"
    assert engine.load(folder, "openvino").runtime.startswith(fast)
    assert engine.load(folder, "openvino-f32").runtime.startswith("openvino-cpu-f32 ")
    keep(folder, dict(model_id=head["model_id"], bf16=False))
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 ")
    if runtimes.has_bf16():
        assert engine.load(folder, "openvino-bf16").runtime.startswith("openvino-cpu-bf16 ")


def test_where_a_processor_has_neither_nobody_measures(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "has_bf16", lambda: False)
    monkeypatch.setattr(runtimes, "has_int8", lambda: False)
    folder = bright_model.bundle(rundir.create("train-detector", {}, state="completed") / "model")
    assert precision.decide(folder, shades()) is None and not (folder / FILE).exists()
    with pytest.raises(ConfigError, match="nothing to choose"):
        precision.run(MeasurePrecision(model="bright"), tmp_path, plates.silent)
    with pytest.raises(ConfigError, match="does not compute bf16"):
        engine.load(folder, "openvino-bf16")


@needs_bf16
def test_a_model_that_bf16_moves_is_inspected_with_in_float32(tmp_path: Path) -> None:
    folder = coarse(tmp_path / "coarse")
    record = precision.decide(folder, shades())
    assert record is not None and record == said(folder, record["model_id"])
    exact, rounded = record["points"]["map50"]
    assert not record["bf16"] and exact == 100 and exact - rounded > 0.2 and (record["on"], record["images"]) == ("val", 20)
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 ")

    fine = coarse(tmp_path / "fine", offset=0.0)
    record = precision.decide(fine, shades())
    assert record is not None and record["bf16"] and record["points"] == {"map50": [100, 100], "map50_95": [100, 100]}
    assert engine.load(fine).runtime == record["runtime"] and "bf16" in record["runtime"]


@needs_bf16
def test_at_most_so_many_pictures_and_seconds_and_always_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = bright_model.bundle(tmp_path), list[str]()

    def shown(name: str) -> np.ndarray:
        asked.append(name)
        return shade(0.5)

    many = precision.Pictures("val", [f"{k}" for k in range(90)], shown, {f"{k}": [("pits", BOX)] for k in range(90)})
    record, first = precision.decide(folder, many, most=40), asked.copy()
    assert record is not None and record["images"] == 40 == len(set(asked)) == len(asked), "each decoded once for both"
    assert sorted(first, key=int) != sorted(map(str, range(40)), key=int), "drawn, not the first"
    monkeypatch.setattr(precision, "BUDGET_S", 0.0)
    asked.clear()
    record = precision.decide(folder, many)
    assert record is not None and record["images"] == precision.LEAST and asked == first[:precision.LEAST]


@needs_bf16
def test_the_command_takes_labels_else_kept_pictures_else_leaves_float32(tmp_path: Path, data_folder: Path) -> None:
    run = rundir.create("train-detector", {}, state="completed")
    folder = coarse(run / "model")
    with pytest.raises(InputError, match="no picture to measure on"):
        precision.run(MeasurePrecision(model="coarse"), tmp_path, plates.silent)
    assert not (folder / FILE).exists()

    # the dataset is gone, but somebody inspected
    (tmp_path / "in").mkdir()
    for k, red in enumerate((0.45, 0.49, 0.55, 0.6, 0.9)):
        Image.fromarray(shade(red)).save(tmp_path / "in" / f"{k}.png")
    config = Inspect(model="coarse", images=str(tmp_path / "in"), line="L1")
    inspected = rundir.create("inspect", config.to_json(), state="running")
    assert inspect.run(config, inspected, plates.silent)["runtime"].startswith("openvino-cpu-f32 ")
    result = precision.run(MeasurePrecision(model="coarse"), tmp_path, plates.silent)
    assert (result["on"], result["images"], result["bf16"], result["model_name"]) == ("kept", 5, False, "coarse")
    assert result["points"]["verdicts"][0] == 100 > result["points"]["verdicts"][1] and result["points"]["map50"][0] == 100

    # and the one that comes with the program is looked at on its own val plates, drawn again
    known = precision.material(rundir.read_json(demo_assets() / "model" / "model.json"))
    assert (known.on, len(known.names)) == ("val", 135) and sum(map(len, known.truth.values())) == 203
    assert runs.name("measure-precision", {"model": "coarse", "pictures": 300}) == "coarse"


@needs_bf16
def test_of_a_classifier_verdicts_are_compared(tmp_path: Path) -> None:
    folder = classifier(tmp_path)
    record = precision.decide(folder, precision.Pictures("val", ["a", "b"], lambda name: shade(0.9 if name == "a" else 0.1)))
    assert record is not None and record["points"] == {"verdicts": [100, 100]} and record["bf16"]


# ---- int8, for processors without bf16

@needs_int8
def test_int8_is_taken_where_there_is_no_bf16_and_val_says_that_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "has_bf16", lambda: False)
    folder = Path(shutil.copytree(demo_assets() / "model", tmp_path / "model"))
    with pytest.raises(ConfigError, match="no int8 form yet"):
        engine.load(folder, "openvino-int8")
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 "), "bf16 was measured, int8 was not"

    plates_of = demo.split_ids(900, 0)
    ids = plates_of["val"][:8]
    truth = {i: [(c, [float(v) for v in (x1, y1, x2 - x1, y2 - y1)]) for c, x1, y1, x2, y2 in demo.boxes(i)] for i in ids}
    monkeypatch.setitem(precision.MOVED, "map50_95", 10.0)                     # of 8 plates one box is much
    monkeypatch.setitem(precision.MOVED, "map50", 10.0)
    monkeypatch.setattr(int8, "PICTURES", 8)
    record = precision.decide(folder, precision.Pictures("val", ids, truth=truth, learned=plates_of["train"]))
    assert record is not None and record["int8"]["allowed"], record
    assert record["bf16"] is True, "what is known of bf16 stays"
    assert record["int8"]["points"]["map50"][0] > 50 and record == said(folder, record["model_id"])
    assert engine.load(folder).runtime == record["int8"]["runtime"] and "openvino-cpu-int8 " in record["int8"]["runtime"]
    assert (folder / INT8).stat().st_size < 0.35 * (folder / "model.onnx").stat().st_size, "weights are bytes"

    # nearly the same answers, and not the very same
    plate = [np.asarray(demo.render(ids[0]).image)]
    exact, fast = (engine.load(folder, r).predict(plate, 0.25)[0] for r in ("openvino-f32", "auto"))
    assert len(exact) == len(fast) > 0 and (abs(exact[:, :4] - fast[:, :4]) < 4).all() and (exact != fast).any()

    # a damaged form is as good as none; one that was measured and found wanting is taken only when a person says so
    keep(folder, record | dict(int8=record["int8"] | dict(allowed=False)))
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 ")
    assert engine.load(folder, "openvino-int8").runtime.startswith("openvino-cpu-int8 ")
    keep(folder, record)
    (folder / INT8).write_bytes((folder / INT8).read_bytes()[:-1])
    assert engine.load(folder).runtime.startswith("openvino-cpu-f32 ")


@needs_int8
def test_int8_is_not_measured_on_what_it_is_scaled_by(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = rundir.read_json(demo_assets() / "model" / "model.json")
    known = precision.material(head)
    assert len(known.names) == 135 and len(known.learned) > 300 and not set(known.names) & set(known.learned)
    kept = [f"{k:064x}" for k in range(200)]
    monkeypatch.setattr(precision, "_kept", lambda most: kept[:most])
    other = precision.material(head | dict(snapshot_id="gone"), 40)
    assert (len(other.names), len(other.learned)) == (40, int8.PICTURES) and not set(other.names) & set(other.learned)
    few = kept[:precision.LEAST + int8.PICTURES - 1]
    monkeypatch.setattr(precision, "_kept", lambda most: few)
    assert precision.material(head | dict(snapshot_id="gone"), 40).learned == []
    with pytest.raises(InputError, match="none that int8 could be scaled by"):
        precision.decide(bright_model.bundle(tmp_path / "bright"), precision.Pictures("kept", few), arithmetic="int8")


@needs_int8
def test_a_network_that_int8_cannot_help_is_told_so_and_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(runtimes, "has_bf16", lambda: False)
    folder = bright_model.bundle(tmp_path / "bright")
    with pytest.raises(InputError, match="int8 would gain nothing"):
        int8.made((folder / "model.onnx").read_bytes(), "bright", [])
    precision.after_training(folder, replace(shades(), learned=["00"]))
    assert "int8 would gain nothing" in capsys.readouterr().out and not (folder / FILE).exists()


def test_layers_that_only_the_answer_follows_stay_as_they_are() -> None:
    network = onnx.load(demo_assets() / "model" / "model.onnx")
    names = {node.name: node for node in int8._named(network)}
    last = set(int8._last(network))
    head_of_yolo = {name for name in names if "model.23" in name and names[name].op_type == "Conv"
                    and (name.endswith("2/Conv") and name.count(".") >= 4 or "dfl" in name)}
    assert len(last) == 7 and last == head_of_yolo


def test_the_model_that_comes_with_the_program_was_measured() -> None:
    head = rundir.read_json(demo_assets() / "model" / "model.json")
    record = said(demo_assets() / "model", head["model_id"])
    assert record["on"] == "val" and record["images"] == 135 and record["points"]["map50"][0] == pytest.approx(88.1, abs=0.05)


@needs_bf16
def test_val_figures_are_those_of_the_model_s_page(tmp_path: Path) -> None:
    """By the same scorer on the same plates: a part of them here."""
    folder = Path(shutil.copytree(demo_assets() / "model", tmp_path / "model"))
    ids = list(islice(demo.training_set(900, 0), 12))
    truth = {i: [(c, [float(v) for v in (x1, y1, x2 - x1, y2 - y1)]) for c, x1, y1, x2, y2 in demo.boxes(i)] for i in ids}
    record = precision.decide(folder, precision.Pictures("val", ids, truth=truth))
    reference = precision.detection.evaluate(precision.detection.predict(folder, ids, lambda i: np.asarray(demo.render(i).image),
                                                                         lambda n: None), truth, demo.CLASSES)
    assert record is not None and record["points"]["map50"][0] == pytest.approx(100 * reference["map50"], abs=0.05)


def test_the_page_says_it_in_one_line_and_a_button_asks_for_it(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = rundir.create("train-detector", {}, state="completed")
    model_id = json.loads((bright_model.bundle(run / "model") / "model.json").read_text())["model_id"]
    rundir.write_part(run, "models", [dict(model_id=model_id, name="bright", kind="detector", created_at=datetime.now(UTC), snapshot_id="",
                                           imgsz=SIDE, classes=bright_model.CLASSES, metrics="{}", settings="{}")])
    page = AppTest.from_file(str(ROOT / "pages" / "models.py"), default_timeout=60)
    page.query_params["model"] = model_id
    assert jobs.caught_up(10) and any("Nobody has measured" in c.value for c in page.run().caption) and not page.exception
    page.button(key="measure_precision").click().run()
    asked, = jobs.recent(recipes=("measure-precision",))
    assert asked.config["model"] == model_id and not any(b.key == "measure_precision" for b in page.button) and not page.exception
    jobs.cancel(asked.run_id)

    keep(run / "model", dict(model_id=model_id, bf16=False, on="val", images=180, points=dict(map50=[41.92, 41.42], map50_95=[17.4, 17.2])))
    monkeypatch.setattr(jobs, "arithmetics", lambda: ["bf16"])
    told = ("Inspects in float32 on this machine. bf16, though faster, changes what it finds: on 180 val pictures mAP50 is 41.9 % in "
            "float32 and 41.4 % in bf16, mAP50–95 is 17.4 % in float32 and 17.2 % in bf16.")
    assert [c.value for c in page.run().caption if "float32" in c.value] == [told]
    assert not any(b.key == "measure_precision" for b in page.button)
    monkeypatch.setattr(jobs, "arithmetics", lambda: ["bf16", "int8"])
    assert any(c.value == f"{told} Nobody has measured int8." for c in page.run().caption)
    assert any(b.key == "measure_precision" for b in page.button)

    bundled = SimpleNamespace(run_id="", model_id=rundir.read_json(demo_assets() / "model" / "model.json")["model_id"])
    record = arithmetic.measured(bundled)
    assert arithmetic.said(record, ["bf16", "int8"]).startswith("Inspects in bf16 on this machine. bf16, which is faster, changes next")
    assert arithmetic.said(record, ["int8"]).startswith("Inspects in float32 on this machine. bf16, which is faster,")
    both = record | dict(int8=dict(allowed=True, on="val", images=135, points=dict(map50=[88.1, 88.1])))
    assert arithmetic.said(both, ["int8"]).startswith("Inspects in int8 on this machine.")
    assert arithmetic.said(both, []).endswith("mAP50 is 88.1 % in float32 and 88.1 % in int8.")
