"""Which pictures `quality` compares with which, class by class: made ones, real ones that nothing was made from, and what could be copied.

Stands between a synthetic set with its dataset and the measuring. All real pictures are of train, and none is nearly equal to one of val
or test; but for those that a detector is tried on, which are of val too. Knows nothing of features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from backend import rundir
from backend.data import snapshot
from backend.data.snapshot import Picture, Snapshot
from backend.errors import NotFoundError
from backend.synthesis import sources

FEWEST = 8               # pictures, on either side, for a distance; with fewer its interval says nothing
PARENTS = 4              # pictures that made ones stem from, for the same reason
MOST = 2_000             # pictures of a class on either side, by chance; the work grows with their product
T = TypeVar("T")


@dataclass(frozen=True)
class Lot:
    """One class of a set."""

    class_name: str
    items: list[dict[str, Any]]
    reference: list[Picture]         # nothing was made from these, and nothing that made learned from them
    others: list[Picture]            # the class's other pictures
    known: list[Picture]             # what could be copied: learned from, made from, cut out of
    groups: list[str]                # of each item: those of one group stem from one picture

    @property
    def real(self) -> list[Picture]:
        return self.reference + self.others

    @property
    def why(self) -> str:
        """Why there is no distance, in a sentence; '' where there is one."""
        stems = len(set(self.groups))
        if not self.real:
            return "The dataset has no train image with such a defect to compare with."
        if len(self.reference) < FEWEST:
            return f"Too few of the {len(self.real)} train images of the class are left that nothing was learned or made from: " \
                   f"{len(self.reference)}; it takes {FEWEST}."
        if len(self.items) < FEWEST:
            return f"The set holds too few images of the class: {len(self.items)}; it takes {FEWEST}."
        return f"The images stem from too few real ones: {stems}; it takes {PARENTS}." if stems < PARENTS else ""


@dataclass(frozen=True)
class Learned:
    """What made a set has learned from, as far as that is written down; what a person should know of it."""

    ids: frozenset[str] = frozenset()            # by an adapter, or the one that the set is compared by: never a reference
    base: frozenset[str] = frozenset()           # by the prior before it: could be copied too
    warnings: list[str] = field(default_factory=list)


def learned(head: dict[str, Any], data: Snapshot) -> Learned:
    """From the artifacts that a set's head names."""
    about = head.get("prior") or {}
    if not about:
        return Learned(warnings=_denoised(head))
    adapter, warnings = _adapter(str(about.get("adapter") or ""), f"The adapter that drew this set, {about['name']!r},")
    apart, more = _adapter(str(head.get("apart") or ""), "The adapter whose images held apart this set was to leave alone")
    where = str(adapter["base"]["where"] if adapter else about.get("key") or about["name"])
    head_of = (rundir.find_artifact("prior", where) or Path(where).expanduser()) / "head.json"       # its key, or a folder
    train = {p.image_id for p in data.pictures if p.split == "train"}
    base = frozenset(rundir.read_json(head_of).get("learned", ()) if head_of.is_file() else ()) & train
    if base:
        warnings.append(f"The surface prior has itself learned from {len(base)} of this dataset's train images: distances may be too "
                        "small.")
    return Learned(frozenset([*adapter.get("learned", ()), *apart.get("learned", ())]), base, warnings + more)


def _adapter(key: str, called: str) -> tuple[dict[str, Any], list[str]]:
    """The head of an adapter, and a sentence where it is gone; of none, nothing."""
    folder = rundir.find_artifact("adapter", key) if key else None
    if key and not folder:
        return {}, [f"{called} is not there any more: which images it learned from is not known, and some of them may count as held out."]
    return rundir.read_json(folder / "head.json") if folder else {}, []


def _denoised(head: dict[str, Any]) -> list[str]:
    """A sentence where a denoiser made the set that has seen the pictures it is compared with."""
    folder = rundir.find_artifact("denoiser", str(head["denoiser"])) if head.get("denoiser") else None
    about = rundir.read_json(folder / "head.json") if folder else {}
    if about.get("good") or not about.get("steps"):
        return []
    return [f"The diffusion model {about['name']!r} has learned from all train images, those that the set is compared with among them: "
            "distances may be too small."]


