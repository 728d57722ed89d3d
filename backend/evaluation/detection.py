"""How good a detector is: COCO averages, thresholds from val, and what is found, missed and wrongly rejected at them.

Stands after training. `predict` runs the deployed artifact itself (through `inspection.engine`), so that the figures
are those of what the plant will use, not of a network in memory. Knows nothing of training, snapshots or runs.

    Truth        {file name: [(class name, [x, y, w, h])]}     an image without boxes is a good one
    Prediction   {"file_name", "category", "bbox": [x, y, w, h], "score"}     what `predictions.json` holds
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backend.device import REFERENCE

Truth = dict[str, list[tuple[str, list[float]]]]
Prediction = dict[str, Any]

FLOOR = 0.001                # confidence below which a prediction is not even listed
IOU = 0.5                    # overlap from which a predicted box counts as the true one
LOWEST_THRESHOLD = 0.05      # a threshold chosen from few boxes may not let everything through
UNSEEN_THRESHOLD = 0.25      # for a class without a box in val, where nothing can be chosen


def predict(model_dir: Path, names: Sequence[str], load: Callable[[str], np.ndarray], tell: Callable[[int], None]) -> list[Prediction]:
    """All boxes of a deployed model on these images, from confidence 0.001. `load` gives (H, W, 3) RGB uint8."""
    from backend.inspection.engine import Engine  # loads onnxruntime

    return answers(Engine(model_dir, REFERENCE), names, load, tell)


def answers(engine: Any, names: Sequence[str], load: Callable[[str], np.ndarray], tell: Callable[[int], None],
            see: Callable[[Sequence[str], Sequence[Any]], None] = lambda names, prepared: None) -> list[Prediction]:
    """`predict` with an engine at hand. `see` hears of each call's images, names and `Prepared`, before the network is asked."""
    found: list[Prediction] = []
    for start in range(0, len(names), engine.batch):
        tell(start)
        some = names[start:start + engine.batch]
        prepared = [engine.prepare(load(n)) for n in some]
        see(some, prepared)
        for name, boxes in zip(some, engine.detect(prepared, floor=FLOOR), strict=True):
            found += [_prediction(name, engine.classes, row) for row in boxes]
    return found


def raw_output(model_dir: Path, pixels: np.ndarray) -> np.ndarray:
    """What the artifact answers to a network batch, uint8 (B, S, S, 3): (B, 4 + classes, N), on the CPU, in float32."""
    from backend.inspection.engine import Engine

    return np.concatenate(list(Engine(model_dir, REFERENCE).raw([pixels])))


def _prediction(name: str, classes: Sequence[str], row: np.ndarray) -> Prediction:
    x1, y1, x2, y2, confidence, class_id = (float(v) for v in row)
    return dict(file_name=name, category=classes[int(class_id)], bbox=[x1, y1, x2 - x1, y2 - y1], score=confidence)


def evaluate(predictions: Iterable[Prediction], truth: Truth, classes: Sequence[str]) -> dict[str, Any]:
    """COCO averages: map50, map50_95, ap50 per class that has boxes, images, boxes. Every image of `truth` counts.

    Predictions on other images and of other classes are left out. Averages run over the classes that have boxes here;
    where none has, they are None.
    """
    present = {c for boxes in truth.values() for c, _ in boxes}
    assert present <= set(classes), f"boxes of classes the model does not know: {sorted(present - set(classes))}"
    counts = dict(images=len(truth), boxes=sum(map(len, truth.values())))
    if not present:
        return dict(map50=None, map50_95=None, ap50={}, **counts)
    names = sorted(present)
    precision = _precision(predictions, truth, names)                                      # (IoU, recall, class)
    ap50 = {c: round(float(precision[0, :, k].mean()), 4) for k, c in enumerate(names)}
    return dict(map50=round(float(precision[0].mean()), 4), map50_95=round(float(precision.mean()), 4), ap50=ap50, **counts)


def _precision(predictions: Iterable[Prediction], truth: Truth, names: list[str]) -> np.ndarray:
    """Interpolated precision (10 IoUs, 101 recalls, classes), boxes of all areas, 100 detections an image."""
    from faster_coco_eval import COCO, COCOeval_faster

    image = {name: i for i, name in enumerate(sorted(truth), 1)}
    category = {name: i for i, name in enumerate(names, 1)}
    boxes = [(image[f], category[c], list(map(float, b))) for f in sorted(truth) for c, b in truth[f]]
    document = COCO()
    document.dataset = dict(
        info={}, images=[dict(id=i, file_name=f, width=0, height=0) for f, i in image.items()],
        categories=[dict(id=i, name=c) for c, i in category.items()],
        annotations=[dict(id=n, image_id=i, category_id=c, bbox=b, area=b[2] * b[3], iscrowd=0)
                     for n, (i, c, b) in enumerate(boxes, 1)])
    document.createIndex()
    guesses = document.loadRes([dict(image_id=image[p["file_name"]], category_id=category[p["category"]], bbox=p["bbox"], score=p["score"])
                                for p in predictions if p["file_name"] in image and p["category"] in category])
    judge = COCOeval_faster(document, guesses, "bbox")
    judge.evaluate()
    judge.accumulate()
    return np.asarray(judge.eval["precision"])[:, :, :, 0, -1].clip(0)      # classes all have boxes, so -1 does not occur


