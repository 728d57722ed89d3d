"""A deployed detector behind one call: RGB arrays in, boxes in their own pixels out.

Reads a model bundle (`model.onnx` + `model.json`), refuses one that is damaged or that does not fit its description,
and answers as the trainer's own predictor would: same letterbox, same class-aware suppression.
A runtime is a function from a float32 batch (B, 3, S, S) to raw output (B, 4 + classes, N); a further one is one more
entry in `RUNTIMES`. Reading a bundle and opening its network are shared with `anomaly_engine`.
Knows nothing of files other than the bundle, of runs, or of what a box means for a product.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

from backend.device import cores
from backend.errors import ConfigError, InputError, NotFoundError, ResourceError

KINDS = {"detector": "a detector", "anomaly": "an anomaly model"}
DEFAULT_THRESHOLD = 0.25                # of a class for which the bundle states none
_BATCH_PIXELS = 16 * 640 * 640          # of one network call: activations of a YOLO11n stay below about 1 GB
Runner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """An image in network size, and how to come back to its own pixels."""

    pixels: np.ndarray                  # uint8 (S, S, 3)
    width: int
    height: int
    gain: tuple[float, float]           # network pixels per image pixel, x and y: they differ by the rounding
    offset: tuple[int, int]             # padding at left and top, network pixels


class Engine:
    """One loaded model. Not for two threads at once; `prepare` may run in any thread."""

    def __init__(self, model_dir: Path, runtime: str = "auto") -> None:
        head, onnx = read_bundle(Path(model_dir), "detector")
        self._take(head, *open_network(onnx, runtime, head["name"]))
        self.raw(np.zeros((1, 3, self.imgsz, self.imgsz), np.float32))         # shape checked now; the first real call is no slower

    @classmethod
    def of(cls, head: dict[str, Any], run: Runner) -> "Engine":
        """An engine around a network in memory, which is prepared for and read as a deployed one: for scoring what is never deployed."""
        engine = cls.__new__(cls)
        engine._take(head, run, "memory")
        return engine

    def _take(self, head: dict[str, Any], run: Runner, runtime: str) -> None:
        self.head, self._run, self.runtime = head, run, runtime
        self.model_id: str = self.head["model_id"]
        self.name: str = self.head["name"]
        self.classes: list[str] = self.head["classes"]
        self.imgsz: int = self.head["imgsz"]
        self.thresholds: dict[str, float] = {c: float(self.head.get("thresholds", {}).get(c, DEFAULT_THRESHOLD)) for c in self.classes}
        self._pad = int(self.head.get("preprocess", {}).get("pad", 114))
        nms = self.head.get("nms", {})
        self._iou, self._most = float(nms.get("iou", 0.7)), int(nms.get("max_detections", 300))
        self.batch = images_at_once(self.imgsz)

    def predict(self, images: Sequence[np.ndarray], floor: float = 0.001) -> list[np.ndarray]:
        """Boxes of uint8 RGB images (H, W, 3) of any sizes: per image float32 (n, 6), surest first.

        Columns: x1, y1, x2, y2 in the image's pixels, confidence (above `floor`), class id. A box carries its best class only.
        """
        return self.detect([self.prepare(i) for i in images], floor)

    def prepare(self, image: np.ndarray) -> Prepared:
        """Fit an image into the square input: one scale for both sides, centred, padded."""
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and image.shape[2:] == (3,) and height and width, f"no RGB image: {image.dtype} {image.shape}"
        scale = min(self.imgsz / height, self.imgsz / width)
        w, h = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (round((self.imgsz - side) / 2 - 0.1) for side in (w, h))  # an odd rest goes to the right and the bottom
        if (w, h) != (width, height):
            image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        pixels = np.full((self.imgsz, self.imgsz, 3), self._pad, np.uint8)
        pixels[top:top + h, left:left + w] = image
        return Prepared(pixels, width, height, (w / width, h / height), (left, top))

    def detect(self, prepared: Sequence[Prepared], floor: float = 0.001) -> list[np.ndarray]:
        """`predict` for images that went through `prepare`."""
        found = []
        for start in range(0, len(prepared), self.batch):
            some = prepared[start:start + self.batch]
            pixels = np.stack([p.pixels for p in some]).transpose(0, 3, 1, 2)       # (B, 3, S, S)
            raw = self.raw(np.ascontiguousarray(pixels, np.float32) / np.float32(255))
            found += [_in_image(self._suppress(r, floor), p) for r, p in zip(raw, some, strict=True)]
        return found

    def raw(self, batch: np.ndarray) -> np.ndarray:
        raw = self._run(batch)
        if raw.ndim != 3 or raw.shape[:2] != (len(batch), 4 + len(self.classes)):
            raise InputError(f"The model {self.name!r} does not answer as a detector of {len(self.classes)} classes: "
                             f"its output has the shape {'×'.join(map(str, raw.shape))}.")
        if not np.isfinite(raw).all():                                             # would otherwise pass every image as good
            raise InputError(f"The model {self.name!r} answers with values that are no numbers; train or export it again.")
        return raw

    def _suppress(self, raw: np.ndarray, floor: float) -> np.ndarray:
        """Raw output of one image (4 + classes, N) to (n, 6), network pixels, overlapping boxes of one class reduced to the surest."""
        raw = raw[:, raw[4:].max(0) > floor]
        x, y, w, h = raw[:4].astype(np.float64)
        class_id, confidence = raw[4:].argmax(0), raw[4:].max(0)
        shift = class_id * 16.0 * self.imgsz                                       # so that boxes of two classes never meet
        corners: Any = np.stack([x - w / 2 + shift, y - h / 2, w, h], axis=1)
        keep = np.asarray(cv2.dnn.NMSBoxes(corners, confidence, 0.0, self._iou), np.intp).reshape(-1)[:self._most]
        x, y, w, h = x[keep], y[keep], w[keep], h[keep]
        return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2, confidence[keep], class_id[keep]], axis=1)


def load(model_dir: Path, runtime: str = "auto") -> Engine:
    """The engine of a bundle; a process that inspects batch after batch loads it once."""
    return _loaded(Path(model_dir), runtime, stamp(Path(model_dir)))


@lru_cache(maxsize=2)
def _loaded(model_dir: Path, runtime: str, stamp: int) -> Engine:
    return Engine(model_dir, runtime)


def _in_image(boxes: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Network pixels to image pixels, cut at the border; what lies outside altogether goes."""
    boxes[:, [0, 2]] = ((boxes[:, [0, 2]] - prepared.offset[0]) / prepared.gain[0]).clip(0, prepared.width)
    boxes[:, [1, 3]] = ((boxes[:, [1, 3]] - prepared.offset[1]) / prepared.gain[1]).clip(0, prepared.height)
    boxes = boxes.astype(np.float32)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


