"""The engine against the trainer's own predictor on one exported file, and against everything a bundle can be damaged by."""

import hashlib
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from backend.errors import ConfigError, InputError, NotFoundError
from backend.inspection.engine import Engine, load
from tests.tiny_model import CLASSES, IMGSZ, bundle, onnx_bytes

SIZES = [(64, 64), (100, 37), (33, 200), (200, 200), (480, 641), (1, 90), (7, 5)]     # height, width


@pytest.fixture(scope="module", params=["onnxruntime-cpu", "openvino-f32"])
def engine(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Engine:
    return Engine(bundle(tmp_path_factory.mktemp("tiny")), request.param)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of colour, so that the network has something to see at any size."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """What Ultralytics says about pictures of SIZES, one at a time, from the same file."""
    path = tmp_path_factory.mktemp("theirs") / "model.onnx"
    path.write_bytes(onnx_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ultralytics import YOLO

        model = YOLO(path, task="detect")
        shown = [np.ascontiguousarray(picture(*s)[..., ::-1]) for s in SIZES]                # they take BGR
        how = dict(imgsz=IMGSZ, conf=0.01, iou=0.7, max_det=300, rect=False, verbose=False, device="cpu")
        return [model.predict(i, **how)[0].boxes.data.numpy() for i in shown]


def test_same_boxes_as_ultralytics(engine: Engine, theirs: list[np.ndarray]) -> None:
    ours = engine.predict([picture(*s) for s in SIZES], 0.01)
    for size, a, b in zip(SIZES, ours, theirs, strict=True):
        b = b[(b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])]                                     # theirs keep boxes without an area
        assert len(a) == len(b) > 3, size
        assert len({int(k) for k in a[:, 5]}) > 1, "one class alone would not test the suppression by class"
        a, b = (x[np.lexsort((x[:, 1].round(), x[:, 0].round(), x[:, 5], -x[:, 4].round(3)))] for x in (a, b))
        np.testing.assert_allclose(a[:, 4:], b[:, 4:], atol=1e-3)
        np.testing.assert_allclose(a[:, :4], b[:, :4], atol=0.5)


def test_a_batch_says_what_each_picture_alone_says(engine: Engine) -> None:
    pictures = [picture(50 + k, 90 - k, k) for k in range(40)]                               # more than one network call
    together, alone = engine.predict(pictures, 0.01), [engine.predict([p], 0.01)[0] for p in pictures]
    for a, b in zip(together, alone, strict=True):
        assert len(a) == len(b)
        np.testing.assert_allclose(a, b, atol=0.01)


def test_boxes_lie_in_the_picture_surest_first(engine: Engine) -> None:
    for (height, width), boxes in zip(SIZES, engine.predict([picture(*s) for s in SIZES]), strict=True):
        assert boxes.dtype == np.float32 and boxes.shape[1] == 6 and 0 < len(boxes) <= 300
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
        assert (boxes[:, 0] < boxes[:, 2]).all() and (boxes[:, 1] < boxes[:, 3]).all()
        assert (np.diff(boxes[:, 4]) <= 0).all()


def test_floor_cuts_and_nothing_found_is_an_empty_array(engine: Engine) -> None:
    low, high, none = (engine.predict([picture(64, 64)], f)[0] for f in (0.01, 0.2, 1.0))
    assert 0 < len(high) < len(low) and high[:, 4].min() > 0.2
    assert none.shape == (0, 6)
    assert engine.predict([]) == []


def test_letterbox_is_centred_and_padded_with_114(engine: Engine) -> None:
    wide = engine.prepare(np.full((10, 20, 3), 200, np.uint8))
    assert wide.pixels.shape == (IMGSZ, IMGSZ, 3) and wide.offset == (0, 16)
    assert (wide.pixels[:16] == 114).all() and (wide.pixels[16:48] == 200).all() and (wide.pixels[48:] == 114).all()
    odd = engine.prepare(np.zeros((64, 63, 3), np.uint8))                                    # one column is left over: to the right
    assert odd.offset == (0, 0) and (odd.pixels[:, 63] == 114).all() and not odd.pixels[:, :63].any()


def test_what_an_engine_says_of_itself(engine: Engine) -> None:
    assert engine.classes == CLASSES and engine.imgsz == IMGSZ and engine.thresholds == {c: 0.3 for c in CLASSES}
    assert engine.model_id == hashlib.sha256(onnx_bytes()).hexdigest()[:16]
    assert engine.runtime.startswith(("onnxruntime-cpu 1.", "openvino-cpu-f32 2"))


def test_a_model_is_loaded_once_until_its_file_changes(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "m")
    first = load(folder)
    assert load(folder) is first
    bundle(folder, detector(), name="newer")
    assert load(folder).name == "newer"


# ── bundles that cannot be used ──────────────────────────────────────────────────────────────────────────────────────


def detector(channels: int = 7, *, opset: int = 17, batch: int | str = "batch", fill: float = 0.0, inputs: int = 1) -> bytes:
    """A network that answers one constant, with the shape of a detector or another."""
    images = [helper.make_tensor_value_info(f"images{k or ''}", TensorProto.FLOAT, [batch, 3, "h", "w"]) for k in range(inputs)]
    made = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "column"], ["each"]),
            helper.make_node("Mul", ["each", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "answer"], ["output0"])]
    constants = [helper.make_tensor("column", TensorProto.INT64, [3], [-1, 1, 1]), helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
                 helper.make_tensor("answer", TensorProto.FLOAT, [1, channels, 5], [fill] * channels * 5)]
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch, channels, 5])
    graph = helper.make_graph(made, "detector", images, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9
    return bytes(model.SerializeToString())


def test_the_handmade_network_is_one_that_works(tmp_path: Path) -> None:
    assert [b.shape for b in Engine(bundle(tmp_path, detector())).predict([picture(9, 9)] * 2)] == [(0, 6)] * 2


@pytest.mark.parametrize(("onnx_file", "said"), [
    (detector(channels=9), "does not answer as a detector of 3 classes"),
    (detector(batch=1), "batch of images of any length"),
    (detector(inputs=2), "must take one float32 batch"),
    (detector(fill=float("nan")), "values that are no numbers"),
    (detector(opset=999), "exported for a newer runtime"),
    (b"", "cannot be opened"),
    (b"not a network at all", "cannot be opened"),
    (detector()[:-40], "cannot be opened"),
])
def test_networks_that_cannot_be_used(tmp_path: Path, onnx_file: bytes, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=said) as error:
        strict = "newer" in said or "one float32" in said                                    # OpenVINO takes these
        Engine(bundle(tmp_path, onnx_file), "onnxruntime-cpu" if strict else "auto")
    assert "'tiny'" in str(error.value) and "\n" not in str(error.value)
    assert "onnxruntime" not in capfd.readouterr().err


def test_a_changed_network_is_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    data = bytearray(onnx_bytes())
    data[5000] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(InputError, match="'tiny' is damaged"):
        Engine(folder)


@pytest.mark.parametrize("missing", ["model.onnx", "model.json"])
def test_missing_files(tmp_path: Path, missing: str) -> None:
    (bundle(tmp_path, detector()) / missing).unlink()
    with pytest.raises(NotFoundError, match=f"{missing} is missing"):
        Engine(tmp_path)


@pytest.mark.parametrize(("text", "said"), [
    ("{", "is no JSON"), ("[1]", "does not say name"), ('{"name": "x", "classes": []}', "model_id, classes, imgsz")])
def test_damaged_description(tmp_path: Path, text: str, said: str) -> None:
    (bundle(tmp_path, detector()) / "model.json").write_text(text)
    with pytest.raises(InputError, match=said):
        Engine(tmp_path)


def test_thresholds_that_the_bundle_does_not_state(tmp_path: Path) -> None:
    assert Engine(bundle(tmp_path, detector(), thresholds={"pits": 0.7})).thresholds == {"crack": 0.25, "pits": 0.7, "scratch": 0.25}


def test_unknown_runtime(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="onnxruntime-cpu"):
        Engine(bundle(tmp_path, detector()), "abacus")
