"""Readers of Pascal VOC (one XML per picture) and COCO (one JSON for many): corners in pixels, kept as written.

A picture without annotation counts as free of defects and is listed; one whose annotation cannot be understood is refused,
since to count it as good would be a lie. Knows nothing of picture sizes.
"""

import re
import xml.etree.ElementTree as ET  # nosec B405  # entities are refused before
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from backend.data.catalog import Catalog, Tree, class_name, folder_split, note_unlabelled, records_of
from backend.data.files import Entry, printable
from backend.data.marks import Mark, Notes, coco_content
from backend.errors import InputError

MOST_JSON = 400 * 10**6            # bytes; parsed they take up to ten times that


def voc(tree: Tree) -> Catalog | None:
    files = tree.files("xml")
    if not any(_voc_root(e) is not None for e in files[:20]):
        return None
    marks: dict[str, list[Mark]] = {}
    bad: dict[str, str] = {}
    notes = Notes()
    for entry in files:
        root = _voc_root(entry)
        stem = PurePosixPath(entry.name).stem
        name = tree.picture(stem, entry.name) or tree.picture(root.findtext("filename", "") if root is not None else "", entry.name)
        if name is None:
            notes.add("Annotations without a picture, left out", entry.name)
            continue
        try:
            marks.setdefault(name, []).extend(_voc_marks(root))
        except (ValueError, AttributeError, TypeError):
            bad[name] = f"Its annotation {entry.name} cannot be understood."
    names = [n for n in tree.pictures if not {"SegmentationClass", "SegmentationObject"} & set(PurePosixPath(n).parts)]
    records, refused = records_of(tree, marks, bad, names)
    note_unlabelled(notes, records, marks)
    count = len(marks.keys() & set(names))
    explanation = f"Read as Pascal VOC: {count:,} of {len(names):,} pictures have an XML file of the same name with boxes."
    return Catalog("voc", explanation, records, refused=refused, notes=notes)


def _voc_root(entry: Entry) -> ET.Element | None:
    """The root of an annotation; None where it is none. Entities are never needed in labels, and can be a bomb, in UTF-16 too: each letter
    of it stands beside a zero."""
    try:
        data = entry.read()
        root = None if b"<!ENTITY" in data or b"<!ENTITY" in data.replace(b"\0", b"") else ET.fromstring(data)  # nosec B314  # see above
    except (InputError, ET.ParseError, ValueError, LookupError):
        return None
    return root if root is not None and root.tag == "annotation" else None


def _voc_marks(root: ET.Element | None) -> list[Mark]:
    if root is None:
        raise ValueError("not an annotation")
    found = []
    for item in root.iter("object"):
        x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax"))
        found.append(Mark(class_name(item.findtext("name", "")), (x1, y1, x2, y2)))
    return found


def coco(tree: Tree) -> Catalog | None:
    if (size := sum(e.size for e in tree.files("json"))) > MOST_JSON:
        raise InputError(f"It holds {size / 1e6:,.0f} MB of JSON files; at most {MOST_JSON // 10**6} MB in all are read.")
    files = [(e, found) for e in tree.files("json") if (found := coco_content(e)) is not None]
    if not files:
        return None
    marks: dict[str, list[Mark]] = {}
    bad: dict[str, str] = {}
    splits: dict[str, str] = {}
    classes: dict[str, None] = {}
    notes = Notes()
    for entry, content in files:
        try:
            _coco_marks(tree, entry, content, marks, bad, splits, classes, notes)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{entry.name} looks like COCO, but cannot be understood.") from error
    records, refused = records_of(tree, marks, bad, splits=lambda n: splits.get(n) or folder_split(n))
    note_unlabelled(notes, records, marks)
    explanation = f"Read as COCO: {', '.join(e.name for e, _ in files[:3])} {'lists' if len(files) == 1 else 'list'} " \
                  f"{len(marks.keys() & set(tree.pictures)):,} of {len(tree.pictures):,} pictures."
    return Catalog("coco", explanation, records, list(classes), refused, notes)


def _coco_marks(tree: Tree, entry: Entry, content: dict[str, Any], marks: dict[str, list[Mark]], bad: dict[str, str],
                splits: dict[str, str], classes: dict[str, None], notes: Notes) -> None:
    categories = {c["id"]: class_name(c["name"]) for c in sorted(content.get("categories", []), key=lambda c: c["id"])}
    classes.update(dict.fromkeys(categories.values()))
    words = re.split(r"[^a-z]+", PurePosixPath(entry.name).stem.lower())
    split = next((s for w in words if (s := folder_split(f"{w}/x"))), "") or folder_split(entry.name)
    names: dict[Any, str] = {}
    for image in content["images"]:
        name = tree.picture(str(image["file_name"]), entry.name)
        if name is None:
            notes.add("Annotations without a picture, left out", printable(str(image["file_name"])))
            continue
        names[image["id"]] = name
        marks.setdefault(name, [])
        splits.setdefault(name, split)
    for item in content["annotations"]:
        name = names.get(item["image_id"])
        if name is None:
            continue
        if item.get("iscrowd"):
            notes.add("Crowd regions, left out", name)
        elif item["category_id"] not in categories:
            bad[name] = f"{entry.name} gives it a class that is not in its list of categories."
        elif corners := _coco_corners(item):
            marks[name].append(Mark(categories[item["category_id"]], corners))
        else:
            bad[name] = f"{entry.name} gives it a label without a box."


def _coco_corners(item: dict[str, Any]) -> tuple[float, float, float, float] | None:
    if len(item.get("bbox") or []) == 4:
        x, y, w, h = map(float, item["bbox"])
        return x, y, x + w, y + h
    outline = item.get("segmentation")
    if isinstance(outline, list) and outline:
        points = np.concatenate([np.asarray(p, float).reshape(-1, 2) for p in outline])
        (x1, y1), (x2, y2) = points.min(0), points.max(0)
        return float(x1), float(y1), float(x2), float(y2)
    return None
