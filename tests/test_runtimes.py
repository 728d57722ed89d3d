"""Runtimes under one call: the same answers from each, in order, several on their way; what fails is passed over, and says so."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from backend import rundir
from backend.config import Inspect, Predict, demo_assets
from backend.data import demo
from backend.device import REFERENCE
from backend.errors import ConfigError, InputError
from backend.evaluation import detection
from backend.inspection import inspect, runtimes
from backend.inspection.engine import Engine
from backend.inspection.runtimes import InMemory, Leave, as_floats, open_network
from tests import plates
from tests.tiny_model import CLASSES, IMGSZ, bundle, onnx_bytes

OURS = ["openvino", *(r for r in runtimes.RUNTIMES if "cuda" not in r and r != "openvino-int8"
                      and (r != "openvino-bf16" or runtimes.has_bf16()))]


def pixels(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, IMGSZ, IMGSZ, 3), np.uint8)


def test_float32_is_float32_everywhere() -> None:
    pictures = [np.asarray(demo.render(ident).image) for ident in islice(demo.training_set(9, 5), 9)]      # the last request is not full
    ours, reference = (Engine(demo_assets() / "model", r).predict(pictures, 0.1) for r in ("openvino-f32", "onnxruntime-cpu"))
    assert sum(map(len, reference)) > 8
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a[:, :4], b[:, :4], atol=0.02)
        np.testing.assert_allclose(a[:, 4:], b[:, 4:], atol=1e-3)


def test_the_fastest_runtime_costs_no_accuracy() -> None:
    """Within half a point of float32: on 90 plates one box more or less is 0.3 points. `bench inference` measures it on real images."""
    ids = list(islice(demo.training_set(90, 7), 90))
    shown = {i: np.asarray(demo.render(i).image) for i in ids}
    truth = {i: [(c, [x1, y1, x2 - x1, y2 - y1]) for c, x1, y1, x2, y2 in demo.boxes(i)] for i in ids}
    found = {r: detection.answers(Engine(demo_assets() / "model", r), ids, shown.__getitem__, lambda n: None)
             for r in ("auto", "onnxruntime-cpu")}
    fast, reference = (detection.evaluate(found[r], truth, demo.CLASSES) for r in found)
    assert reference["map50"] > 0.5
    assert abs(fast["map50"] - reference["map50"]) <= 0.005 and abs(fast["map50_95"] - reference["map50_95"]) <= 0.005


@pytest.mark.parametrize("runtime", OURS)
def test_answers_come_in_order_however_many_are_asked(runtime: str) -> None:
    network = open_network(onnx_bytes(), runtime, "tiny", IMGSZ)
    batches = [pixels(2, seed) for seed in range(9)]
    together = list(network.stream(batches))
    for k in (0, 4, 8):
        np.testing.assert_allclose(together[k], next(iter(network.stream([batches[k]]))), atol=1e-4)
    assert list(network.stream([])) == []


def test_openvino_is_fed_ahead_and_may_be_left_early() -> None:
    network, asked = open_network(onnx_bytes(), "openvino-f32", "tiny", IMGSZ), []

    def fed() -> Iterator[np.ndarray]:
        for k in range(40):
            asked.append(k)
            yield pixels(1, k)

    stream = network.stream(fed())
    first = next(stream)
    ahead = len(asked)
    stream.close()
    assert 2 < ahead < 20, "several on their way before the first is read, but not all"
    np.testing.assert_allclose(next(iter(network.stream([pixels(1, 0)]))), first, atol=1e-4)       # the requests are free again


def test_a_runtime_that_fails_is_passed_over_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(onnx: bytes, name: str, imgsz: int) -> InMemory:
        raise RuntimeError("no such instruction\nat 0x00")

    monkeypatch.setitem(runtimes.RUNTIMES, "openvino-f32", broken)
    network = open_network(onnx_bytes(), "auto", "tiny", IMGSZ)
    assert network.name.startswith("onnxruntime-cpu")
    assert network.notes == ["The runtime openvino could not be used: no such instruction. onnxruntime-cpu does the work, more slowly."]
    with pytest.raises(RuntimeError):
        open_network(onnx_bytes(), "openvino", "tiny", IMGSZ)                                      # one that is asked for is not replaced

    # one that is at a loss in its own way too
    for mistake, told in ((KeyError("axis"), "KeyError 'axis'."), (IndexError(), "IndexError."), (TypeError("x"), "TypeError x.")):
        def lost(onnx: bytes, name: str, imgsz: int, mistake: Exception = mistake) -> InMemory:
            raise mistake

        monkeypatch.setitem(runtimes.RUNTIMES, "openvino-f32", lost)
        said, = open_network(onnx_bytes(), "auto", "tiny", IMGSZ).notes
        assert said == f"The runtime openvino could not be used: {told} onnxruntime-cpu does the work, more slowly."

    # and the run tells it
    monkeypatch.setitem(runtimes.RUNTIMES, "openvino-f32", broken)
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    bundle(rundir.create("train-detector", {}, state="completed") / "model", thresholds={c: 0.5 for c in CLASSES})
    (tmp_path / "in").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "in" / "a.png")
    config = Inspect(model="tiny", images=str(tmp_path / "in"))
    result = inspect.run(config, rundir.create("inspect", config.to_json()), plates.silent)
    assert result["runtime"].startswith("onnxruntime-cpu") and result["warnings"] == network.notes


def test_the_graph_for_a_gpu_answers_as_the_reference_and_refuses_what_it_does_not_know() -> None:
    """On a processor, in float32: that it is recorded and replayed on a GPU cannot be seen here."""
    import torch

    from backend.inspection import cuda

    graph, shown = cuda.Graph(onnx_bytes(), "tiny", "cpu", half=False), pixels(3)
    with torch.inference_mode():
        told = [graph.run(torch.from_numpy(as_floats(shown))).numpy() for _ in range(2)]
    expected = next(iter(open_network(onnx_bytes(), REFERENCE, "tiny", IMGSZ).stream([shown])))
    for found in told:                                               # the second time with what it knows from the first
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.02)
    foreign = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Erf", ["a"], ["b"])], "g", [
        onnx.helper.make_tensor_value_info("a", 1, [1])], [onnx.helper.make_tensor_value_info("b", 1, [1])]))
    with pytest.raises(InputError, match="cannot be computed by PyTorch: Erf"):
        cuda.Graph(foreign.SerializeToString(), "foreign", "cpu", half=False)


def test_which_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = "openvino-cpu-bf16 " if runtimes.has_bf16() else "openvino-cpu-f32 "
    assert open_network(onnx_bytes(), "auto", "tiny", IMGSZ, leave=Leave(bf16=True)).name.startswith(fast)
    assert open_network(onnx_bytes(), "auto", "tiny", IMGSZ).name.startswith("openvino-cpu-f32 "), "unless somebody has measured"
    assert open_network(onnx_bytes(), "auto", "tiny", IMGSZ, exact=True).name.startswith("openvino-cpu-f32 ")
    monkeypatch.setenv("DIFFSPECT_RUNTIME", "onnxruntime-cpu")
    assert open_network(onnx_bytes(), "auto", "tiny", IMGSZ).name.startswith("onnxruntime-cpu ")
    monkeypatch.setenv("DIFFSPECT_RUNTIME", "abacus")
    with pytest.raises(ConfigError, match="openvino, openvino-f32, openvino-bf16, openvino-int8, onnxruntime-cpu, .*, not abacus"):
        open_network(onnx_bytes(), "auto", "tiny", IMGSZ)


def test_the_setting_of_a_run_goes_before_the_machine() -> None:
    with pytest.raises(ConfigError, match="runtime must be one of"):
        Inspect(runtime="abacus")
    assert Predict(runtime="openvino-f32").runtime == "openvino-f32"


def test_openvino_explains_what_it_cannot_open() -> None:
    for damaged in (b"", b"not a network at all"):
        with pytest.raises(InputError, match="'tiny' cannot be opened by OpenVINO"):
            open_network(damaged, "openvino", "tiny", IMGSZ)


def test_figures_come_from_the_reference(tmp_path: Path) -> None:
    """Thresholds and scores must not depend on the machine that computes them."""
    folder, picture = bundle(tmp_path), pixels(1, 5)[0]
    engine = Engine(folder, REFERENCE)
    told = detection.predict(folder, ["a"], lambda name: picture, lambda n: None)
    expected = engine.predict([picture])[0]
    assert [p["score"] for p in told] == pytest.approx(expected[:, 4].tolist(), abs=1e-6)
    assert engine.network.batch == 32 and as_floats(picture[None]).shape == (1, 3, IMGSZ, IMGSZ)
