"""A deployed detector behind one call: RGB arrays in, boxes in their own pixels out.

Reads a model bundle (`model.onnx` + `model.json`), refuses one that is damaged or that does not fit its description,
and answers as the trainer's own predictor would: same letterbox, same class-aware suppression.
What computes the network is `runtimes`. Reading a bundle is shared with `anomaly_engine`; a classifier of whole images
(`classifier_engine`) stands in a detector's place, and `load` opens either.
Knows nothing of files other than the bundle, of runs, or of what a box means for a product.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from backend.errors import ImageError, InputError, NotFoundError
from backend.inspection.description import alone, called, checked
from backend.inspection.precision import FILE, leave
from backend.inspection.runtimes import Answer, InMemory, Network, Pixels, open_network
from backend.inspection.tiles import Place, joined, number, places

cv2.setNumThreads(1)                    # pictures are fitted in threads of ours; more only get into each other's way
KINDS = {"detector": "a detector", "anomaly": "an anomaly model", "classifier": "a classifier"}
MOST_TILES = 2**30                      # bytes of the tiles of one picture: all are held at once
DEFAULT_THRESHOLD = 0.25                # of a class for which the bundle states none


@dataclass(frozen=True)
class Prepared:
    """An image in network size, and how to come back to its own pixels."""

    pixels: np.ndarray                  # uint8 (S, S, 3)
    width: int
    height: int
    gain: tuple[float, float]           # network pixels per image pixel, x and y: they differ by the rounding
    offset: tuple[int, int]             # padding at left and top, network pixels

    tiles: "tuple[Prepared, ...]" = ()  # of a picture that is looked at in parts, which has no pixels itself
    where: tuple[Place, ...] = ()

    @property
    def parts(self) -> "tuple[Prepared, ...]":
        return self.tiles or (self,)

    @property
    def nbytes(self) -> int:
        return sum(p.pixels.nbytes for p in self.parts)

    def emptied(self) -> Self:
        """Without the pixels: at 640 px they are 1.2 MB."""
        return replace(self, pixels=self.pixels[:0, :0].copy(), tiles=(), where=())


class Engine:
    """One loaded model. Not for two threads at once; `prepare` may run in any thread."""

    kind = "detector"
    tile = (0, 0)                       # side and overlap of the tiles that larger pictures are cut into; 0: none is cut

    def __init__(self, model_dir: Path, runtime: str = "auto") -> None:
        head, onnx = read_bundle(Path(model_dir), self.kind)
        may = leave(Path(model_dir), head["model_id"], head["name"])
        self._take(head, open_network(onnx, runtime, head["name"], head["imgsz"], leave=may))
        next(self._raw([[self.prepare(np.zeros((8, 8, 3), np.uint8))]]))           # shape checked now; the first real call is no slower

    def cutting(self, side: int | None) -> Self:
        """This engine with tiles of another side, in pixels of the image; 0: none; None: as the model proposes."""
        other = copy(self)
        other.tile = self.tile if side is None else (side, self.tile[1])
        return other

    @classmethod
    def of(cls, head: dict[str, Any], answer: Answer) -> "Engine":
        """An engine around a network in memory, which is prepared for and read as a deployed one: for scoring what is never deployed."""
        engine = cls.__new__(cls)
        engine._take(head, InMemory(answer))
        return engine

    def _take(self, head: dict[str, Any], network: Network) -> None:
        self.head, self.network, self.runtime = head, network, network.name
        self.model_id: str = self.head["model_id"]
        self.name: str = self.head["name"]
        self.classes: list[str] = self.head["classes"]
        self.imgsz: int = self.head["imgsz"]
        self.thresholds: dict[str, float] = {c: float(self.head.get("thresholds", {}).get(c, DEFAULT_THRESHOLD)) for c in self.classes}
        self.tile = tile_of(head)
        self._pad = int(self.head.get("preprocess", {}).get("pad", 114))
        nms = self.head.get("nms", {})
        self._iou, self._most = float(nms.get("iou", 0.7)), int(nms.get("max_detections", 300))
        self.batch = network.batch

    def predict(self, images: Sequence[np.ndarray], floor: float = 0.001) -> list[np.ndarray]:
        """Boxes of uint8 RGB images (H, W, 3) of any sizes: per image float32 (n, 6), surest first.

        Columns: x1, y1, x2, y2 in the image's pixels, confidence (above `floor`), class id. A box carries its best class only.
        """
        return self.detect([self.prepare(i) for i in images], floor)

    def prepare(self, image: np.ndarray) -> Prepared:
        """Fit an image into the square input, or each of its tiles."""
        height, width = image.shape[:2]
        count = number(width, height, *self.tile)
        if 3 * count * self.imgsz**2 > MOST_TILES:
            raise ImageError(f"It would be cut into {count:,} tiles of {self.tile[0]:,} pixels, more than fit into memory. Choose larger "
                             "tiles, or send it in parts.")
        where = places(width, height, *self.tile)
        if len(where) == 1:
            return self._fitted(image)
        cut = tuple(self._fitted(image[y:y + h, x:x + w]) for x, y, w, h in where)
        return replace(cut[0].emptied(), width=width, height=height, tiles=cut, where=tuple(where))

    def _fitted(self, image: np.ndarray) -> Prepared:
        """One scale for both sides, centred, padded."""
        height, width = image.shape[:2]
        assert image.dtype == np.uint8 and image.shape[2:] == (3,) and height and width, f"no RGB image: {image.dtype} {image.shape}"
        scale = min(self.imgsz / height, self.imgsz / width)
        w, h = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (round((self.imgsz - side) / 2 - 0.1) for side in (w, h))  # an odd rest goes to the right and the bottom
        if (w, h) != (width, height):
            image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        pixels = np.ascontiguousarray(image)                                       # of a tile a copy: it may not hold the whole picture
        if image.shape[:2] != (self.imgsz, self.imgsz):
            pixels = np.full((self.imgsz, self.imgsz, 3), self._pad, np.uint8)
            pixels[top:top + h, left:left + w] = image
        return Prepared(pixels, width, height, (w / width, h / height), (left, top))

    def detect(self, prepared: Sequence[Prepared], floor: float = 0.001) -> list[np.ndarray]:
        """`predict` for images that went through `prepare`."""
        return list(self.stream(prepared, floor))

    def stream(self, prepared: Iterable[Prepared], floor: float = 0.001) -> Iterator[np.ndarray]:
        """`detect`, image by image, while the network is at those that come after."""
        waiting, found = deque[Prepared](), list[np.ndarray]()

        def parts() -> Iterator[Prepared]:
            for one in prepared:
                waiting.append(one)
                yield from one.parts

        for boxes in self._stream_parts(parts(), floor):
            found.append(boxes)
            if len(found) == len(waiting[0].parts):
                image = waiting.popleft()
                yield joined(found, list(image.where), image.width, image.height) if image.tiles else boxes
                found = []

    def _stream_parts(self, parts: Iterable[Prepared], floor: float) -> Iterator[np.ndarray]:
        """Boxes of each part in its own pixels."""
        waiting = deque[Prepared]()

        def noted() -> Iterator[list[Prepared]]:
            for some in in_batches(parts, self.batch):
                waiting.extend(some)
                yield some

        for raw in self._raw(noted()):
            for one in raw:
                yield self._boxes(one, waiting.popleft(), floor)

    def _boxes(self, raw: np.ndarray, prepared: Prepared, floor: float) -> np.ndarray:
        """What the network says of one image, as boxes in the image."""
        return _in_image(self._suppress(raw, floor), prepared)

    def _raw(self, batches: Iterable[Sequence[Prepared]]) -> Iterator[np.ndarray]:
        return self.raw([p.pixels for p in some] for some in batches)

    def raw(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        """The network's own answers to each batch: (B, 4 + classes, N)."""
        for raw in self.network.stream(batches):
            self._check(raw)
            yield raw

    def _check(self, raw: np.ndarray) -> None:
        if raw.ndim != 3 or raw.shape[1] != 4 + len(self.classes):
            raise InputError(f"The model {self.name!r} does not answer as a detector of {len(self.classes)} classes: "
                             f"its output has the shape {'×'.join(map(str, raw.shape))}.")
        if not np.isfinite(raw).all():                                             # would otherwise pass every image as good
            raise InputError(f"The model {self.name!r} answers with values that are no numbers; train or export it again.")

    def _suppress(self, raw: np.ndarray, floor: float) -> np.ndarray:
        """Raw output of one image (4 + classes, N) to (n, 6), network pixels, overlapping boxes of one class reduced to the surest."""
        surest = raw[4:].max(0)
        at = np.flatnonzero(surest > floor)
        boxes, class_id, confidence = raw[:4, at].T.astype(np.float64), raw[4:, at].argmax(0), surest[at]
        boxes[:, :2] -= boxes[:, 2:] / 2                                           # (n, 4) x, y of the corner, width, height
        moved: Any = boxes.copy()
        moved[:, 0] += class_id * 16.0 * self.imgsz                                # so that boxes of two classes never meet
        keep = np.asarray(cv2.dnn.NMSBoxes(moved, confidence, 0.0, self._iou), np.intp).reshape(-1)[:self._most]
        boxes[:, 2:] += boxes[:, :2]
        return np.column_stack([boxes[keep], confidence[keep], class_id[keep]])


