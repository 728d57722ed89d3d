"""What a classifier learns from and is judged by: one class for each picture of a snapshot.

A label of the whole picture decides; else the class whose boxes cover most of it; else it shows a good part. Stands between the
snapshot and the training. Knows nothing of networks.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.data import leaks
from backend.data.snapshot import Picture, Snapshot
from backend.data.splits import SPLITS
from backend.errors import ConfigError
from backend.evaluation.classification import GOOD


@dataclass(frozen=True)
class Material:
    """`classes` as the network orders them, that of good parts last; `names` adds those of val and test that train does not show.

    Each content of train once, none that is in val or test too. Labels are positions in `names`.
    """

    dataset: str
    snapshot_id: str
    classes: list[str]
    names: list[str]
    pictures: dict[str, list[Picture]]
    labels: dict[str, np.ndarray]                # int64 (n,) of each split
    warnings: list[str] = field(default_factory=list)

    @property
    def defects(self) -> list[str]:
        return [c for c in self.classes if c != GOOD]

    @property
    def synthetic(self) -> np.ndarray:
        """bool (n,): which train pictures are made."""
        return np.array([p.origin == "synthetic" for p in self.pictures["train"]], bool)


def from_snapshot(data: Snapshot) -> Material:
    """Raises ConfigError for a dataset that cannot be learned from, or scored on honestly."""
    if GOOD in data.classes:
        raise ConfigError(f"A class of this dataset is called {GOOD!r}, which is what pictures without a defect are called here. "
                          "Rename it, or leave its labels out.")
    leaks.refuse(data.pictures)
    found = {"train": _learned(data), "val": data.by_split("val"), "test": data.by_split("test")}
    pictures = {split: [p for p in found[split] if class_of(p)] for split in SPLITS}
    shown = {split: [class_of(p) for p in pictures[split]] for split in SPLITS}
    classes = [c for c in (*data.classes, GOOD) if c in shown["train"]]
    refuse_few(data.head["name"], classes)
    names = [*classes, *(c for c in (*data.classes, GOOD) if c not in classes and c in shown["val"] + shown["test"])]
    labels = {split: np.array([names.index(c) for c in shown[split]], np.int64) for split in SPLITS}
    unclear = sum(len(found[s]) - len(pictures[s]) for s in SPLITS)
    return Material(data.head["name"], data.snapshot_id, classes, names, pictures, labels, _warnings(shown, classes, unclear))


def _learned(data: Snapshot) -> list[Picture]:
    """Each content of train once, real or synthetic, without what val or test show too."""
    held = {p.image_id for p in data.pictures if p.split in ("val", "test")}
    found = {p.image_id: p for p in data.by_split("train") if p.image_id not in held}
    return [found[i] for i in sorted(found)]


def class_of(picture: Picture) -> str:
    """The class a picture is of; '' where it shows a defect of which nobody says the class."""
    whole = [b.class_name for b in picture.boxes if b.source == "image"]
    if whole:
        return min(whole)
    area: dict[str, float] = defaultdict(float)
    for b in picture.boxes:
        area[b.class_name] += (b.x2 - b.x1) * (b.y2 - b.y1)
    return min(area, key=lambda c: (-area[c], c)) if area else GOOD if picture.is_good else ""


def refuse_few(dataset: str, classes: Sequence[str]) -> None:
    if classes == [GOOD]:
        raise ConfigError(f"The train pictures of {dataset!r} show no labelled defect, so there is nothing to tell apart. Label some, or "
                          "train an anomaly model, which learns from good parts alone.")
    if len(classes) < 2:
        alone = f"only {classes[0]!r}" if classes else "nothing"
        raise ConfigError(f"A classifier tells at least two classes apart, and the train pictures of {dataset!r} show {alone}. "
                          "Add pictures of another class, or of good parts.")


def _warnings(shown: dict[str, list[str]], classes: list[str], unclear: int) -> list[str]:
    """What a person should know of the dataset before trusting figures from it."""
    found = []
    if not shown["val"]:
        found.append("The dataset has no val split, so no threshold could be chosen: each class counts from a probability of 50 %.")
    elif missing := [c for c in classes if c not in shown["val"] and c != GOOD]:
        found.append(f"The val split shows no picture of {', '.join(missing)}, so these count from a probability of 50 %.")
    if not shown["test"]:
        found.append("The dataset has no test split, so the model was not scored on one.")
    if unlearned := Counter(c for s in ("val", "test") for c in shown[s] if c not in classes):
        found.append(f"{', '.join(f'{c} ({n})' for c, n in unlearned.items())}: in val and test, but not in train. "
                     "The model cannot tell it and is wrong on each.")
    if unclear:
        found.append(f"{unclear} pictures show a defect of which nobody says the class; they were left out.")
    return found
