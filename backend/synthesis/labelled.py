"""Do labels of made pictures say what a detector sees there? It informs; nothing is filtered by it.

Stands between the engine of a deployed detector, or classifier, and `quality`. Boxes are [class, x1, y1, x2, y2] in their pictures'
pixels. Knows nothing of how a picture was made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.inspection.engine import Engine
from backend.synthesis.blend import Image

IOU = 0.5
FLOOR = 0.05             # confidence that is asked for; each class's own threshold decides

Boxed = Sequence[Any]


@dataclass
class Tally:
    """Labels of one class: how many, how many were found where they are, and about there."""

    labels: int = 0
    found: int = 0                   # a detection of the class with an IoU of a half
    centred: int = 0                 # one whose middle lies in the label: extents of many defects are a matter of opinion
    pictures: list[list[bool]] = field(default_factory=list)         # of each picture, which of its labels were found

    def add(self, label: Boxed, told: "np.ndarray[Any, Any]") -> bool:
        """Whether it was found. `told` (n, 4): what the detector says of this class in this picture."""
        there = bool(len(told) and iou(label[1:], told).max() >= IOU)
        self.labels += 1
        self.found += there
        x, y = (told[:, 0] + told[:, 2]) / 2, (told[:, 1] + told[:, 3]) / 2
        self.centred += bool(((x >= label[1]) & (x <= label[3]) & (y >= label[2]) & (y <= label[4])).any())
        return there

    def shares(self) -> dict[str, Any]:
        n = self.labels
        return dict(labels=n, found=round(self.found / n, 4) if n else None, centred=round(self.centred / n, 4) if n else None)


def checked(engine: Engine, pictures: Iterable[tuple[Image, Sequence[Boxed]]], class_name: str) -> Tally:
    """Labels of one class in pictures with all their labels. A class that the detector does not know has none to check."""
    tally = Tally()
    if class_name not in engine.classes:
        return tally
    for image, labels in pictures:
        told = engine.predict([image], FLOOR)[0]                                          # (n, 6)
        sure = (told[:, 5] == engine.classes.index(class_name)) & (told[:, 4] >= engine.thresholds[class_name])
        tally.pictures.append([tally.add(label, told[sure, :4]) for label in labels if label[0] == class_name])
    return tally


def iou(box: Sequence[float], others: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Of a box with others (n, 4): (n,)."""
    x1, y1, x2, y2 = box
    wide = np.minimum(x2, others[:, 2]) - np.maximum(x1, others[:, 0])
    high = np.minimum(y2, others[:, 3]) - np.maximum(y1, others[:, 1])
    shared = np.maximum(0, wide) * np.maximum(0, high)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return np.asarray(shared / ((x2 - x1) * (y2 - y1) + areas - shared))