def load(model_dir: Path, runtime: str = "auto") -> Engine:
    """The engine of a bundle, of a detector or of a classifier; a process that inspects batch after batch loads it once."""
    return _loaded(Path(model_dir), runtime, stamp(Path(model_dir)))


@lru_cache(maxsize=2)
def _loaded(model_dir: Path, runtime: str, stamp: int) -> Engine:
    from backend.inspection.classifier_engine import ClassifierEngine  # it builds on this module's engine

    return (ClassifierEngine if kind_in(model_dir) == ClassifierEngine.kind else Engine)(model_dir, runtime)


def _in_image(boxes: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Network pixels to image pixels, cut at the border; what lies outside altogether goes."""
    boxes[:, [0, 2]] = ((boxes[:, [0, 2]] - prepared.offset[0]) / prepared.gain[0]).clip(0, prepared.width)
    boxes[:, [1, 3]] = ((boxes[:, [1, 3]] - prepared.offset[1]) / prepared.gain[1]).clip(0, prepared.height)
    boxes = boxes.astype(np.float32)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


# ── what all engines share ───────────────────────────────────────────────────────────────────────────────────────────


def stamp(folder: Path) -> int:
    """Changes with the network of a bundle, and with what was measured of its arithmetic; 0 where there is none."""
    files = [p for p in (folder / "model.onnx", folder / FILE) if p.exists()]
    return sum(p.stat().st_mtime_ns for p in files)


def kind_in(folder: Path) -> str:
    """The kind of model that a bundle says it is; '' where it says nothing that can be read, which `read_bundle` then explains."""
    try:
        head = json.loads((folder / "model.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(head.get("kind", "detector")) if isinstance(head, dict) else ""


def read_bundle(folder: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    """model.json and the bytes of model.onnx, checked against each other and against the kind of model that is wanted."""
    try:
        said, onnx = (folder / "model.json").read_bytes(), (folder / "model.onnx").read_bytes()
        head = checked(json.loads(said), folder)
    except FileNotFoundError as e:
        raise NotFoundError(f"The model in {called(folder)} is incomplete: {Path(e.filename).name} is missing.") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"The description of the model in {called(folder)} is damaged: model.json is no JSON.") from e
    found = head.get("kind", "detector")
    if found != kind:
        raise InputError(f"The model {head['name']!r} is {KINDS.get(found, found)}; {KINDS[kind]} is needed here.")
    if hashlib.sha256(onnx).hexdigest()[:16] != head["model_id"]:
        raise InputError(f"The model {head['name']!r} is damaged: model.onnx is not the file that model.json describes "
                         f"(model_id {head['model_id']}). Copy the bundle again or train it again.")
    alone(onnx, head["name"])
    return head, onnx


def tile_of(head: dict[str, Any]) -> tuple[int, int]:
    """Side and overlap of tiles in the scale of the pictures that a model learned from, where its description tells them."""
    learned = head.get("learned") or {}
    return int(learned.get("side", 0)), round(1.1 * learned.get("object", 0))


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time, the last fewer."""
    left = iter(items)
    return iter(lambda: list(islice(left, size)), [])
