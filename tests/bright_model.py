"""A detector whose answers are known: how sure it is of "pits" is the mean red of a picture, of "scratch" the mean green.

A real ONNX file that the real engine opens; its one box lies in the middle. Milliseconds to make, where a real network takes seconds.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from backend.data import images

CLASSES = ["pits", "scratch"]
IMGSZ = 32


def onnx_bytes(gain: float = 1.0) -> bytes:
    """`gain`: by which it is surer than it should be."""
    def constant(name: str, values: Any, kind: type = np.float32) -> Any:
        return numpy_helper.from_array(np.array(values, kind), name)

    box = np.array([16, 16, 16, 16], np.float32).reshape(1, 4, 1)
    nodes = [helper.make_node("ReduceMean", ["images", "sides"], ["means"], keepdims=0),                     # (B, 3)
             helper.make_node("Slice", ["means", "start", "end", "axis"], ["two"]),                         # (B, 2)
             helper.make_node("Mul", ["two", "gain"], ["raised"]), helper.make_node("Unsqueeze", ["raised", "last"], ["sure"]),
             helper.make_node("Mul", ["sure", "zero"], ["nothing"]), helper.make_node("ReduceSum", ["nothing", "axis"], ["none"]),
             helper.make_node("Add", ["none", "box"], ["boxes"]), helper.make_node("Concat", ["boxes", "sure"], ["output"], axis=1)]
    graph = helper.make_graph(
        nodes, "bright", [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, IMGSZ, IMGSZ])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4 + len(CLASSES), 1])],
        [constant("sides", [2, 3], np.int64), constant("start", [0], np.int64), constant("end", [2], np.int64),
         constant("axis", [1], np.int64), constant("last", [2], np.int64), constant("gain", gain), constant("zero", 0),
         constant("box", box)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def bundle(folder: Path, name: str = "bright", gain: float = 1.0, **changes: Any) -> Path:
    """A deployed model's folder."""
    data = onnx_bytes(gain)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(dict(
        name=name, model_id=hashlib.sha256(data).hexdigest()[:16], kind="detector", classes=CLASSES, imgsz=IMGSZ, snapshot_id="",
        thresholds=dict.fromkeys(CLASSES, 0.5), created_at="2026-01-01T00:00:00+00:00") | changes))
    return folder


def encoded(pits: float, scratch: float = 0.0, mark: int = 0) -> bytes:
    """A picture in which that model is so sure of each; `mark` tells pictures of one kind apart."""
    out = io.BytesIO()
    pixels = np.full((IMGSZ, IMGSZ, 3), (round(255 * pits), round(255 * scratch), 0), np.uint8)
    pixels[0, :4, 2] = [mark >> shift & 255 for shift in (24, 16, 8, 0)]
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def kept(pits: float, scratch: float = 0.0, mark: int = 0) -> str:
    """The same, on disk; its id."""
    data = encoded(pits, scratch, mark)
    image_id = images.sha256(data)
    images.keep(data, image_id, "PNG")
    return image_id
