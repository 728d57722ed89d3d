"""From the network's maps, two or three, to one map, a score and a threshold, on held-out good pictures and made defects. Never on test.

Stands after training, before the bundle. All that is found here is linear in the maps, so `export` lays it into the graph:

    cosine map         ─► smooth ─► (x - centre) / scale ─┐ × its weight
    segmentation logit ─► smooth ─► (x - centre) / scale ─┼─► sum: the anomaly map ─► mean of the k highest cells: the score
    distance to memory ─► smooth ─► (x - centre) / scale ─┘

Knows nothing of how the defects were made, of ONNX, or of pictures on disk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
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
MAPS = ("cosine", "segmentation", "memory")
SEGMENTATION = MAPS.index("segmentation")
UNUSED = {"cosine": SEGMENTATION, "segmentation": 0}    # with one loss alone: the map that was not learned
PARTS = 4                                               # weights that are tried: equal ones, and all quarters
MARGIN = 0.02                # by which other weights must surely be better, for each quarter moved from equal; see `_weights`
SHARES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.02)        # of the cells that make the score; 0: the highest one alone
MIDDLE = 2                   # 10 of 64² cells, about DeSTSeg's 100 of 256² pixels (section 4.1) with what smoothing spreads
TIE = 0.002                  # image AUROC by which two k are as good as each other
ENOUGH = 3                   # a share r is told from nothing by 3 / r pictures: P(none among them) < 0.05 ("rule of three")
BATCH = 8

Defect = tuple[np.ndarray, np.ndarray]                  # picture uint8 (S, S, 3), mask bool (S, S)


@dataclass(frozen=True)
class Calibration:
    """What the bundle states beside the network. Of each map, in the order of MAPS: centre, scale and weight."""

    imgsz: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]           # together 1
    sigma: float                         # cells
    cells: int                           # k of the score
    threshold: float | None              # none where it is refused
    refused: str                         # why
    pixel_threshold: float               # from where on a cell is drawn as unusual
    map_range: tuple[float, float]       # what 0 and 255 stand for where a map is kept in bytes
    chosen: dict[str, Any]               # how weight and k compared; for the record


def calibrate(net: nn.Module, normals: Sequence[np.ndarray], defects: Sequence[Defect], false_rejects: float,
              parents: Sequence[int] = ()) -> Calibration:
    """`normals`, uint8 (S, S, 3), were kept from training; `defects` lie on such, of another kind than the net was trained with.
    `parents`: number of the picture that each lies on; none: each on one of its own."""
    assert len(normals), "nothing is known of good pictures without one"
    imgsz = normals[0].shape[0]
    raw = maps_of(net, [*normals, *(picture for picture, _ in defects)])                   # (n, maps, m, m)
    sigma = SMOOTH * raw.shape[-1] / imgsz
    smooth = smoothed(raw, sigma).numpy()

    # all maps in the same unit: what rarely happens on good pictures is 1
    centre, scale = units(smooth[:len(normals)])
    good, bad = np.split((smooth - centre[:, None, None]) / scale[:, None, None], [len(normals)])
    masks = np.array([on_cells(mask, good.shape[-1]) for _, mask in defects]).reshape(len(bad), *good.shape[-2:])

    # how much of each, then how many cells
    unused = UNUSED.get(getattr(net, "loss", "both"))
    weights, told = _weights(good, bad, masks, [i != unused for i in range(good.shape[1])], np.array(parents or range(len(bad))))
    normal, unusual = combined(good, weights), combined(bad, weights)                      # (n, m, m)
    cells, aurocs = _cells(normal, unusual)
    limit, refused = threshold(top_mean(normal, cells), false_rejects)
    pixel_threshold = _pixel_threshold(normal, unusual, masks)
    low = float(np.median(normal))
    high = max(float(np.quantile(unusual if len(unusual) else normal, TAIL)), 2 * pixel_threshold - low)     # room above the threshold
    return Calibration(
        imgsz, tuple(map(float, centre)), tuple(map(float, scale)), weights, sigma, cells, limit, refused,
        round(pixel_threshold, 4), (round(low, 4), round(high, 4)),
        dict(**{f"{name}_weight": round(w, 4) for name, w in zip(MAPS, weights, strict=False)}, cells=cells, normals=len(normals),
             defects=len(defects), weights=told, cells_auroc=aurocs))


# ---- maps

@torch.inference_mode()
def maps_of(net: nn.Module, pictures: Sequence[np.ndarray]) -> Tensor:
    """The network's maps of pictures uint8 (S, S, 3): float32 (n, maps, m, m), on the CPU."""
    net.eval()
    device, found = next(net.parameters()).device, []
    for start in range(0, len(pictures), BATCH):
        pixels = np.stack(pictures[start:start + BATCH]).transpose(0, 3, 1, 2)
        assert pixels.shape[1:] == (3, *[pictures[0].shape[0]] * 2), f"not one square size: {pixels.shape}"
        maps = net(torch.from_numpy(np.ascontiguousarray(pixels)).to(device).float() / 255)                # (B, 1, m, m) each
        found.append(torch.cat(maps, 1).float().cpu())
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
    return F.conv2d(F.pad(maps, [reach] * 4, mode="replicate"), kernel.to(maps).expand(channels, 1, -1, -1), groups=channels)


