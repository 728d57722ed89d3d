"""From the network's two maps to one map, a score and a threshold, on held-out good pictures and made defects. Never on test.

Stands after training, before the bundle. All that is found here is linear in the maps, so `export` lays it into the graph:

    cosine map        ─► smooth ─► (x - centre) / scale ─┐ × weight
                                                         ├─► sum: the anomaly map ─► mean of the k highest cells: the score
    segmentation logit ─► smooth ─► (x - centre) / scale ┘ × (1 - weight)

Knows nothing of how the defects were made, of ONNX, or of pictures on disk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.inspection.anomaly_engine import top_mean

SMOOTH = 4.0                 # pixels of the input, sigma of the Gaussian; RD4AD (CVPR 2022), section 4.1, at 256 px
TAIL = 0.995                 # quantile of good pictures' cells that becomes 1, their median 0
LEAST_SCALE = 1e-4           # a map that is constant on good pictures would turn rounding into alarms
EQUAL = 0.5
WEIGHTS = (0.0, 0.25, EQUAL, 0.75, 1.0)                 # of the cosine map
MARGIN = 0.02                # by which another weight must surely be better, for each quarter away from equal; see `_weight`
SHARES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02)        # of the cells that make the score; 0: the highest one alone
MIDDLE = 2                   # 10 of 64² cells, about DeSTSeg's 100 of 256² pixels (section 4.1) with what smoothing spreads
TIE = 0.002                  # image AUROC by which two k are as good as each other
ENOUGH = 3                   # a share r is told from nothing by 3 / r pictures: P(none among them) < 0.05 ("rule of three")
BATCH = 8

Defect = tuple[np.ndarray, np.ndarray]                  # picture uint8 (S, S, 3), mask bool (S, S)


@dataclass(frozen=True)
class Calibration:
    """What the bundle states beside the network. Pairs run: cosine map, segmentation logit."""

    imgsz: int
    centre: tuple[float, float]
    scale: tuple[float, float]
    weight: float                        # of the cosine map; the rest is the segmentation's
    sigma: float                         # cells
    cells: int                           # k of the score
    threshold: float | None              # none where it is refused
    refused: str                         # why
    pixel_threshold: float               # from where on a cell is drawn as unusual
    map_range: tuple[float, float]       # what 0 and 255 stand for where a map is kept in bytes
    chosen: dict[str, Any]               # how weight and k compared; for the record


def calibrate(net: nn.Module, normals: Sequence[np.ndarray], defects: Sequence[Defect], false_rejects: float) -> Calibration:
    """`normals`, uint8 (S, S, 3), were kept from training; `defects` lie on such, of another kind than the net was trained with."""
    assert len(normals), "nothing is known of good pictures without one"
    imgsz = normals[0].shape[0]
    raw = two_maps(net, [*normals, *(picture for picture, _ in defects)])                  # (n, 2, m, m)
    sigma = SMOOTH * raw.shape[-1] / imgsz
    smooth = smoothed(raw, sigma).numpy()

    # both maps in the same unit: what rarely happens on good pictures is 1
    centre, scale = units(smooth[:len(normals)])
    good, bad = np.split((smooth - centre[:, None, None]) / scale[:, None, None], [len(normals)])
    masks = np.array([on_cells(mask, good.shape[-1]) for _, mask in defects]).reshape(len(bad), *good.shape[-2:])

    # how much of each, then how many cells
    weight, weights = _weight(good, bad, masks, {"cosine": (1.0,), "segmentation": (0.0,)}.get(getattr(net, "loss", "both"), WEIGHTS))
    normal, unusual = combined(good, weight), combined(bad, weight)                        # (n, m, m)
    cells, aurocs = _cells(normal, unusual)
    limit, refused = threshold(top_mean(normal, cells), false_rejects)
    pixel_threshold = _pixel_threshold(normal, unusual, masks)
    low = float(np.median(normal))
    high = max(float(np.quantile(unusual if len(unusual) else normal, TAIL)), 2 * pixel_threshold - low)     # room above the threshold
    return Calibration(
        imgsz, (float(centre[0]), float(centre[1])), (float(scale[0]), float(scale[1])), weight, sigma, cells, limit, refused,
        round(pixel_threshold, 4), (round(low, 4), round(high, 4)),
        dict(cosine_weight=weight, cells=cells, normals=len(normals), defects=len(defects), weights=weights, cells_auroc=aurocs))


# ---- maps

@torch.inference_mode()
def two_maps(net: nn.Module, pictures: Sequence[np.ndarray]) -> Tensor:
    """Cosine map and segmentation logit of pictures uint8 (S, S, 3): float32 (n, 2, m, m), on the CPU."""
    net.eval()
    device, found = next(net.parameters()).device, []
    for start in range(0, len(pictures), BATCH):
        pixels = np.stack(pictures[start:start + BATCH]).transpose(0, 3, 1, 2)
        assert pixels.shape[1:] == (3, *[pictures[0].shape[0]] * 2), f"not one square size: {pixels.shape}"
        cosine, logit = net(torch.from_numpy(np.ascontiguousarray(pixels)).to(device).float() / 255)       # (B, 1, m, m) each
        found.append(torch.cat([cosine, logit], 1).float().cpu())
    return torch.cat(found)


def gaussian(sigma: float) -> Tensor:
    """(k, k), sums to 1."""
    reach = math.ceil(3 * sigma)
    line = torch.exp(-torch.arange(-reach, reach + 1).double().square() / (2 * sigma**2))
    square = line[:, None] * line[None, :]
    return (square / square.sum()).float()


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """(n, C, m, m), edges carried outwards."""
    kernel = gaussian(sigma)
    reach, channels = len(kernel) // 2, maps.shape[1]
    return F.conv2d(F.pad(maps, [reach] * 4, mode="replicate"), kernel.expand(channels, 1, -1, -1), groups=channels)


def units(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale, (2,) each, of good pictures' maps (n, 2, m, m): median, and from there to the 99.5 % quantile.

    Our choice. A deviation would measure the bulk of the cells; false alarms come from the tail, which in a logit is far
    longer. After EfficientAD (WACV 2024), section 3.4, which puts two quantiles of held-out good pictures on fixed values.
    """
    flat = maps.swapaxes(0, 1).reshape(maps.shape[1], -1)
    centre = np.median(flat, axis=1)
    return centre, np.maximum(np.quantile(flat, TAIL, axis=1) - centre, LEAST_SCALE).astype(np.float32)


