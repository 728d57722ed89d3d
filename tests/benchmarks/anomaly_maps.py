"""What an anomaly method said of a test list, kept small enough to commit; two methods compared on it image by image.

A record counts, image by image, how many good and how many defective pixels lie in each of some hundred bins of the map's value,
and how much of each connected defect. All four metrics follow from sums over images, so an image that is drawn twice counts twice
and nothing is scored anew. Bins follow each method's own values: metrics ask for order only. The intervals are `evaluation.intervals`'.
Knows nothing of models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import label

from backend.evaluation.anomaly import LIMIT, _compared
from backend.evaluation.intervals import Groups, Interval, estimate, image_draws

METRICS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
BINS = 128                              # figures stay within 0.1 points of the scorer's, files near 0.3 KB an image
GOOD_FOLDERS = {"good", "MT_Free"}      # as the published scorer tells good images


@dataclass(frozen=True)
class Record:
    """n test images. Bins are in order of the map's value; `aupro` reads `overlap`, the sum over an image's defects of their shares."""

    images: np.ndarray                  # (n,) relative paths
    defective: np.ndarray               # (n,) bool
    scores: np.ndarray                  # (n,) float64
    good: np.ndarray                    # (n, bins) good pixels
    bad: np.ndarray                     # (n, bins) defective pixels
    overlap: np.ndarray                 # (n, bins)
    regions: np.ndarray                 # (n,) connected defects

    @classmethod
    def of(cls, maps: Path, root: Path, listing: Path) -> "Record":
        """Of the maps and scores.json in a folder, read as the published scorer reads them."""
        names, scores = listing.read_text().split(), json.loads((maps / "scores.json").read_text())
        stems = [str(Path(name).with_suffix("")) for name in names]
        pairs = [_compared(np.load(maps / f"{stem}.npy"), mask_of(root, name)) for stem, name in zip(stems, names, strict=True)]
        edges = _edges(np.concatenate([m[~t] for m, t in pairs]), np.concatenate([m[t] for m, t in pairs]))
        rows = [_counted(np.searchsorted(edges, m, "right"), t, len(edges) + 1) for m, t in pairs]
        good, bad, overlap, regions = (np.array(column) for column in zip(*rows, strict=True))
        return cls(np.array(names), np.array([not GOOD_FOLDERS & set(Path(n).parts) for n in names]),
                   np.array([scores[s] for s in stems]), good, bad, overlap.astype(np.float16), regions)

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Record":
        with np.load(path, allow_pickle=False) as file:
            return cls(**{f.name: file[f.name] for f in fields(cls)})

    @cached_property
    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, scores that differ) good and bad images: the images as if each were a pixel."""
        place = np.unique(self.scores, return_inverse=True)[1]
        hot = np.eye(int(place.max()) + 1)[place]
        return hot * ~self.defective[:, None], hot * self.defective[:, None]

    def figures(self, weights: np.ndarray) -> np.ndarray:
        """(rounds, n) how often each image counts -> (rounds, 4) in percent, in the order of METRICS."""
        good, bad, overlap = (weights @ table.astype(float) for table in (self.good, self.bad, self.overlap))       # (rounds, bins)
        image = auroc(*(weights @ table for table in self._ranked))
        return 100 * np.stack([image, auroc(good, bad), precision(good, bad),
                               aupro(good, overlap / np.maximum(weights @ self.regions, 1)[:, None])], 1)


def mask_of(root: Path, name: str) -> np.ndarray | None:
    """Beside the image, or in ground_truth of the MVTec AD layout; white is defect."""
    image, rel = root / name, Path(name)
    beside = image.with_suffix(".png")
    places = [beside, root / "ground_truth" / rel.parent.name / f"{rel.stem}_mask.png"]
    found = next((p for p in places if p.exists() and p != image), None)
    return None if found is None else np.asarray(Image.open(found).convert("L")) > 127


def _edges(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Half of the bins divide the defective pixels evenly, half the good ones, most of these where AUPRO and precision look: on top."""
    shares = np.concatenate([np.linspace(0, 1 - LIMIT, BINS // 8), 1 - LIMIT * np.linspace(0, 1, BINS * 3 // 8) ** 2])
    return np.unique(np.concatenate([np.quantile(bad, np.linspace(0, 1, BINS // 2)), np.quantile(good, shares)]))


def _counted(bins: np.ndarray, truth: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Bins (H, W) and truth (H, W) of one image -> good (size,), bad (size,), overlap (size,), regions."""
    good, bad = (np.bincount(bins[these], minlength=size).astype(np.uint32) for these in (~truth, truth))
    lying, regions = label(truth)
    each = [np.bincount(bins[lying == k], minlength=size) / (lying == k).sum() for k in range(1, regions + 1)]
    return good, bad, np.sum(each, axis=0) if each else np.zeros(size), regions


def auroc(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """(rounds, bins) counts -> (rounds,). Within a bin half of the pairs count as right."""
    below = good.cumsum(1) - good / 2
    return (bad * below).sum(1) / (bad.sum(1) * good.sum(1))


def precision(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Average precision: (rounds, bins) -> (rounds,). A bin's precision is that at its middle."""
    true, false = (t[:, ::-1].cumsum(1) - t[:, ::-1] / 2 for t in (bad, good))
    return (bad[:, ::-1] * true / np.maximum(true + false, 1e-12)).sum(1) / bad.sum(1)


def aupro(good: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """(rounds, bins) good pixels and mean overlap in each bin -> (rounds,): the area up to a false-positive rate of LIMIT."""
    nothing = np.zeros((len(good), 1))
    false = np.hstack([nothing, good[:, ::-1].cumsum(1)]) / good.sum(1, keepdims=True)
    share = np.hstack([nothing, overlap[:, ::-1].cumsum(1)])
    return np.trapezoid(share, np.minimum(false, LIMIT), axis=1) / LIMIT


Runs = Mapping[str, Sequence[Record]]            # test set -> one record per seed


def compare(a: Runs, b: Runs, rounds: int = 2000, seed: int = 0, groups: Mapping[str, Groups] | None = None,
            seedless: bool = False) -> dict[str, Interval]:
    """{metric: a minus b in points, 95 %}, the mean over the test sets. Images are drawn within each set, those of a group together,
    seeds as in `intervals`. `seedless`: b has none, and would come out the same again."""
    assert a and a.keys() == b.keys()
    rng, weights, drawn = np.random.default_rng(seed), {}, []
    for part, records in a.items():
        _same(list(records) + list(b[part]))
        weights[part], n = image_draws(records[0].images, (groups or {}).get(part), rounds, rng)                   # (1 + rounds, n)
        drawn.append(n)
    sides = [np.mean([[r.figures(weights[part]) for r in runs[part]] for part in runs], axis=0) for runs in (a, b)] # (seeds, 1 + rounds, 4)
    return dict(zip(METRICS, estimate(sides, min(drawn), (False, seedless)).intervals(), strict=True))


def _same(records: Sequence[Record]) -> None:
    """The same images in all records, with the same truth."""
    first = records[0]
    for other in records[1:]:
        same: list[Any] = [np.array_equal(first.images, other.images), np.array_equal(first.defective, other.defective),
                           np.array_equal(first.bad.sum(1), other.bad.sum(1))]
        assert all(same), "records of different test sets"
