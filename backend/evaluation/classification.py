"""How good a classifier of whole images is: accuracy, class by class, what is taken for what; thresholds from val.

Stands after training. `answers` runs the deployed artifact itself (through `inspection.classifier_engine`). What is missed and
wrongly rejected is counted as for a detector whose boxes are as large as the picture, so that both kinds of model have the same
figures. Knows nothing of training, snapshots or runs.

    names          classes as the network orders them, then those that only the truth has: a picture of such a one is always a miss
    truth          int (n,), position in names
    probabilities  float (n, K) of the first K names
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.device import REFERENCE
from backend.evaluation import detection

GOOD = "good"                # what a picture without a defect is called
UNSEEN_THRESHOLD = 0.5       # for a class without a picture in val: more likely than all others together
_WHOLE = [0.0, 0.0, 1.0, 1.0]


def answers(model_dir: Path, names: Sequence[str], load: Callable[[str], np.ndarray], tell: Callable[[int], None]) -> np.ndarray:
    """float32 (n, K): what a deployed model says of these images. `load` gives (H, W, 3) RGB uint8."""
    from backend.inspection.classifier_engine import ClassifierEngine  # loads onnxruntime

    engine = ClassifierEngine(model_dir, REFERENCE)
    found = [np.zeros((0, len(engine.all_classes)), np.float32)]
    for start in range(0, len(names), engine.batch):
        tell(start)
        found.append(engine.probabilities([engine.prepare(load(n)) for n in names[start:start + engine.batch]]))
    return np.concatenate(found)


def evaluate(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """{accuracy, balanced_accuracy, class_accuracy, confusion, images}; shares of one, None where there is no picture.

    class_accuracy     {class: share of its pictures that are taken for it}, of classes that have pictures
    balanced_accuracy  the mean of these: every class counts alike
    confusion          {"names", "counts": one row for each true class, one column for each that it was taken for}
    """
    assert len(probabilities) == len(truth) and probabilities.shape[1] <= len(names)
    counts = confusion(probabilities.argmax(1), truth, len(names))
    totals, hits = counts.sum(1), counts.diagonal()
    each = {name: round(float(h / t), 4) for name, h, t in zip(names, hits, totals, strict=True) if t}
    balanced = [h / t for h, t in zip(hits, totals, strict=True) if t]
    return dict(accuracy=round(float(hits.sum() / len(truth)), 4) if len(truth) else None,
                balanced_accuracy=round(float(np.mean(balanced)), 4) if balanced else None, class_accuracy=each,
                confusion=dict(names=list(names), counts=counts.tolist()), images=len(truth))


def confusion(found: np.ndarray, truth: np.ndarray, size: int) -> np.ndarray:
    """int (size, size): how many pictures of each class (row) were taken for each (column)."""
    return np.bincount(truth * size + found, minlength=size * size).reshape(size, size)


def choose_thresholds(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """{defect class: probability} with the best F1; to be called with val only. 0.5 for a class without a picture there.

    As for a detector: halfway between the last accepted picture and the first refused one, at least 0.05.
    """
    known, present = names[:probabilities.shape[1]], {names[t] for t in truth}
    chosen = detection.choose_thresholds(_predictions(probabilities, known), _truth(truth, names), [c for c in known if c in present])
    return {c: chosen.get(c, UNSEEN_THRESHOLD) for c in known if c != GOOD}


def rates(probabilities: np.ndarray, truth: np.ndarray, names: Sequence[str], thresholds: dict[str, float]) -> dict[str, Any]:
    """What an inspector would see at these thresholds: recall, missed, missed_images, false_rejects, as `detection.rates` names them."""
    known = names[:probabilities.shape[1]]
    return detection.rates(_predictions(probabilities, known), _truth(truth, names), thresholds)


def _predictions(probabilities: np.ndarray, known: Sequence[str]) -> list[detection.Prediction]:
    return [dict(file_name=str(i), category=c, bbox=_WHOLE, score=float(p))
            for i, row in enumerate(probabilities) for c, p in zip(known, row, strict=True) if c != GOOD]


def _truth(truth: np.ndarray, names: Sequence[str]) -> detection.Truth:
    return {str(i): [] if names[t] == GOOD else [(names[t], _WHOLE)] for i, t in enumerate(truth)}