def lots(head: dict[str, Any], data: Snapshot, known: Learned, seed: int) -> list[Lot]:
    """In the order of the set's classes."""
    items: dict[str, list[dict[str, Any]]] = {}
    for item in head["items"]:
        items.setdefault(item.get("class_name") or head["classes"][0], []).append(item)
    order = [c for c in head["classes"] if c in items] + [c for c in items if c not in head["classes"]]
    return [_lot(c, items[c], head, data, known, np.random.default_rng([seed, i])) for i, c in enumerate(order)]


def _lot(class_name: str, items: list[dict[str, Any]], head: dict[str, Any], data: Snapshot, known: Learned,
         rng: np.random.Generator) -> Lot:
    used = {i for item in head["items"] for i in stems(item)}
    own = {i for item in items for i in stems(item)}
    shown = real_of(data, class_name)
    near = {p.group_id for p in data.pictures if p.image_id in used | known.ids and p.group_id}
    apart = [p for p in shown if p.image_id not in used | known.ids and p.group_id not in near]
    left = {p.image_id for p in apart}
    ids = own | known.ids | known.base
    copied = {p.image_id: p for p in data.pictures if p.image_id in own} | {p.image_id: p for p in shown if p.image_id in ids}
    items = some(items, MOST, rng)
    groups = {p.image_id: p.group_id or p.image_id for p in data.pictures}
    first = sorted(copied.values(), key=lambda p: (p.image_id not in own, p.image_id))[:MOST]
    return Lot(class_name, items, some(apart, MOST, rng), some([p for p in shown if p.image_id not in left], MOST, rng), first,
               [next((groups.get(i, i) for i in reversed(stems(item))), item["file"]) for item in items])


def beside(model: dict[str, Any], found: list[Lot], data: Snapshot, made_by: str) -> tuple[list[list[Picture]], list[str]]:
    """Real pictures of each class that a detector has not learned from, for its answers on made ones to be compared with: those of val, and
    the reference as far as its own dataset lacks them. And what a person should know of it. `made_by`: the set's run."""
    own = _snapshot(str(model.get("snapshot_id", "")))
    trained = None if own is None else {p.image_id for p in own.pictures if p.split == "train"}
    warnings = [] if model.get("snapshot_id") == data.snapshot_id else \
        [f"The detector {model['name']!r} was trained on another dataset, or on another state of this one."]
    if own is not None and any(p.generator_run == made_by for p in own.pictures):
        warnings.append(f"The detector {model['name']!r} has learned from pictures of this very set: that it finds their labels says "
                        "nothing of these. Choose one that was trained without them.")

    def unseen(lot: Lot) -> list[Picture]:
        return [p for p in _of_val(data, lot.class_name) + (lot.reference if trained is not None else [])
                if p.image_id not in (trained or ())]

    return [unseen(lot) for lot in found], warnings


def _of_val(data: Snapshot, class_name: str) -> list[Picture]:
    """As `real_of`, of val."""
    return [p for p in data.by_split("val") if p.origin == "real" and
            (class_name in p.classes if class_name in data.classes else not p.is_good)]


def _snapshot(snapshot_id: str) -> Snapshot | None:
    try:
        return snapshot.read(rundir.find_snapshot(snapshot_id))
    except NotFoundError:
        return None


def stems(item: dict[str, Any]) -> list[str]:
    """Pictures that a made one stems from: parent, then donor."""
    return [i for i in (item.get("parent"), item.get("donor")) if i]


def real_of(data: Snapshot, class_name: str) -> list[Picture]:
    """Real train pictures to compare a class with; of a class that the dataset does not have, all that show a defect."""
    if class_name in data.classes:
        return sources.of_class(data, class_name)
    return [p for p in sources.usable(data) if not p.is_good]


def some(things: Sequence[T] | Iterable[T], most: int, rng: np.random.Generator) -> list[T]:
    """By chance, in their order; all where they are no more."""
    found = list(things)
    return found if len(found) <= most else [found[i] for i in np.sort(rng.choice(len(found), most, replace=False))]


def group(picture: Picture) -> str:
    return picture.group_id or picture.image_id
