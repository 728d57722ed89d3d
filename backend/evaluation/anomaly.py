"""How good an anomaly model is: AUROC of images and of pixels, average precision of pixels, per-region overlap.

Stands after training. `score` runs the deployed artifact itself (through `inspection.anomaly_engine`). Figures are shares of
one, to four places, and agree with what scorers of map files compute: maps are compared at the masks' resolution, the longer
side 256, and kept as float32 until the last one is there: 0.3 MB an image. Nothing here needs a threshold, so nothing is
chosen. Knows nothing of training, snapshots or runs.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import label, zoom
from sklearn.metrics import roc_auc_score

from backend.device import REFERENCE

SIDE = 256                   # longer side at which pixels are compared
LIMIT, CUTS = 0.3, 200       # false-positive rate up to which regions are scored, and steps on the way
Truth = tuple[np.ndarray | None, bool]       # bool (H, W) or None, and whether the image is defective


def score(model_dir: Path, names: Sequence[str], load: Callable[[str], np.ndarray], truth: Callable[[str], Truth],
          tell: Callable[[int], None]) -> dict[str, Any]:
    """Figures of a deployed model, as `evaluate` names them. `load` gives (H, W, 3) RGB uint8; one image is in memory at a time."""
    from backend.inspection.anomaly_engine import AnomalyEngine  # loads onnxruntime

    tally = Tally()
    for name, (found, value) in zip(names, answers(AnomalyEngine(model_dir, REFERENCE), names, load, tell), strict=True):
        tally.add(found, value, *truth(name))
    return tally.figures()


def answers(engine: Any, names: Sequence[str], load: Callable[[str], np.ndarray],
            tell: Callable[[int], None]) -> Iterator[tuple[np.ndarray, float]]:
    """Map, float16 (S, S), and score of each image, batch by batch."""
    from backend.inspection.anomaly_engine import enlarged

    for start in range(0, len(names), engine.batch):
        tell(start)
        found = engine.maps([engine.prepare(load(n)) for n in names[start:start + engine.batch]])      # (B, m, m)
        for small, value in zip(found, engine.scores(found), strict=True):
            yield enlarged(small, engine.imgsz, engine.imgsz).astype(np.float16), float(value)


def evaluate(maps: Iterable[np.ndarray], scores: Sequence[float] | np.ndarray, masks: Sequence[np.ndarray | None],
             defective: Sequence[bool] | None = None) -> dict[str, Any]:
    """{image_auroc, pixel_auroc, pixel_ap, aupro, images, defective}; a figure that these images cannot tell is None.

    maps of any size; masks bool (H, W), None where there is none; `defective` where masks alone do not tell.
    """
    labels = [mask is not None and bool(mask.any()) for mask in masks] if defective is None else defective
    tally = Tally()
    for one in zip(maps, scores, masks, labels, strict=True):
        tally.add(*one)
    return tally.figures()


class Tally:
    """What has been seen so far: scores of images, values of pixels.

    A good image counts with as many pixels as its empty mask has, a square without one. A defective image without a mask counts
    as an image but not in pixels: nobody said which of them are defects.
    """

    def __init__(self) -> None:
        self.scores, self.labels = list[float](), list[bool]()
        self.good, self.bad = array("f"), array("f")                       # they grow in place
        self.weights, self.regions = array("d"), 0                         # of each bad pixel, its share of its connected defect

    def add(self, anomaly_map: np.ndarray, score: float, mask: np.ndarray | None, defective: bool) -> None:
        self.scores.append(float(score))
        self.labels.append(bool(defective))
        if mask is None and defective:
            return
        found, truth = _compared(anomaly_map, mask)
        lying, regions = label(truth)
        within = lying[truth]                                              # (bad pixels,), from 1
        self.good.frombytes(found[~truth].tobytes())
        self.bad.frombytes(found[truth].tobytes())
        self.weights.frombytes((1 / np.bincount(within, minlength=regions + 1)[within]).tobytes())
        self.regions += regions

    def figures(self) -> dict[str, Any]:
        both = len(set(self.labels)) == 2
        told: dict[str, Any] = dict(image_auroc=_rounded(roc_auc_score(self.labels, self.scores)) if both else None, pixel_auroc=None,
                                    pixel_ap=None, aupro=None, images=len(self.labels), defective=sum(self.labels))
        if self.good and self.bad:
            good, bad = np.frombuffer(self.good, np.float32), np.frombuffer(self.bad, np.float32)
            good.sort()                                                    # in place: the order of pixels says nothing
            order = np.argsort(bad)
            shares = np.frombuffer(self.weights)[order] / self.regions
            bad = bad[order]
            told |= dict(pixel_auroc=_rounded(_auroc(good, bad)), pixel_ap=_rounded(_precision(good, bad)),
                         aupro=_rounded(_aupro(good, bad, shares)))
        return told


def _rounded(figure: float) -> float:
    return round(float(figure), 4)


def _compared(anomaly_map: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Map and mask at one size. `zoom` puts the corner cells on the corners, so enlarge a coarse map by `enlarged` before."""
    truth = np.zeros((SIDE, SIDE), bool) if mask is None else _shrunk(mask)
    scale = (truth.shape[0] / anomaly_map.shape[0], truth.shape[1] / anomaly_map.shape[1])
    found = zoom(anomaly_map.astype(np.float32), scale, order=1)[:truth.shape[0], :truth.shape[1]]
    return found, truth[:found.shape[0], :found.shape[1]]


def _shrunk(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0


def _auroc(good: np.ndarray, bad: np.ndarray) -> float:
    """Share of pairs in which the defective pixel has more; of equal values half. Both sorted."""
    return float(sum(np.searchsorted(good, bad, side).mean() for side in ("left", "right")) / 2 / len(good))


def _precision(good: np.ndarray, bad: np.ndarray) -> float:
    """Average precision: of each defective pixel that of a cut at its value. Both sorted."""
    right, wrong = (len(values) - np.searchsorted(values, bad, "left") for values in (bad, good))
    return float((right / (right + wrong)).mean())


def _aupro(good: np.ndarray, bad: np.ndarray, shares: np.ndarray) -> float:
    """Area under the mean overlap of connected defects, against the false-positive rate of pixels, up to LIMIT, as a share of it.

    Bergmann et al. 2021 (IJCV 129), section 5. At 200 cuts through the good pixels. `good` and `bad` sorted; `shares`, with `bad`,
    what each defective pixel adds to the mean overlap.
    """
    rank = (1 - np.linspace(0, LIMIT, CUTS)) * (len(good) - 1)                             # between two pixels: linear
    low, high = (good[np.minimum(rank.astype(int) + k, len(good) - 1)].astype(np.float64) for k in (0, 1))
    exact = low + (high - low) * (rank % 1)                                                # (CUTS,), highest first
    cuts = exact.astype(np.float32)                                                        # or all pixels would be copied to float64
    cuts = np.where(cuts > exact, np.nextafter(cuts, np.float32(-np.inf)), cuts)           # the same float32 lie above
    false = 1 - np.searchsorted(good, cuts, "right") / len(good)
    overlap = np.append(shares[::-1].cumsum()[::-1], 0)[np.searchsorted(bad, cuts, "right")]
    kept = false <= LIMIT                                                                  # both rise as the cuts fall
    return float(np.trapezoid(overlap[kept], false[kept]) / max(false[kept].max(), 1e-12))
