"""Readers of layouts whose labels are masks, MVTec AD and a mask beside each picture, and of pictures without labels.

Which mask belongs to which picture, and of what class, is settled here by names; `marks` turns masks into boxes.
"""

import re
from os.path import commonprefix
from pathlib import PurePosixPath

import numpy as np

from backend.data.catalog import Catalog, Record, Tree, folder_split, is_good, records_of
from backend.data.files import Entry, printable
from backend.data.images import decode
from backend.data.marks import Mark, Notes
from backend.errors import InputError

_MASK_NAME = re.compile(r"(.+)[_-](mask|label|gt)", re.IGNORECASE)


def mvtec(tree: Tree) -> Catalog | None:
    roots = sorted({m[1] or "" for n in tree.pictures if (m := re.match(r"(.*/)?train/good/[^/]+$", n))})
    tested = [r for r in roots if any(n.startswith(f"{r}test/") for n in tree.pictures)]
    roots = [r for r in roots if r in tested or _good_only(tree, r)]
    if not roots:
        return None
    records: list[Record] = []
    notes = Notes()
    for root in roots:
        records += _mvtec_records(tree, root, notes)
    used = {r.name for r in records} | {m.mask.name for r in records for m in r.marks if m.mask}
    rest = [n for n in tree.pictures if n not in used]
    if rest:
        notes.add("Masks or pictures outside train, test and validation, left out", *rest)
    many = "set has" if len(roots) == 1 else "sets have"
    folders = "train/good, test and ground_truth folders" if tested else "a train/good folder and nothing to test on"
    explanation = f"Read as MVTec AD: {len(roots):,} {many} {folders}; " \
                  f"{sum(any(m.mask for m in r.marks) for r in records):,} of {len(records):,} pictures have a mask."
    return Catalog("mvtec", explanation, records, notes=notes)


def _good_only(tree: Tree, root: str) -> bool:
    """Whether below this folder lie train/good (and validation/good) alone: there is no defect yet."""
    return all(n[len(root):].startswith(("train/good/", "validation/good/")) for n in tree.pictures if n.startswith(root))


def _mvtec_records(tree: Tree, root: str, notes: Notes) -> list[Record]:
    masks: dict[tuple[str, str], list[Entry]] = {}
    inside = [(n, PurePosixPath(n[len(root):]).parts) for n in tree.pictures if n.startswith(root)]
    for name, parts in inside:                          # ground_truth/<kind>/<stem>_mask.png or ground_truth/<kind>/<stem>/<any>.png
        if parts[0] == "ground_truth" and len(parts) > 2:
            stem = parts[2] if len(parts) > 3 else re.sub(r"_mask$", "", PurePosixPath(parts[2]).stem)
            masks.setdefault((parts[1], stem), []).append(tree.entries[name])
    found = []
    for name, parts in inside:
        if len(parts) < 3 or parts[0] not in ("train", "test", "validation"):
            continue
        kind = printable(parts[1])
        marks = tuple(Mark(kind, mask=m) for m in masks.get((parts[1], PurePosixPath(parts[-1]).stem), []))
        if not is_good(kind) and not marks:
            notes.add("Pictures of a defect without a mask; they carry no box", name)
            marks = (Mark("", bare=True),)              # no class: one without a single box is nothing to learn
        found.append(Record(tree.entries[name], () if is_good(kind) else marks, folder_split(f"{parts[0]}/x")))
    return found


def mask_beside(tree: Tree) -> Catalog | None:
    pairs = _pairs(tree)
    if {_looks_like_mask(e) for e in list(pairs.values())[:10]} - {None} != {True}:
        return None
    masks = {e.name for e in pairs.values()}
    names = [n for n in tree.pictures if n not in masks]
    classes = _folder_classes(names)
    marks = {n: [Mark("" if is_good(classes[n]) else classes[n], mask=e)] for n, e in pairs.items()}
    records, _ = records_of(tree, marks, {}, names)
    notes = Notes()
    missing = [n for n in names if n not in pairs]
    if missing:
        notes.add("Pictures without a mask; they count as free of defects", *missing)
    explanation = f"Read as pictures with masks beside them: {len(pairs):,} of {len(names):,} pictures have a mask of the same name; " \
                  "the class comes from the folder, boxes from the connected white regions."
    return Catalog("mask-beside", explanation, records, notes=notes)


def _pairs(tree: Tree) -> dict[str, Entry]:
    """Mask of each picture that has one in its own folder."""
    here: dict[tuple[str, str], list[str]] = {}
    for name in tree.pictures:
        path = PurePosixPath(name)
        here.setdefault((str(path.parent), path.stem), []).append(name)
    found = {}
    for (folder, stem), names in here.items():
        if match := _MASK_NAME.fullmatch(stem):
            found.update({n: tree.entries[names[0]] for n in here.get((folder, match[1]), [])[:1]})
        pngs, others = ([n for n in names if n.lower().endswith(".png") == png] for png in (True, False))
        if pngs and others:
            found[others[0]] = tree.entries[pngs[0]]
    return found


def _looks_like_mask(entry: Entry) -> bool | None:
    """Black and white but for smoothed edges: photographs kept in two formats are not pictures with masks. None: unreadable."""
    try:
        grey = np.asarray(decode(entry.read(), entry.name).convert("L"))
    except InputError:
        return None                                     # a damaged mask is refused with its picture, later
    return bool(((grey < 32) | (grey > 223)).mean() > 0.9)


def _folder_classes(names: list[str]) -> dict[str, str]:
    """Class of each picture: its folder's name, 'Imgs' and split folders passed over, a prefix shared by all cut off."""
    plain = {"imgs", "images", "img", "image", "train", "val", "valid", "validation", "test"}
    folders = {n: next((p for p in PurePosixPath(n).parts[-2::-1] if p.lower() not in plain), "") for n in names}
    kinds = sorted(set(folders.values()))
    shared = re.sub(r"[^_\-. ]*$", "", commonprefix(kinds)) if len(kinds) > 1 else ""
    return {n: f[len(shared):] or "defect" for n, f in folders.items()}


def pictures(tree: Tree) -> Catalog | None:
    records, _ = records_of(tree, {}, {})
    notes = Notes()
    good = {n for n in tree.pictures if any(map(is_good, PurePosixPath(n).parts[:-1]))}
    if good and (others := [n for n in tree.pictures if n not in good]):
        notes.add("Pictures beside a folder of good ones; without a box or a mask they count as free of defects too", *others)
    explanation = f"Read as {len(records):,} pictures without labels: no annotation file of a known kind was found."
    return Catalog("images", explanation, records, notes=notes)
