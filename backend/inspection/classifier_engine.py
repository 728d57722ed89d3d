"""A deployed classifier of whole images behind a detector's call: its boxes are as large as the picture.

It stands wherever a detector stands: a picture gets a box for every defect class that is likely enough, none for the class of
good parts, so that thresholds, rules, the store and the pages treat both alike. Shares bundle reading and runtimes with `engine`.
Knows nothing of files other than the bundle, of runs, or of how a threshold was found.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.errors import InputError
from backend.inspection.anomaly_engine import stretched
from backend.inspection.engine import Engine, Prepared, in_batches
from backend.inspection.runtimes import Network


class ClassifierEngine(Engine):
    """One loaded classifier. `classes` are those of defects, `all_classes` the network's, one of which may be that of good parts."""

    kind = "classifier"

    def _take(self, head: dict[str, Any], network: Network) -> None:
        super()._take(head, network)
        self.tile = (0, 0)                   # it looks at whole pictures
        self.all_classes: list[str] = head.get("all_classes") or []
        if not set(self.classes) <= set(self.all_classes):
            raise InputError(f"The description of the model {self.name!r} is incomplete: model.json does not say all_classes.")
        self._columns = [self.all_classes.index(c) for c in self.classes]

    def prepare(self, image: np.ndarray) -> Prepared:
        """Stretched into the square input, whatever its shape, as in training."""
        assert image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size, f"no RGB image: {image.dtype} {image.shape}"
        height, width = image.shape[:2]
        return Prepared(stretched(image, self.imgsz), width, height, (self.imgsz / width, self.imgsz / height), (0, 0))

    def _boxes(self, raw: np.ndarray, prepared: Prepared, floor: float) -> np.ndarray:
        """float32 (n, 6), surest first: a box round all of the picture for each defect class from `floor` on."""
        row = raw[self._columns]
        order = [k for k in np.argsort(-row, kind="stable") if row[k] >= floor]
        return np.array([[0, 0, prepared.width, prepared.height, row[k], k] for k in order], np.float32).reshape(-1, 6)

    def probabilities(self, prepared: Sequence[Prepared]) -> np.ndarray:
        """float32 (n, all classes) of images that went through `prepare`."""
        return np.concatenate([np.zeros((0, len(self.all_classes)), np.float32), *self._raw(in_batches(prepared, self.batch))])

    def _check(self, raw: np.ndarray) -> None:
        if raw.shape[1:] != (len(self.all_classes),):
            raise InputError(f"The model {self.name!r} does not answer as a classifier of {len(self.all_classes)} classes: "
                             f"its output has the shape {'×'.join(map(str, raw.shape))}.")
        if not np.isfinite(raw).all():                                         # would otherwise pass every image as good
            raise InputError(f"The model {self.name!r} answers with values that are no numbers; train it again.")