def combined(maps: np.ndarray, weight: float) -> np.ndarray:
    """(n, 2, m, m) to (n, m, m)."""
    return weight * maps[:, 0] + (1 - weight) * maps[:, 1]


def on_cells(mask: np.ndarray, side: int) -> np.ndarray:
    """bool (S, S) to bool (side, side): cells that lie in it by half, or as far as the best do where it is too thin for that."""
    share = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= min(0.5, max(float(share.max()), 1e-6)))


# ---- choices

def _weight(good: np.ndarray, bad: np.ndarray, masks: np.ndarray, allowed: Sequence[float]) -> tuple[float, list[dict[str, float]]]:
    """Weight of the cosine map, and how the candidates compared with equal weights.

    Made defects flatter the segmentation head: it was trained on such, and sharply outlines what was pasted, real defect or
    not. So equal weights stand unless another pair is surely better: its figure, the mean over defects of image AUROC and of
    the average precision of cells, must lead by two standard errors of the paired differences *and* by a margin that grows with
    the distance from equal and is doubled towards the segmentation, the side the bias is on. A lead of the cosine map has been
    won against the bias and needs no such discount. Equal leads: nearer to the middle. Our choice; no paper states one.
    """
    if len(allowed) == 1 or not len(bad):
        return (allowed[0] if len(allowed) == 1 else EQUAL), []
    level = _figures(good, bad, masks, EQUAL)
    told = []
    for weight in sorted(allowed, key=lambda w: (abs(w - EQUAL), -w)):
        lead = _figures(good, bad, masks, weight) - level                                  # (defects,)
        error = float(lead.std(ddof=1)) / math.sqrt(len(lead)) if len(lead) > 1 else math.inf
        needed = MARGIN * abs(weight - EQUAL) / 0.25 * (2 if weight < EQUAL else 1)
        sure = float(lead.mean()) - 2 * error - needed if weight != EQUAL else 0.0
        told.append(dict(cosine=weight, figure=float((lead + level).mean()), lead=float(lead.mean()), sure=max(sure, -1.0)))
    best = max(told, key=lambda row: row["sure"])                                          # the first of equals: the nearest
    return best["cosine"], [{k: round(v, 4) for k, v in row.items()} for row in told]


