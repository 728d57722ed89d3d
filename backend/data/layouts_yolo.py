"""Reader of YOLO labels: one text file per picture, corners as shares of its sides.

Where the labels lie, what the classes are called and which split a picture is in follow data.yaml, else what is usual.
A label file that cannot be understood refuses its picture, with the line that is wrong.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import yaml

from backend.data.catalog import Catalog, Tree, folder_split, note_unlabelled, records_of
from backend.data.files import Entry, printable
from backend.data.marks import Mark, Notes
from backend.errors import InputError

MOST_YAML = 20                     # a megabyte of it takes 20 s to read


def yolo(tree: Tree) -> Catalog | None:
    head, said = _yolo_yaml(tree)
    files = {n: e for n in tree.pictures if (e := _yolo_file(tree, n)) is not None}
    if not head and not any(_yolo_first(e) for e in list(files.values())[:50]):
        return None
    classes = _yolo_classes(tree, head)
    marks: dict[str, list[Mark]] = {}
    bad: dict[str, str] = {}
    notes = Notes()
    for name, entry in files.items():
        try:
            marks[name] = _yolo_marks(entry, classes)
        except (InputError, ValueError) as error:
            bad[name] = f"Its label file {entry.name} cannot be understood: {error}."
    records, refused = records_of(tree, marks, bad, splits=_yolo_splits(tree, head))
    note_unlabelled(notes, records, marks)
    used = {e.name for e in files.values()}
    stray = [e.name for e in tree.files("txt") if "labels" in PurePosixPath(e.name).parts[:-1] and e.name not in used]
    if stray:
        notes.add("Annotations without a picture, left out", *stray)
    if not classes:
        notes.add("No class names were found (data.yaml or classes.txt); classes carry their numbers")
        classes = sorted({m.class_name for ms in marks.values() for m in ms}, key=int)
    explanation = f"Read as YOLO: {said}{len(files):,} of {len(tree.pictures):,} pictures have a label file of the same name."
    return Catalog("yolo", explanation, records, classes, refused, notes)


def _yolo_yaml(tree: Tree) -> tuple[dict[str, Any], str]:
    """The data.yaml that names the classes, and how to say so."""
    for entry in sorted(tree.files("yaml", "yml"), key=lambda e: (e.name.count("/"), e.name))[:MOST_YAML]:
        try:
            content = yaml.safe_load(entry.read(1_000_000))
        except (InputError, yaml.YAMLError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("names"), list | dict):
            return content, f"{entry.name} names the classes; "
    return {}, ""


def _yolo_file(tree: Tree, name: str) -> Entry | None:
    """The label file of a picture: in 'labels' where the picture is in 'images', or beside it."""
    path = PurePosixPath(name)
    parts = list(path.parent.parts)
    options = [path.with_suffix(".txt"), path.parent / "labels" / f"{path.stem}.txt"]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        options.insert(0, PurePosixPath(*parts[:last], "labels", *parts[last + 1:], f"{path.stem}.txt"))
    elif parts:
        options.append(path.parent.parent / "labels" / f"{path.stem}.txt")
    return next((tree.entries[str(o)] for o in options if str(o) in tree.entries), None)


def _yolo_first(entry: Entry) -> bool:
    try:
        return bool(_yolo_marks(entry, []))
    except (InputError, ValueError):
        return False


def _yolo_classes(tree: Tree, head: dict[str, Any]) -> list[str]:
    """Class names by number; a number without a name keeps its number."""
    names = head.get("names", [])
    if isinstance(names, dict):
        numbered = {int(k): v for k, v in names.items() if str(k).isdecimal() and int(k) < 10_000}
        names = [numbered.get(i, "") for i in range(1 + max(numbered, default=-1))]
    if not names:
        lists = [e for e in tree.files("txt", "names") if PurePosixPath(e.name).name in ("classes.txt", "obj.names", "labels.txt")]
        names = lists[0].read().decode("utf-8-sig", "replace").rstrip().splitlines() if lists else []
    # Anything but text and numbers is passed over: YAML aliases can nest lists that take for ever to write out.
    found = [(printable(str(n).strip()) if isinstance(n, str | int | float) else "") or str(i) for i, n in enumerate(names)]
    return [n if n not in found[:i] else f"{n} ({i})" for i, n in enumerate(found)]


def _yolo_marks(entry: Entry, classes: list[str]) -> list[Mark]:
    """Lines of 'class cx cy w h [confidence]', or 'class x1 y1 x2 y2 x3 y3 …' for outlines. Raises ValueError, worded."""
    found = []
    for number, line in enumerate(entry.read().decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            kind, *values = (float(v) for v in line.split())
        except ValueError:
            raise ValueError(f"line {number} holds something other than numbers") from None
        if len(values) in (4, 5):
            cx, cy, w, h = values[:4]
            corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            corners = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            raise ValueError(f"line {number} has {len(values) + 1} numbers")
        if max(map(abs, corners)) > 2:
            raise ValueError(f"line {number} is in pixels, not in shares of the picture")
        if not 0 <= kind < (len(classes) or 100_000) or kind != int(kind):
            raise ValueError(f"line {number} has the class {kind:g}, which has no name")
        found.append(Mark(classes[int(kind)] if classes else str(int(kind)), corners, shares=True))
    return found


def _yolo_splits(tree: Tree, head: dict[str, Any]) -> Callable[[str], str]:
    """Split of a picture: as data.yaml says (folders or list files), else by the folders' own names."""
    places: list[tuple[str, str]] = []
    listed: dict[str, str] = {}
    for split in ("test", "val", "train"):
        value = head.get(split) or head.get("valid" if split == "val" else split) or []
        for place in value if isinstance(value, list) else [value]:
            clean = re.sub(r"^(\.{1,2}/)+|/+$", "", place) if isinstance(place, str) else ""
            if clean.endswith(".txt"):
                lists = [e for n, e in tree.entries.items() if f"/{n}".endswith(f"/{clean}")]
                lines = lists[0].read().decode("utf-8-sig", "replace").split("\n") if lists else []
                listed.update({n: split for line in lines if line.strip() and (n := tree.picture(line.strip(), lists[0].name))})
            elif clean:
                places.append((f"/{clean.lstrip('/')}/", split))
    return lambda name: listed.get(name) or next((s for p, s in places if p in f"/{name}"), "") or folder_split(name)
