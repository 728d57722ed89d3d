"""What one run found on one test set, and whether it hit: a small record (85 KB for NEU-DET's 360 test images), and its averages.

Stands between predictions and comparisons: average precision of thousands of weighted draws of the images follows from the record
alone, in seconds, without the model, the images or the boxes. With all weights 1 it is what `detection.evaluate` and the published
scorer say. Knows nothing of training, runs or the store.
"""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from backend.errors import InputError
from backend.evaluation.detection import FLOOR, Prediction, Truth

IOUS = np.linspace(0.5, 0.95, 10)            # as COCO has them, and in its arithmetic: a hit lies on one side or the other
RECALLS = np.linspace(0, 1, 101)
MOST = 100                                   # boxes per image and class that COCO looks at
PRODUCT = 40                                 # multiplications that cost what one box looked up and added does


@dataclass(frozen=True)
class Kept:
    """Arrays that are kept as one .npz file; what `Scored` and `outcomes.Outcomes` have in common."""

    def save(self, path: Path) -> None:
        """Write it whole: under another name first. `path` ends in .npz."""
        half = path.with_name(f".{path.name}")
        np.savez_compressed(half, **{f.name: getattr(self, f.name) for f in fields(self)})
        half.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            with open(path, "rb") as f, np.load(f, allow_pickle=False) as file:
                return cls(**{f.name: file[f.name] for f in fields(cls)})
        except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as e:
            raise InputError(f"{path.name} is not a record of scored predictions, or it is damaged.") from e


@dataclass(frozen=True)
class Scored(Kept):
    """What one run found on one test set, and whether it hit. Boxes below confidence 0.001 are left out.

    The last three are one row per found box: class by class, from sure to unsure, of equals as COCO ranks them.
    """

    images: np.ndarray       # (images,) names, sorted
    classes: np.ndarray      # (classes,) names, sorted; those that have boxes in these images
    boxes: np.ndarray        # (images, classes) number of true boxes
    ends: np.ndarray         # (classes,) where the rows of a class end
    image: np.ndarray        # (found,) row in images
    score: np.ndarray        # (found,) confidence, float16: to look at; the order of rows is exact
    hits: np.ndarray         # (found,) bit t is set where it is a true positive at IOUS[t]

    @classmethod
    def from_predictions(cls, predictions: Iterable[Prediction], truth: Truth, classes: Sequence[str]) -> Self:
        """Predictions on other images and of other classes are left out; every image of `truth` counts."""
        present = sorted({c for boxes in truth.values() for c, _ in boxes})
        assert set(present) <= set(classes), f"boxes of classes the model does not know: {sorted(set(present) - set(classes))}"
        found: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
        for p in predictions:
            if p["file_name"] in truth and p["score"] >= FLOOR:
                found[p["category"], p["file_name"]].append(p)
        images = sorted(truth)
        boxes = np.array([[sum(c == k for c, _ in truth[name]) for k in present] for name in images], np.uint16)
        parts = [_ranked([found[k, name] for name in images], [[b for c, b in truth[name] if c == k] for name in images]) for k in present]
        image, score, hits = (np.concatenate([[], *(part[i] for part in parts)]) for i in range(3))
        return cls(np.array(images), np.array(present, str), boxes.reshape(len(images), len(present)),
                   np.cumsum([len(part[0]) for part in parts], dtype=np.int64), image.astype(np.min_scalar_type(len(images))),
                   score.astype(np.float16), hits.astype(np.uint16))