# ── what all engines share ───────────────────────────────────────────────────────────────────────────────────────────


def stamp(folder: Path) -> int:
    """Changes with the network of a bundle; 0 where there is none."""
    onnx = folder / "model.onnx"
    return onnx.stat().st_mtime_ns if onnx.exists() else 0


def images_at_once(imgsz: int) -> int:
    """Images of one network call."""
    return max(1, min(32, _BATCH_PIXELS // imgsz**2))


def read_bundle(folder: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    """model.json and the bytes of model.onnx, checked against each other and against the kind of model that is wanted."""
    try:
        head, onnx = json.loads((folder / "model.json").read_bytes()), (folder / "model.onnx").read_bytes()
    except FileNotFoundError as e:
        raise NotFoundError(f"The model in {folder} is incomplete: {Path(e.filename).name} is missing.") from e
    except ValueError as e:
        raise InputError(f"The description of the model in {folder} is damaged: model.json is no JSON.") from e
    lacking = [k for k in ("name", "model_id", "classes", "imgsz") if not isinstance(head, dict) or not head.get(k)]
    if lacking:
        raise InputError(f"The description of the model in {folder} is incomplete: model.json does not say {', '.join(lacking)}.")
    found = head.get("kind", "detector")
    if found != kind:
        raise InputError(f"The model {head['name']!r} is {KINDS.get(found, found)}; {KINDS[kind]} is needed here.")
    if hashlib.sha256(onnx).hexdigest()[:16] != head["model_id"]:
        raise InputError(f"The model {head['name']!r} is damaged: model.onnx is not the file that model.json describes "
                         f"(model_id {head['model_id']}). Copy the bundle again or train it again.")
    return head, onnx


def open_network(onnx: bytes, runtime: str, name: str) -> tuple[Runner, str]:
    if runtime != "auto" and runtime not in RUNTIMES:
        raise ConfigError(f"runtime must be one of auto, {', '.join(RUNTIMES)}, not {runtime}.")
    if runtime == "auto":
        runtime = "onnxruntime-cuda" if "CUDAExecutionProvider" in ort.get_available_providers() else "onnxruntime-cpu"
    return RUNTIMES[runtime](onnx, name)


def _onnxruntime(providers: list[str]) -> Callable[[bytes, str], tuple[Runner, str]]:
    """A runtime of ONNX Runtime. Where a GPU provider cannot start, ONNX Runtime takes the CPU: the name says what it really took."""

    def start(onnx: bytes, name: str) -> tuple[Runner, str]:
        session = _session(onnx, [p for p in providers if p in ort.get_available_providers()], name)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or isinstance(inputs[0].shape[0], int) or inputs[0].type != "tensor(float)":
            raise InputError(f"The model {name!r} cannot be used here: it must take one float32 batch of images of any length.")
        device = session.get_providers()[0].removesuffix("ExecutionProvider").lower()

        def run(batch: np.ndarray) -> np.ndarray:
            try:
                return np.asarray(session.run([outputs[0].name], {inputs[0].name: batch})[0])
            except MemoryError as e:
                raise ResourceError(f"Out of memory while the model {name!r} looked at {len(batch)} images.") from e
            except Exception as e:                                                 # ONNX Runtime's own errors share no base class
                raise _explained(e, f"The model {name!r} failed on {len(batch)} images of {batch.shape[-1]} pixels") from e

        return run, f"onnxruntime-{device} {ort.__version__}"

    return start


def _session(onnx: bytes, providers: list[str], name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores()                                         # by itself it ignores the limits of a container
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")       # 45 against 39 images/s while others use the cores too
    options.log_severity_level = 4                                                 # its errors are raised; printed too they only frighten
    try:
        return ort.InferenceSession(onnx, options, providers=providers)
    except Exception as e:
        raise _explained(e, f"The model {name!r} cannot be opened by ONNX Runtime {ort.__version__}") from e


def _explained(error: Exception, what: str) -> Exception:
    """A sentence for a person out of ONNX Runtime's words."""
    words = str(error)
    if "opset" in words.lower() or "IR version" in words:
        return InputError(f"{what}: it was exported for a newer runtime. Export it with an older opset, or update ONNX Runtime.")
    if "allocate" in words.lower():
        return ResourceError(f"{what}: out of memory.")
    return InputError(f"{what}: {words.split(':', 3)[-1].strip()[:200]}")


RUNTIMES: dict[str, Callable[[bytes, str], tuple[Runner, str]]] = {
    "onnxruntime-cpu": _onnxruntime(["CPUExecutionProvider"]),
    "onnxruntime-cuda": _onnxruntime(["CUDAExecutionProvider", "CPUExecutionProvider"]),
}
