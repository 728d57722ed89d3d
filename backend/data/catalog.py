"""Entries become records: which layout is this, which pictures, which marks on them, which split if folders say so.

`read` looks for the layouts in the order of `ORDER` and says what it recognised and why. The readers are in `layouts_*`.
Nothing is decoded here, except a few masks to see that they are masks. Knows nothing of sizes, hashes or snapshots.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from backend.data.files import Entry, Refusal, named_beside, printable
from backend.data.marks import Mark, Notes
from backend.data.snapshot import UNLABELLED
from backend.errors import InputError

SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                 "test": "test", "testing": "test"}
_UNLABELLED = re.compile(r"unlabell?ed([ _-]?(images|imgs|pictures|data))?\d*", re.IGNORECASE)       # COCO's is unlabeled2017
GOOD = {"good", "free", "ok", "normal", "none", "no_defect", "defect_free", "nodefect", "defectfree", "without_defect", "without_defects"}
ORDER = ("synthetic", "mvtec", "voc", "coco", "yolo", "mask-beside", "class-folders", "images")
CALLED = {"mvtec": "MVTec AD", "voc": "Pascal VOC", "coco": "COCO", "yolo": "YOLO", "mask-beside": "pictures with masks beside them",
          "class-folders": "pictures in a folder for each class", "images": "pictures without labels", "synthetic": "a synthetic set"}


@dataclass(frozen=True)
class Record:
    """One picture of a dataset: where its bytes are, what marks it carries, which split its folder names ('' none).

    `parent` is the image id of the real picture that a synthetic one was made of, `donor` that of the one whose defect it shows.
    """

    entry: Entry
    marks: tuple[Mark, ...] = ()
    split: str = ""
    origin: str = "real"               # or synthetic
    parent: str = ""
    donor: str = ""

    @property
    def name(self) -> str:
        return self.entry.name


@dataclass
class Catalog:
    """What a layout's reader found. `classes` only where the layout declares their order."""

    layout: str
    explanation: str
    records: list[Record]
    classes: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)


class Tree:
    """All entries by name, with the look-ups that the readers share. A name met twice gets a number. `hidden`: names of pictures that
    labels may speak of, though no reader is to see them."""

    def __init__(self, entries: list[Entry | Refusal], hidden: Iterable[str] = ()) -> None:
        self.refused = [e for e in entries if isinstance(e, Refusal)]
        self.entries: dict[str, Entry] = {}
        again: Counter[str] = Counter()                 # a zip may hold 100,000 files of one name
        for entry in entries:
            if isinstance(entry, Entry):
                name = entry.name
                while name in self.entries:
                    again[entry.name] += 1
                    name = f"{entry.name} (again{f' {n}' if (n := again[entry.name]) > 1 else ''})"
                self.entries[name] = replace(entry, name=name)
        self.pictures = [n for n, e in self.entries.items() if not named_beside(e)]
        self._by_file: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in (*self.pictures, *hidden):
            path = PurePosixPath(name)
            self._by_file.setdefault(path.name, []).append(name)
            self._by_stem.setdefault(path.stem, []).append(name)

    def files(self, *suffixes: str) -> list[Entry]:
        return [e for e in self.entries.values() if e.suffix in suffixes]

    def picture(self, wanted: str, near: str) -> str | None:
        """The picture that a label file at `near` calls `wanted` (a path, a name or a stem); of several, the closest."""
        path = PurePosixPath(wanted.replace("\\", "/"))
        candidates = self._by_file.get(path.name) or self._by_stem.get(path.name, [])
        exact = [c for c in candidates if f"/{c}".endswith(f"/{path}")]
        return max(exact or candidates, key=lambda c: _shared(c, near), default=None)


def _shared(a: str, b: str) -> int:
    """How many leading folders two names share."""
    pairs = zip(PurePosixPath(a).parts[:-1], PurePosixPath(b).parts[:-1], strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(a.count("/"), b.count("/")))


def folder_split(name: str) -> str:
    """The split that a folder in this path names; '' if none does."""
    return next((SPLIT_FOLDERS[p.lower()] for p in PurePosixPath(name).parts[:-1] if p.lower() in SPLIT_FOLDERS), "")


def is_good(folder: str) -> bool:
    return folder.lower().replace("-", "_").replace(" ", "_") in GOOD


def class_name(text: Any) -> str:
    name = printable(str(text).strip())
    if not name:
        raise ValueError("it has a class without a name")
    return name


def records_of(tree: Tree, marks: dict[str, list[Mark]], bad: dict[str, str], names: Iterable[str] | None = None,
               splits: Callable[[str], str] = folder_split) -> tuple[list[Record], list[Refusal]]:
    """Records of these pictures (none given: all), and refusals of those whose labels are bad."""
    names = list(tree.pictures if names is None else names)
    return ([Record(tree.entries[n], tuple(marks.get(n, ())), splits(n)) for n in names if n not in bad],
            [Refusal(n, bad[n]) for n in names if n in bad])


def note_unlabelled(notes: Notes, records: list[Record], marks: dict[str, list[Mark]]) -> None:
    missing = [r.name for r in records if r.name not in marks]
    if missing:
        notes.add("Pictures without an annotation; they count as free of defects", *missing)


def without_folder(name: str) -> str:
    """A picture's name without the folder that calls it unlabelled: lots and units are told by the rest."""
    path = PurePosixPath(name)
    return str(PurePosixPath(*(p for p in path.parts[:-1] if not _UNLABELLED.fullmatch(p)), path.name))