def units(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale, one for each map, of good pictures' (n, maps, m, m): median, and from there to the 99.5 % quantile.

    Our choice. A deviation would measure the bulk of the cells; false alarms come from the tail, which in a logit is far
    longer. After EfficientAD (WACV 2024), section 3.4, which puts two quantiles of held-out good pictures on fixed values.
    """
    flat = maps.swapaxes(0, 1).reshape(maps.shape[1], -1)
    centre = np.median(flat, axis=1)
    return centre, np.maximum(np.quantile(flat, TAIL, axis=1) - centre, LEAST_SCALE).astype(np.float32)


def combined(maps: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """(n, maps, m, m) to (n, m, m)."""
    return np.einsum("nkhw,k->nhw", maps, np.asarray(weights, maps.dtype))


def on_cells(mask: np.ndarray, side: int) -> np.ndarray:
    """bool (S, S) to bool (side, side): cells that lie in it by half, or as far as the best do where it is too thin for that."""
    share = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(share >= min(0.5, max(float(share.max()), 1e-6)))


# ---- choices

def _weights(good: np.ndarray, bad: np.ndarray, masks: np.ndarray, used: Sequence[bool],
             parents: np.ndarray) -> tuple[tuple[float, ...], list[dict[str, float]]]:
    """A weight for each map, none for one that is not used, and how the candidates compared with equal weights.

    Made defects flatter the segmentation head: it was trained on such, and sharply outlines what was pasted, real defect or
    not. So equal weights stand unless others are surely better: their figure, the mean over defects of image AUROC and of
    the average precision of cells, must lead by two standard errors, of the good pictures and of those that defects lie on, *and* by a
    margin that grows with what is moved from equal and is doubled towards the segmentation, the side the bias is on. A lead of the other
    maps has been won against the bias and needs no such discount. Equal leads: nearer to equal. Our choice; no paper states one.
    """
    equal, *others = candidates(used)
    if not others or not len(bad):
        return equal, []
    level, told = _figures(good, bad, masks, equal), []
    for weights in (equal, *others):
        found = _figures(good, bad, masks, weights)
        lead = float((found - level).mean())
        needed = MARGIN * PARTS * _moved(weights, equal) * (2 if weights[SEGMENTATION] > equal[SEGMENTATION] else 1)
        sure = lead - 2 * _error(found - level, parents) - needed if weights != equal else 0.0
        told.append((weights, dict(figure=float(found.mean()), lead=lead, sure=max(sure, -1.0))))
    best = max(told, key=lambda row: row[1]["sure"])                                       # the first of equals: the nearest
    return best[0], [{k: round(v, 4) for k, v in {**dict(zip(MAPS, weights, strict=False)), **row}.items()} for weights, row in told]


def candidates(used: Sequence[bool]) -> list[tuple[float, ...]]:
    """Weights that are tried: equal ones first, then the others, the nearest first."""
    equal = tuple(float(u) / sum(used) for u in used)
    quarters = [tuple(p / PARTS for p in parts) for parts in product(range(PARTS, -1, -1), repeat=len(used)) if sum(parts) == PARTS]
    others = [q for q in quarters if q != equal and all(u or not w for u, w in zip(used, q, strict=True))]
    return [equal, *(sorted(others, key=lambda q: round(_moved(q, equal), 9)) if sum(used) > 1 else [])]


def _moved(weights: Sequence[float], equal: Sequence[float]) -> float:
    return sum(abs(w - e) for w, e in zip(weights, equal, strict=True)) / 2


def _figures(good: np.ndarray, bad: np.ndarray, masks: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Of each good picture and defect: mean of whether the picture scores lower (a tie by half) and the average precision of the defect's
    cells. (pictures, defects)"""
    normal, unusual = combined(good, weights), combined(bad, weights)
    k = cells_of(SHARES[MIDDLE], normal.shape[-1])
    low, high = top_mean(normal, k)[:, None], top_mean(unusual, k)[None]
    found = np.array([_average_precision(m, mask) for m, mask in zip(unusual, masks, strict=True)])
    return ((low < high) + 0.5 * (low == high) + found) / 2


def _error(lead: np.ndarray, parents: np.ndarray) -> float:
    """Standard error of the mean of a lead (pictures, defects), as other good pictures and other defects would move it: ten defects on one
    picture are not ten pictures."""
    count, clusters = lead.shape[0], np.unique(parents, return_inverse=True)[1]
    n = int(clusters.max()) + 1
    if min(count, n) < 2:
        return math.inf
    sums = np.bincount(clusters, lead.mean(0) - lead.mean())                               # (parents,)
    return math.sqrt(float((sums**2).sum()) / lead.shape[1]**2 * n / (n - 1) + float(lead.mean(1).var(ddof=1)) / count)


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
    ceil((n + 1)(1 - r))-th smallest of n held-out ones with probability r at most, whatever the distribution. `weights` and k
    were chosen on the same pictures, from 96 pairs at most, so "at most" is slightly bent. A hair above it, since >= rejects.
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
