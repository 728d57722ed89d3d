"""What one run says of each test image: would it be rejected, and for a defect that is there? One row per image, not per box.

Stands beside `scored`: that one knows boxes, in order but without the images' say; this one what a reject bin would hold at any
threshold, so that a slider moves on stored scores and nothing is inspected again. About 10 KB for 360 images of 6 classes. Agrees
with `detection.rates`, whatever the thresholds. Knows nothing of training, runs or the store.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from backend.evaluation.detection import FLOOR, Prediction, Truth, match
from backend.evaluation.scored import Kept

Thresholds = float | Mapping[str, float]         # confidence from which a box rejects its image: one for all classes, or one for each


@dataclass(frozen=True)
class Outcomes(Kept):
    """Per image and class the surest box, and the surest that hits a true one at IoU 0.5. Boxes below confidence 0.001 are left out.

    A confidence of 0 says: no such box. The surest hit is never surer than the surest box.
    """

    images: np.ndarray       # (images,) names, sorted
    classes: np.ndarray      # (classes,) names, sorted: all that the run knows, whether or not they have boxes in these images
    shows: np.ndarray        # (images, classes) bool: a true box of this class is there
    score: np.ndarray        # (images, classes) float32: confidence of the surest box
    found: np.ndarray        # (images, classes) float32: confidence of the surest box that hits

    @classmethod
    def from_predictions(cls, predictions: Iterable[Prediction], truth: Truth, classes: Sequence[str]) -> Self:
        """Predictions on other images and of other classes are left out; every image of `truth` counts."""
        row, column = ({name: i for i, name in enumerate(sorted(names))} for names in (truth, classes))
        shows = np.zeros((len(row), len(column)), bool)
        for name, boxes in truth.items():
            for class_name, _ in boxes:
                assert class_name in column, f"a box of a class the model does not know: {class_name}"
                shows[row[name], column[class_name]] = True
        score, found = np.zeros((2, *shows.shape), np.float32)
        listed = [p for p in predictions if p["category"] in column and p["score"] >= FLOOR]
        for prediction, hit in match(listed, truth):
            at = row[prediction["file_name"]], column[prediction["category"]]
            score[at] = max(score[at], prediction["score"])
            found[at] = max(found[at], prediction["score"] * hit)
        return cls(np.array(list(row), str), np.array(list(column), str), shows, score, found)

    @property
    def defective(self) -> np.ndarray:
        """(images,) bool: a true box is there, of whatever class."""
        return np.asarray(self.shows.any(axis=1))

    def rejects(self, thresholds: Thresholds) -> np.ndarray:
        """(images,) bool: some box is sure enough. Right or wrong, as the plant would see it: for a defect or for none."""
        return np.asarray((self.score >= self._at(thresholds)).any(axis=1))

    def finds(self, thresholds: Thresholds) -> np.ndarray:
        """(images,) bool: some box is sure enough and lies on a true one."""
        return np.asarray((self.found >= self._at(thresholds)).any(axis=1))

    def _at(self, thresholds: Thresholds) -> np.ndarray:
        """(classes,) float32; never 0, for 0 stands for no box."""
        each = [thresholds[c] for c in map(str, self.classes)] if isinstance(thresholds, Mapping) else [thresholds] * len(self.classes)
        return np.maximum(np.array(each, np.float32), np.float32(FLOOR))