def _without_labels(entries: list[Entry]) -> tuple[list[Entry], Tree]:
    """Pictures in a folder called unlabelled, and a tree of the rest, whose labels may still name them; nothing and a tree of all where
    there is no other picture."""
    tree = Tree(list(entries))
    inside = {n for n in tree.entries if any(_UNLABELLED.fullmatch(p) for p in PurePosixPath(n).parts[:-1])}
    free = [tree.entries[n] for n in tree.pictures if n in inside]
    if not free or len(free) == len(tree.pictures):
        return [], tree
    return free, Tree([e for n, e in tree.entries.items() if n not in inside], [e.name for e in free])


def _with(found: Catalog, free: list[Entry]) -> Catalog:
    """And the unlabelled ones, without masks that lie beside them and without those in a folder of val or test."""
    from backend.data.layouts_masks import mask_beside  # it uses this module's records

    if not free:
        return found
    beside = mask_beside(Tree(list(free)))
    masks = {m.mask.name for r in beside.records for m in r.marks if m.mask} if beside else set[str]()
    held = {e.name for e in free if folder_split(e.name) in ("val", "test")}
    for what, names in ((f"Masks beside pictures in a folder called {UNLABELLED}, left out", masks),
                        (f"Pictures in a folder called {UNLABELLED} within val or test, left out", held - masks)):
        if names:
            found.notes.add(what, *sorted(names))
    records = [Record(e, split=UNLABELLED) for e in free if e.name not in masks | held]
    if found.layout == "images":
        found.notes.add(f"No label was found beside the folder called {UNLABELLED}: what lies there counts as unlabelled, all else as free "
                        "of defects", *(r.name for r in found.records))
    said = f"{found.explanation} Beside them {len(records):,} in a folder called {UNLABELLED}: no label of these is read."
    return replace(found, explanation=said, records=found.records + records)


def _readers() -> dict[str, Callable[[Tree], Catalog | None]]:
    # they use this module's records
    from backend.data import layouts_boxes, layouts_folders, layouts_masks, layouts_synthetic, layouts_yolo

    return {"synthetic": layouts_synthetic.synthetic, "mvtec": layouts_masks.mvtec, "voc": layouts_boxes.voc, "coco": layouts_boxes.coco,
            "yolo": layouts_yolo.yolo, "mask-beside": layouts_masks.mask_beside, "class-folders": layouts_folders.class_folders,
            "images": layouts_masks.pictures}


def read(entries: list[Entry | Refusal], layout: str = "auto", unlabelled: bool = True) -> Catalog:
    """Recognise the layout, or insist on one; synthetic sets are read as such in any case. `unlabelled`: a folder of that name is taken
    apart. Raises InputError where nothing can be read."""
    from backend.data.layouts_synthetic import apart  # it uses this module's records

    tree = Tree(entries)
    if not tree.pictures:
        raise InputError(f"There is no picture in it{_first(tree.refused)}.")
    made, rest = apart(tree)
    free, others = _without_labels(rest) if unlabelled else ([], Tree(list(rest)))
    if made is None:
        found = _recognised(others, layout)
    elif others.pictures:
        found = _joined(_recognised(others, "auto" if layout == "synthetic" else layout), made)
    else:
        found = replace(made, explanation=f"Read as a synthetic set: {made.explanation}")
    return _with(_without_lost_labels(found, tree.refused), free)


def _recognised(tree: Tree, layout: str) -> Catalog:
    from backend.data.layouts_folders import certain, hint  # they use this module's records

    for name in ORDER if layout == "auto" else (layout,):
        if (name, layout) == ("class-folders", "auto") and not certain(tree):
            continue
        found = _readers()[name](tree)
        if found is not None:
            return replace(found, explanation=found.explanation + hint(tree)) if (name, layout) == ("images", "auto") else found
    raise InputError(f"It does not look like {CALLED[layout]}: no such labels were found. Try the layout 'auto'.")


def _joined(real: Catalog, made: Catalog) -> Catalog:
    """Real pictures and the synthetic sets that lie in one folder with them."""
    shown = [m.class_name for r in made.records for m in r.marks if m.class_name]
    classes = list(dict.fromkeys([*real.classes, *shown])) if real.classes else []
    for what, names in made.notes.names.items():
        real.notes.add(what, *names)
    return replace(real, explanation=f"{real.explanation} Beside them: {made.explanation}", records=real.records + made.records,
                   classes=classes, refused=real.refused + made.refused)


def _without_lost_labels(catalog: Catalog, refused: list[Refusal]) -> Catalog:
    """Refuse pictures without marks whose label file, to judge by its name, was itself refused: they may well be defective."""
    lost = {PurePosixPath(r.name).stem: r.name for r in refused if r.name.lower().endswith((".xml", ".txt", ".json", ".png"))}
    hit = {r.name: lost[stem] for r in catalog.records if all(m.bare for m in r.marks) and (stem := PurePosixPath(r.name).stem) in lost}
    catalog.records = [r for r in catalog.records if r.name not in hit]
    catalog.refused = refused + catalog.refused + [Refusal(n, f"Its label file {label} was refused.") for n, label in hit.items()]
    return catalog


def _first(refused: list[Refusal]) -> str:
    return f"; {refused[0].name} was refused: {refused[0].reason.rstrip('.')}" if refused else ""
