"""Which arms of a comparison make up a curve: more and more synthetic images beside the same labels, or more and more labels without any.

Stands between the arms, as they were trained, and `dose`. From settings and counts alone, so that arms of one's own make a curve as
those of an experiment do. Knows nothing of statistics.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from backend import rundir
from backend.config import TrainDetector
from backend.evaluation import dose
from backend.evaluation.entrants import Entrant
from backend.evaluation.paired import Measured

Arms = Mapping[str, list[Entrant]]
FEWEST = 3                             # numbers of images that make a curve
ALIKE = ("epochs", "imgsz", "batch", "size", "weights", "optimizer", "learning_rate", "precision", "shown")


def told(arms: Arms, measured: Measured) -> dict[str, Any] | None:
    """The part `dose` of comparison.json; None where the arms make up no curve."""
    labels, doses = _labels(arms), _doses(arms)
    if not doses:
        return dict(by="labels", points=dose.points(measured, labels), labels=None, equivalent=None) if labels else None
    most = max(doses, key=lambda name: doses[name])
    base = _labelled(arms[most][0])
    worth = dose.equivalent(measured, labels, most, base, doses[most]) if labels and base else None
    return dict(by="synthetic", points=dose.points(measured, doses), labels=dose.points(measured, labels) if labels else None,
                equivalent=worth)


def _doses(arms: Arms) -> dict[str, int]:
    """Arms with as many labels and more and more synthetic images beside them, -> how many. Of several such rows the longest."""
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for name, (first, *_) in arms.items():
        n = first.result.get("synthetic_images")
        if first.settings.get("origin", "both") != "synthetic" and n is not None:
            rows[_trained_as(first, "labels")].setdefault(n, name)
    longest = max(rows.values(), key=len, default={})
    return {name: n for n, name in longest.items()} if len(longest) >= FEWEST and 0 in longest else {}


def _labels(arms: Arms) -> dict[str, int]:
    """Arms without synthetic images and with more and more labels, -> how many."""
    rows: dict[str, dict[int, str]] = defaultdict(dict)
    for name, (first, *_) in arms.items():
        n = _labelled(first)
        if first.result.get("synthetic_images") == 0 and n:
            rows[_trained_as(first)].setdefault(n, name)
    longest = max(rows.values(), key=len, default={})
    return {name: n for n, name in longest.items()} if len(longest) >= FEWEST else {}


def _trained_as(entrant: Entrant, *more: str) -> str:
    """The same for arms that may differ in their images alone."""
    default = TrainDetector().to_json()
    return rundir.key_of(recipe=entrant.recipe, **{k: entrant.settings.get(k, default[k]) for k in (*ALIKE, *more)})


def _labelled(entrant: Entrant) -> int | None:
    """Labelled real images that it saw; None where good ones were among them, which a choice of labels leaves out."""
    if asked := entrant.settings.get("labels"):
        return int(asked)
    seen = entrant.result.get("real_images")
    rows = rundir.rows(entrant.snapshot_run, "snapshot_images").select(["split", "origin", "image_id"]).to_pylist()
    boxed = set(rundir.rows(entrant.snapshot_run, "labels")["image_id"].to_pylist())
    real = {r["image_id"] for r in rows if r["split"] == "train" and r["origin"] != "synthetic"}
    return seen if seen == len(real) and real <= boxed else None
