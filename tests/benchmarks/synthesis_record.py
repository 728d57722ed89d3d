"""What a classifier took each test image for, small enough to commit; two arms compared on it image by image.

Accuracy counts every class alike. The interval is `evaluation.intervals`', over seeds and images, and both arms are judged on the same
draw of images. Knows nothing of models.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from backend.evaluation.intervals import Interval, estimate
from tests.benchmarks.synthesis_data import kind


@dataclass(frozen=True)
class Taken:
    """n test images, in the order of their list. `truth` and `found` are positions in `classes`."""

    images: np.ndarray               # (n,) stems
    classes: np.ndarray              # (classes,) names, sorted
    truth: np.ndarray                # (n,)
    found: np.ndarray                # (n,)

    @classmethod
    def of(cls, predictions: Path, listing: Path) -> "Taken":
        """Of what `predict` wrote. The truth is in the files' names. A picture without an answer, or two of one name, is no test."""
        rows, stems = json.loads(predictions.read_text()), listing.read_text().split()
        said = {Path(row["file_name"]).stem: row["category"] for row in rows}
        assert sorted(said) == sorted(stems) and len(rows) == len(stems), "one answer for each image of the list"
        classes = sorted({*map(kind, stems), *said.values()})
        truth, found = ([classes.index(c) for c in some] for some in (map(kind, stems), (said[s] for s in stems)))
        return cls(np.array(stems), np.array(classes), np.array(truth, np.int8), np.array(found, np.int8))

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Taken":
        with np.load(path, allow_pickle=False) as file:
            return cls(**{f.name: file[f.name] for f in fields(cls)})

    def accuracy(self, weights: np.ndarray) -> np.ndarray:
        """(rounds, n) how often each image counts -> (rounds, classes) in percent, NaN where no image of a class was drawn."""
        own = np.eye(len(self.classes))[self.truth]                                                # (n, classes)
        total, hit = weights @ own, weights @ (own * (self.truth == self.found)[:, None])
        return 100 * np.divide(hit, total, out=np.full_like(total, np.nan), where=total > 0)

    def figures(self) -> dict[str, float]:
        """Accuracy, the mean over the classes, and each class's."""
        each = self.accuracy(np.ones((1, len(self.images))))[0]
        shown = {str(c): round(float(v), 2) for c, v in zip(self.classes, each, strict=True) if not np.isnan(v)}
        return dict(accuracy=round(float(np.nanmean(each)), 2), **{f"accuracy {c}": v for c, v in shown.items()})


def compare(a: Sequence[Taken], b: Sequence[Taken], rounds: int = 2000, seed: int = 0) -> Interval:
    """a minus b in points of accuracy, 95 %. One record a seed; those of one place in the lists had the same train images."""
    assert a and len(a) == len(b)
    first = a[0]
    for other in (*a, *b):
        assert np.array_equal(first.images, other.images) and np.array_equal(first.classes[first.truth], other.classes[other.truth]), \
            "records of different test sets"
    rng, n = np.random.default_rng(seed), len(first.images)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), size=rounds)])          # (1 + rounds, n)
    sides = [np.stack([np.nanmean(record.accuracy(weights), axis=1) for record in arm]) for arm in (a, b)]         # (seeds, 1 + rounds)
    return estimate([(sides[0] - sides[1])[..., None]], n).intervals()[0]
