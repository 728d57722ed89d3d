"""Reader of the sets that `synthesize` makes, alone or in a folder together with real pictures.

Runs before every other reader, whatever layout is insisted on: to those, the masks that lie beside the images are pictures of
good parts, and the images real ones. What a file is, is what head.json says of it; the importer keeps the images in train.
"""

import json
from pathlib import PurePosixPath
from typing import Any

from backend.data.catalog import Catalog, Record, Tree, class_name
from backend.data.files import Entry, Refusal, printable
from backend.data.marks import Mark
from backend.errors import InputError

KEYS = {"file", "mask", "parent", "source"}            # of an item, among others
CLASS = "defect"                                       # where the head names none
NOWHERE = "The set says of no defect where it is, so the picture would count as good."
SOURCES = {"parent": "box", "whole": "image"}          # of boxes, by what an item says that they are from; else of its mask


def synthetic(tree: Tree) -> Catalog | None:
    return apart(tree)[0]


def apart(tree: Tree) -> tuple[Catalog | None, list[Entry]]:
    """What the synthetic sets in this tree hold, and the entries that belong to none of them."""
    heads = [(e, head) for e in tree.files("json") if PurePosixPath(e.name).name == "head.json" and (head := _head(e)) is not None]
    if not heads:
        return None, list(tree.entries.values())
    found = Catalog("synthetic", "", [])
    listed: set[str] = set()
    for entry, head in heads:
        try:
            _add(tree, entry, head, found, listed)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{entry.name} looks like that of a synthetic set, but cannot be understood.") from error
    bases = [PurePosixPath(e.name).parent for e, _ in heads]
    previews = {str(b.parent / "samples.png") for b in bases if b.name == "synthetic"}     # of the run, beside its artifact
    rest = [e for n, e in tree.entries.items() if n not in previews and not any(PurePosixPath(n).is_relative_to(b) for b in bases)]
    taken = listed | previews | {e.name for e in rest}
    if strays := [n for n in tree.pictures if n not in taken]:
        found.notes.add("Pictures in the folder of a synthetic set that its head.json does not list, left out", *strays)
    found.explanation = f"{len(found.records):,} synthetic pictures, as {', '.join(e.name for e, _ in heads[:3])} " \
                        f"{'lists' if len(heads) == 1 else 'list'} them; they stay in train."
    return found, rest


def _head(entry: Entry) -> dict[str, Any] | None:
    """The head of a synthetic set; None where it is something else's."""
    try:
        content = json.loads(entry.read())
    except (InputError, ValueError, RecursionError):
        return None
    items = content.get("items") if isinstance(content, dict) else None
    fits = isinstance(items, list) and bool(items) and isinstance(items[0], dict) and items[0].keys() >= KEYS
    return content if fits else None


def _add(tree: Tree, entry: Entry, head: dict[str, Any], found: Catalog, listed: set[str]) -> None:
    base = PurePosixPath(entry.name).parent
    named = class_name(head["classes"][0]) if head.get("classes") else CLASS
    for item in head["items"]:
        name, mask = str(base / item["file"]), str(base / item["mask"]) if item["mask"] else ""
        listed |= {name, mask}
        if name not in tree.entries:
            found.notes.add("Synthetic pictures that are listed but not there", printable(name))
        elif mask and mask not in tree.entries:
            found.refused.append(Refusal(name, f"Its mask {printable(mask)} is not there."))
        elif not item.get("boxes", mask):
            found.refused.append(Refusal(name, NOWHERE))
        else:
            marks = _marks(item, tree.entries.get(mask), named)
            parent, donor = (printable(str(item.get(k, ""))) for k in ("parent", "donor"))
            found.records.append(Record(tree.entries[name], marks, "train", "synthetic", parent, donor))


def _marks(item: dict[str, Any], mask: Entry | None, named: str) -> tuple[Mark, ...]:
    """Boxes as they are listed, and the mask where it outlines all that is defective. Older sets list none: the mask has them."""
    if "boxes" not in item:
        return (Mark(named, mask=mask),)
    exact = mask if item.get("exact", True) else None
    source = SOURCES.get(str(item.get("boxes_from")), "mask" if exact else "box")
    boxes = [Mark(class_name(name), _corners(corners), source=source) for name, *corners in item["boxes"]]
    return (*boxes, *([Mark("", mask=exact, bare=True)] if exact else ()))


def _corners(values: list[Any]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