def _ranked(found: list[list[Prediction]], truth: list[list[list[float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one class, image by image: (image, score, hits) from sure to unsure."""
    ranked = [sorted(some, key=lambda p: -p["score"])[:MOST] for some in found]
    hits = [match_boxes(np.array([p["bbox"] for p in some], float).reshape(-1, 4), np.array(boxes, float).reshape(-1, 4))[0]
            for some, boxes in zip(ranked, truth, strict=True)]
    image = np.repeat(np.arange(len(found)), [len(some) for some in ranked])
    score = np.array([p["score"] for some in ranked for p in some], float)
    order = np.argsort(-score, kind="stable")
    return image[order], score[order], np.concatenate(hits)[order]


def match_boxes(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (D, 4) from sure to unsure, true ones (G, 4), both x, y, w, h: hits as bits (D,), and which true box is hit at IoU 0.5 (D,),
    -1 for none. Each true box is hit once per IoU."""
    overlaps = _overlaps(found, truth)                                                       # (D, G)
    free = np.ones((len(IOUS), len(truth)), bool)
    hits, which = np.zeros((len(found), len(IOUS)), bool), np.full(len(found), -1)
    for d in np.flatnonzero(overlaps.max(axis=1, initial=0) >= IOUS[0]):
        fitting = np.where(free & (overlaps[d] >= IOUS[:, None]), overlaps[d], 0)            # (IoUs, G)
        best = len(truth) - 1 - fitting[:, ::-1].argmax(axis=1)                              # of equals COCO takes the last
        hits[d] = fitting.max(axis=1) > 0
        free[hits[d], best[hits[d]]] = False
        which[d] = best[0] if hits[d, 0] else -1
    return hits @ (1 << np.arange(len(IOUS))), which


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(D, 4) and (G, 4), x, y, w, h -> shared area over united area (D, G)."""
    a, b = a[:, None], b[None]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(axis=-1)
    united = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.divide(shared, united, out=np.zeros_like(shared), where=shared > 0)


def average_precision(scored: Scored, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP at IoU 0.5 and its mean over 0.50:0.95, per class, each image counted as often as `weights` says: COCO's 101 points.

    Weights (images,) give two arrays (classes,); weights (rounds, images) give two of (rounds, classes). NaN: no true box drawn.
    """
    assert weights.shape[-1] == len(scored.images), "one weight per image"
    figures = by_iou(scored, np.atleast_2d(weights).astype(float), len(IOUS)).reshape(len(IOUS), *weights.shape[:-1], len(scored.classes))
    return figures[0], figures.mean(axis=0)


def by_iou(scored: Scored, weights: np.ndarray, ious: int) -> np.ndarray:
    """Weights (rounds, images) -> AP (the first IoUs, rounds, classes).

    Precision peaks at hits only, so only they are looked at.
    """
    starts = np.concatenate([[0], scored.ends[:-1]])
    return np.stack([_of_class(scored.image[start:end], scored.hits[start:end], boxes, weights, ious)
                     for start, end, boxes in zip(starts, scored.ends, scored.boxes.T, strict=True)], axis=-1)


def _of_class(image: np.ndarray, hits: np.ndarray, boxes: np.ndarray, weights: np.ndarray, ious: int) -> np.ndarray:
    """Found boxes of one class (found,), its true boxes (images,), weights (rounds, images) -> AP (IoUs, rounds)."""
    total = weights @ boxes                                                                  # (rounds,)
    at = np.flatnonzero(hits & ((1 << ious) - 1))                                            # (hits,) at any of these IoUs
    if not len(at):
        return np.tile(np.where(total > 0, 0.0, np.nan), (ious, 1))
    listed = _listed(image[:at[-1] + 1], at, weights)                                        # (rounds, hits)
    own = weights[:, image[at]]                                                              # (rounds, hits)
    true = ((hits[at] >> t & 1).astype(bool) for t in range(ious))
    return np.stack([_interpolated(own[:, t].cumsum(axis=1), listed[:, t], total) for t in true])


def _listed(image: np.ndarray, at: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Images of the found boxes (found,), rows of hits, weights (rounds, images) -> how many boxes are listed down to each (rounds, hits).

    On hundreds of images one product of matrices, with the boxes of each image down to each hit. On thousands that would be gigabytes:
    there, box by box, some rounds at a time.
    """
    if len(at) * weights.shape[1] <= PRODUCT * len(image):
        until = np.zeros((len(at), weights.shape[1]))                                        # (hits, images)
        np.add.at(until, (np.searchsorted(at, np.arange(len(image))), image), 1)
        return np.asarray(weights @ until.cumsum(axis=0).T)
    some = max(1, 2**22 // len(image))                                                       # rounds: 32 MB
    return np.concatenate([weights[k:k + some, image].cumsum(axis=1)[:, at] for k in range(0, len(weights), some)])


def _interpolated(true: np.ndarray, listed: np.ndarray, total: np.ndarray) -> np.ndarray:
    """At each true positive, how many so far and how many boxes listed (rounds, hits); true boxes (rounds,) -> AP (rounds,)."""
    precision = true / np.maximum(listed, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]                        # at this recall or any higher one
    reached = np.searchsorted(RECALLS, true / np.maximum(total, 1)[:, None], side="right")   # points of recall up to here
    ap = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    return np.where(total > 0, ap, np.nan)