def choose_thresholds(predictions: Iterable[Prediction], truth: Truth, classes: Sequence[str]) -> dict[str, float]:
    """{class: confidence} with the best F1 at IoU 0.5; to be called with val only.

    It lies halfway between the last accepted prediction and the first refused one, so that no rounding flips a box.
    Of equal F1 the higher threshold wins. At least 0.05; 0.25 for a class without a box.
    """
    total = _count_boxes(truth)
    ranked: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for prediction, hit in match(predictions, truth):
        ranked[prediction["category"]].append((prediction["score"], hit))
    return {c: _best_f1(ranked[c], total[c]) if total[c] else UNSEEN_THRESHOLD for c in classes}


def _best_f1(ranked: list[tuple[float, bool]], boxes: int) -> float:
    """`ranked` runs from sure to unsure. Matching is greedy in that order, so each prefix is what a threshold there would match."""
    if not any(hit for _, hit in ranked):
        return UNSEEN_THRESHOLD
    scores = np.array([s for s, _ in ranked])
    f1 = 2 * np.cumsum([hit for _, hit in ranked]) / (np.arange(1, len(ranked) + 1) + boxes)
    last = np.append(scores[:-1] != scores[1:], True)               # a threshold cannot part equal scores
    best = int(np.argmax(np.where(last, f1, -1)))
    below = scores[best + 1] if best + 1 < len(scores) else scores[best] / 2
    return round(max(float(scores[best] + below) / 2, LOWEST_THRESHOLD), 6)


def match(predictions: Iterable[Prediction], truth: Truth) -> Iterator[tuple[Prediction, bool]]:
    """Each prediction, from sure to unsure, and whether it hits a true box of its class that no surer one has taken."""
    free: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for name, boxes in truth.items():
        for class_name, box in boxes:
            free[name, class_name].append(box)
    known = (p for p in predictions if p["file_name"] in truth)
    for prediction in sorted(known, key=lambda p: -p["score"]):
        candidates = free[prediction["file_name"], prediction["category"]]
        overlaps = [iou(prediction["bbox"], box) for box in candidates]
        hit = bool(overlaps) and max(overlaps) >= IOU
        if hit:
            candidates.pop(int(np.argmax(overlaps)))
        yield prediction, hit


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes [x, y, w, h] over their union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def rates(predictions: Iterable[Prediction], truth: Truth, thresholds: dict[str, float]) -> dict[str, Any]:
    """What an inspector would see at these thresholds.

    recall          {class: share of its boxes that are found at IoU 0.5}
    missed          {class: share of the images showing it that would pass as good}
    missed_images   share of all defective images that would pass as good
    false_rejects   share of the good images that would be rejected; only where there are good images
    """
    passing = [p for p in predictions if p["file_name"] in truth and p["score"] >= thresholds[p["category"]]]
    rejected = {p["file_name"] for p in passing}
    total = _count_boxes(truth)
    hits: dict[str, int] = defaultdict(int)
    for prediction, hit in match(passing, truth):
        hits[prediction["category"]] += hit
    showing: dict[str, set[str]] = defaultdict(set)
    for name, boxes in truth.items():
        for class_name, _ in boxes:
            showing[class_name].add(name)
    defective, good = set().union(*showing.values()), {name for name, boxes in truth.items() if not boxes}
    figures: dict[str, Any] = dict(recall={c: round(hits[c] / total[c], 4) for c in sorted(total)},
                                   missed={c: _share(showing[c] - rejected, showing[c]) for c in sorted(showing)})
    if defective:
        figures["missed_images"] = _share(defective - rejected, defective)
    if good:
        figures |= dict(false_rejects=_share(good & rejected, good), good_images=len(good))
    return figures


def _share(part: set[str], whole: set[str]) -> float:
    return round(len(part) / len(whole), 4)


def _count_boxes(truth: Truth) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for boxes in truth.values():
        for class_name, _ in boxes:
            total[class_name] += 1
    return total
