"""A deployed anomaly model behind one call: RGB arrays in, maps and scores out.

Shares bundle reading and runtimes with `engine`. The network answers with the final map, (B, m, m), higher is more
anomalous; what is left to do here is to fit pictures and to make a score of a map. Knows nothing of files other than the
bundle, of runs, or of how a threshold was found.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from backend.errors import InputError
from backend.inspection.engine import in_batches, read_bundle, stamp
from backend.inspection.runtimes import Pixels, open_network

UNUSUAL = "unusual"                     # the one class of an anomaly model


class AnomalyEngine:
    """One loaded model. Not for two threads at once; `prepare` may run in any thread."""

    def __init__(self, model_dir: Path, runtime: str = "auto") -> None:
        self.head, onnx = read_bundle(Path(model_dir), "anomaly")
        self.model_id: str = self.head["model_id"]
        self.name: str = self.head["name"]
        self.imgsz: int = self.head["imgsz"]
        lacking = [k for k in ("map_side", "score", "pixel_threshold", "map_range") if k not in self.head]
        if lacking:
            raise InputError(f"The description of the model {self.name!r} is incomplete: model.json does not say {', '.join(lacking)}.")
        self.map_side: int = self.head["map_side"]
        self.threshold: float | None = self.head.get("thresholds", {}).get(UNUSUAL)     # none: too few good pictures to set one
        self.pixel_threshold: float = self.head["pixel_threshold"]
        self.map_range: tuple[float, float] = (self.head["map_range"][0], self.head["map_range"][1])
        self.network = open_network(onnx, runtime, self.name, self.imgsz, exact=True)      # small differences of large values
        self.batch, self.runtime = self.network.batch, self.network.name
        self.maps([np.zeros((self.imgsz, self.imgsz, 3), np.uint8)])           # shape checked now; the first real call is no slower

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to uint8 (S, S, 3)."""
        assert image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size, f"no RGB image: {image.dtype} {image.shape}"
        return stretched(image, self.imgsz)

    def maps(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, m, m) of images that went through `prepare`."""
        return np.concatenate([np.zeros((0, self.map_side, self.map_side), np.float32), *self.raw(in_batches(prepared, self.batch))])

    def scores(self, maps: np.ndarray) -> np.ndarray:
        """float32 (n,) of maps (n, m, m)."""
        return top_mean(maps, int(self.head["score"]["cells"]))

    def raw(self, batches: Iterable[Pixels]) -> Iterator[np.ndarray]:
        """The network's own answers to each batch: float32 (B, m, m)."""
        for raw in self.network.stream(batches):
            self._check(raw)
            yield raw

    def _check(self, raw: np.ndarray) -> None:
        if raw.shape[1:] != (self.map_side, self.map_side):
            raise InputError(f"The model {self.name!r} does not answer as an anomaly model with maps of {self.map_side} cells a side: "
                             f"its output has the shape {'×'.join(map(str, raw.shape))}.")
        if not np.isfinite(raw).all():                                         # would otherwise pass every image as good
            raise InputError(f"The model {self.name!r} answers with values that are no numbers; train it again.")


def load_anomaly(model_dir: Path, runtime: str = "auto") -> AnomalyEngine:
    """The engine of a bundle; a process that inspects batch after batch loads it once."""
    return _loaded(Path(model_dir), runtime, stamp(Path(model_dir)))


@lru_cache(maxsize=2)
def _loaded(model_dir: Path, runtime: str, changed: int) -> AnomalyEngine:
    return AnomalyEngine(model_dir, runtime)


def stretched(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, 3) to (side, side, 3), whatever its shape: a border that training never showed would be unusual by itself.

    Training takes its pictures through here too. Averaged where it shrinks, or fine texture would turn into false patterns.
    """
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    shrinks = min(height, width) > side
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def enlarged(anomaly_map: np.ndarray, width: int, height: int) -> np.ndarray:
    """A map (m, m) laid over a picture: float32 (height, width), bilinear between the cells' centres."""
    return np.asarray(cv2.resize(anomaly_map.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))


def top_mean(maps: np.ndarray, cells: int) -> np.ndarray:
    """Mean of the highest cells of each map (n, h, w): float32 (n,). DeSTSeg (CVPR 2023), section 4.1, takes 100 of 256² pixels."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    assert 0 < cells <= flat.shape[1], f"{cells} cells of {flat.shape[1]}"
    return np.partition(flat, -cells, axis=1)[:, -cells:].mean(1, dtype=np.float64).astype(np.float32)
