"""How good an anomaly model is: AUROC of images and of pixels, average precision of pixels, per-region overlap.

Stands after training. `predict` runs the deployed artifact itself (through `inspection.anomaly_engine`). Figures are shares of
one, to four places, and agree with what scorers of map files compute: maps are compared at the masks' resolution, the longer
side 256. Nothing here needs a threshold, so nothing is chosen. Knows nothing of training, snapshots or runs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import label, zoom
from sklearn.metrics import average_precision_score, roc_auc_score

SIDE = 256                   # longer side at which pixels are compared
LIMIT, CUTS = 0.3, 200       # false-positive rate up to which regions are scored, and steps on the way


def predict(model_dir: Path, names: Sequence[str], load: Callable[[str], np.ndarray],
            tell: Callable[[int], None]) -> tuple[list[np.ndarray], np.ndarray]:
    """Maps, float16 (S, S) each, and scores, float32 (n,), of a deployed model. `load` gives (H, W, 3) RGB uint8."""
    from backend.inspection.anomaly_engine import AnomalyEngine  # loads onnxruntime

    return answers(AnomalyEngine(model_dir), names, load, tell)


def answers(engine: Any, names: Sequence[str], load: Callable[[str], np.ndarray],
            tell: Callable[[int], None]) -> tuple[list[np.ndarray], np.ndarray]:
    """`predict` with an engine at hand."""
    from backend.inspection.anomaly_engine import enlarged

    maps, scores = list[np.ndarray](), [np.zeros(0, np.float32)]
    for start in range(0, len(names), engine.batch):
        tell(start)
        found = engine.maps([engine.prepare(load(n)) for n in names[start:start + engine.batch]])      # (B, m, m)
        maps += [enlarged(m, engine.imgsz, engine.imgsz).astype(np.float16) for m in found]
        scores.append(engine.scores(found))
    return maps, np.concatenate(scores)


def evaluate(maps: Sequence[np.ndarray], scores: Sequence[float] | np.ndarray, masks: Sequence[np.ndarray | None],
             defective: Sequence[bool] | None = None) -> dict[str, Any]:
    """{image_auroc, pixel_auroc, pixel_ap, aupro, images, defective}; a figure that these images cannot tell is None.

    maps of any size; masks bool (H, W), None where there is none; `defective` where masks alone do not tell. A good image counts
    with as many pixels as its empty mask has, a square without one. A defective image without a mask counts as an image but not
    in pixels: nobody said which of them are defects.
    """
    assert len(maps) == len(scores) == len(masks), "one map, one score, one mask or None for each image"
    labels = [mask is not None and bool(mask.any()) for mask in masks] if defective is None else [bool(d) for d in defective]
    compared = [_compared(amap, mask) for amap, mask, bad in zip(maps, masks, labels, strict=True) if mask is not None or not bad]
    figures: dict[str, Any] = dict(image_auroc=_rounded(roc_auc_score(labels, np.asarray(scores))) if len(set(labels)) == 2 else None,
                                   pixel_auroc=None, pixel_ap=None, aupro=None, images=len(labels), defective=sum(labels))
    flat, truth = (np.concatenate([pair[i].ravel() for pair in compared] or [np.zeros(0)]) for i in (0, 1))
    if truth.any() and not truth.all():
        figures |= dict(pixel_auroc=_rounded(roc_auc_score(truth, flat)), pixel_ap=_rounded(average_precision_score(truth, flat)),
                        aupro=_rounded(_aupro(compared)))
    return figures


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


def _aupro(compared: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Area under the mean overlap of connected defects, against the false-positive rate of pixels, up to LIMIT, as a share of it.

    Bergmann et al. 2021 (IJCV 129), section 5. At 200 cuts through the good pixels; sorted once, since there are millions.
    """
    good = np.sort(np.concatenate([amap[~truth] for amap, truth in compared]))
    regions = [np.sort(amap[lying == k]) for amap, truth in compared for lying, n in [label(truth)] for k in range(1, n + 1)]
    cuts = np.quantile(good, 1 - np.linspace(0, LIMIT, CUTS))
    false = _above(good, cuts)                                                             # (CUTS,)
    overlap = np.mean([_above(region, cuts) for region in regions], axis=0)                # (CUTS,)
    order = np.argsort(false)
    false, overlap = false[order], overlap[order]
    kept = false <= LIMIT
    return float(np.trapezoid(overlap[kept], false[kept]) / max(false[kept].max(), 1e-12))


def _above(ordered: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Share of the sorted values above each cut."""
    return (len(ordered) - np.searchsorted(ordered, cuts, "right")) / len(ordered)