def _figures(good: np.ndarray, bad: np.ndarray, masks: np.ndarray, weight: float) -> np.ndarray:
    """For each defect: mean of the share of good pictures that score lower and the average precision of its cells. (defects,)"""
    normal, unusual = combined(good, weight), combined(bad, weight)
    k = cells_of(SHARES[MIDDLE], normal.shape[-1])
    lower = _share_below(top_mean(normal, k), top_mean(unusual, k))
    return (lower + np.array([_average_precision(m, mask) for m, mask in zip(unusual, masks, strict=True)])) / 2


def _share_below(normal: np.ndarray, unusual: np.ndarray) -> np.ndarray:
    """Share of `normal` below each of `unusual`, a tie counting half: the mean of it is the AUROC."""
    ordered = np.sort(normal)
    return (np.searchsorted(ordered, unusual, "left") + np.searchsorted(ordered, unusual, "right")) / (2 * len(ordered))


def _average_precision(anomaly_map: np.ndarray, mask: np.ndarray) -> float:
    hits = mask.ravel()[np.argsort(-anomaly_map.ravel(), kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean()) if hits.any() else 0.0


def cells_of(share: float, side: int) -> int:
    return max(1, round(share * side**2))


def _cells(normal: np.ndarray, unusual: np.ndarray) -> tuple[int, dict[int, float]]:
    """k of the score: the nearest to the middle of those whose image AUROC is as good as the best one's."""
    ks = [cells_of(s, normal.shape[-1]) for s in SHARES]
    if not len(unusual):
        return ks[MIDDLE], {}
    aurocs = [float(_share_below(top_mean(normal, k), top_mean(unusual, k)).mean()) for k in ks]
    tied = [i for i, a in enumerate(aurocs) if a >= max(aurocs) - TIE]
    return ks[min(tied, key=lambda i: abs(i - MIDDLE))], {k: round(a, 4) for k, a in zip(ks, aurocs, strict=True)}


def _pixel_threshold(normal: np.ndarray, unusual: np.ndarray, masks: np.ndarray) -> float:
    """Cut with the best F1 of cells on the made defects, but not into what happens on good pictures."""
    least = float(np.quantile(normal, TAIL))
    cells, truth = np.concatenate([unusual.ravel(), normal.ravel()]), np.concatenate([masks.ravel(), np.zeros(normal.size, bool)])
    if not truth.any():
        return least
    order = np.argsort(-cells, kind="stable")
    f1 = 2 * np.cumsum(truth[order]) / (np.arange(1, len(cells) + 1) + truth.sum())
    return max(least, float(cells[order[int(np.argmax(f1))]]))


def threshold(scores: np.ndarray, false_rejects: float) -> tuple[float | None, str]:
    """Lowest score that is called unusual, or None and the reason.

    Split conformal (Vovk et al. 2005; Angelopoulos & Bates 2021, section 1): a further good picture scores above the
    ceil((n + 1)(1 - r))-th smallest of n held-out ones with probability r at most, whatever the distribution. `weight` and k
    were chosen on the same pictures, from 30 pairs at most, so "at most" is slightly bent. A hair above it, since >= rejects.
    """
    n = len(scores)
    if n < ENOUGH / false_rejects - 1e-9:
        return None, _refusal(n, false_rejects)
    rank = math.ceil((n + 1) * (1 - false_rejects) - 1e-9)
    return (math.floor(float(np.sort(scores)[rank - 1]) * 1e4 + 0.5) + 1) / 1e4, ""


def _refusal(n: int, false_rejects: float) -> str:
    least = math.ceil(1e3 * ENOUGH / n - 1e-9) / 10 if n else math.inf           # %, one decimal, upwards
    instead = f"Choose {least:g} % or more, or add good pictures." if least <= 50 else "Add good pictures."
    return (f"A false-reject rate of {100 * false_rejects:g} % needs {math.ceil(ENOUGH / false_rejects - 1e-9):,} good pictures that were "
            f"kept from training; there {'is' if n == 1 else 'are'} {n:,}. {instead}")
