"""Labelled pictures to a COCO zip that CVAT reads, and back: boxes, kinds and file names survive the trip.

A picture's name in the zip carries its id, so what comes back finds its picture whatever numbers CVAT gave to images and kinds. Kinds are
matched by name. Nothing is written here but the zip: what comes back is only read. Knows nothing of people, runs or the store.
"""

import json
import math
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from backend import __version__
from backend.config import data_root
from backend.data import files, images
from backend.data.files import Refusal, printable
from backend.data.marks import Notes, coco_content
from backend.errors import ImageError, InputError, NotFoundError

ANNOTATIONS = "annotations/instances_default.json"         # where CVAT's own "COCO 1.0" has them
_NAME = re.compile(r"\.([0-9a-f]{16}|demo-[0-9a-z+-]+)\.[a-z]{3,4}$")
MOST_FILES, MOST_BYTES = 20, 200 * 10**6                    # annotation files of one zip; parsed, one takes several times its size
OTHER_SIZE = "It came back with another size ({0} × {1} instead of {2} × {3}): the picture was scaled, so its boxes do not fit."


@dataclass
class Returned:
    """What a COCO file says of pictures of ours. Boxes are [kind, x1, y1, x2, y2]."""

    pictures: list[dict[str, Any]] = field(default_factory=list)       # image_id, file_name, width, height, boxes
    unknown: list[str] = field(default_factory=list)                   # names that are none of ours
    refused: list[Refusal] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)

    @classmethod
    def of(cls, told: bytes) -> "Returned":
        """What `returned` told."""
        said = json.loads(told)
        notes = Notes()
        for what, names in said["notes"].items():
            notes.add(what, *names)
        return cls(said["pictures"], said["unknown"], [Refusal(*one) for one in said["refused"]], notes)


def name_of(image_id: str, file_name: str) -> str:
    """'weld 7.3f0a9c….png': the picture's own name, shortened, and its id. Raises NotFoundError where it is not kept."""
    path = _path(image_id)
    stem = re.sub(r"[^\w-]+", "_", PurePosixPath(file_name.replace("\\", "/")).stem).strip("_")[:60] or "picture"
    tail = image_id.replace(":", "-") if image_id.startswith("demo:") else image_id[:16]
    return f"{stem}.{tail}{path.suffix}"


def _path(image_id: str) -> Path:
    path = images.drawn(image_id) if image_id.startswith("demo:") else images.path_of(image_id)
    if path is None:
        raise NotFoundError("This picture was not kept.")
    return path


def _known(name: str) -> str:
    """The id of the kept picture that such a name carries; '' where it is none of ours."""
    found = _NAME.search(PurePosixPath(name.replace("\\", "/")).name)
    if found is None:
        return ""
    if found[1].startswith("demo-"):
        return found[1].replace("-", ":")
    here = [p.stem for p in (data_root() / "images" / found[1][:2]).glob(f"{found[1]}*") if len(p.stem) == 64]
    return here[0] if len(set(here)) == 1 else ""


# ---- out

def write(path: Path, pictures: Iterable[dict[str, Any]], classes: Sequence[str]) -> dict[str, int]:
    """A zip of pictures as they are and one COCO file. Returns how many pictures, boxes, and pictures that are gone (missing)."""
    listed, boxes, missing, names = list[dict[str, Any]](), list[tuple[int, Any]](), 0, dict.fromkeys(classes)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        for one in pictures:
            try:
                name = name_of(one["image_id"], one["file_name"])
                z.write(_path(one["image_id"]), f"images/{name}")
            except (NotFoundError, OSError):
                missing += 1
                continue
            listed.append(dict(id=len(listed) + 1, file_name=name, width=one["width"], height=one["height"], sha256=one["image_id"],
                               license=0, flickr_url="", coco_url="", date_captured=0))
            names.update(dict.fromkeys(b[0] for b in one["boxes"]))
            boxes += [(len(listed), b) for b in one["boxes"]]
        numbers = {c: n for n, c in enumerate(names, 1)}
        z.writestr(ANNOTATIONS, json.dumps(dict(
            licenses=[dict(id=0, name="", url="")], info=dict(description="Diffspect", version=__version__),
            categories=[dict(id=n, name=c, supercategory="") for c, n in numbers.items()], images=listed,
            annotations=[_annotation(n, image, numbers, box) for n, (image, box) in enumerate(boxes, 1)]), ensure_ascii=False))
    return dict(pictures=len(listed), boxes=len(boxes), missing=missing)


def _annotation(number: int, image: int, numbers: dict[str, int], box: Sequence[Any]) -> dict[str, Any]:
    kind, x1, y1, x2, y2 = box[:5]
    return dict(id=number, image_id=image, category_id=numbers[kind], segmentation=[], iscrowd=0, area=round((x2 - x1) * (y2 - y1), 2),
                bbox=[round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)], attributes=dict(occluded=False, rotation=0.0))


# ---- back

def returned(path: str, name: str) -> bytes:
    """What `read` says, as JSON: the file comes from outside, and is read in a cell."""
    found = read(Path(path), name)
    return json.dumps(dict(pictures=found.pictures, unknown=found.unknown, refused=[(r.name, r.reason) for r in found.refused],
                           notes=found.notes.names)).encode()


def read(path: Path, name: str = "") -> Returned:
    """What a COCO file, or a zip with one or more, says of our pictures. Raises InputError where it is no such thing."""
    found = Returned()
    with files.listing(path) as entries:
        could = _could(entries, name or path.name)
        taken = [_taken(entry, found) for entry in could]                  # one after the other: each needs several times its size
        if not any(taken):
            lost = next((f" {e.reason}" for e in entries if isinstance(e, Refusal)), "")
            raise InputError(f"{printable(name or path.name)} holds no COCO annotations. In CVAT choose “Export task dataset” and the "
                             f"format “COCO 1.0”.{lost}")
    if not found.pictures and not found.refused:
        listed = f", for instance {found.unknown[0]}" if found.unknown else ""
        raise InputError(f"None of its pictures is one that was taken from here{listed}. Their file names must come back as they were.")
    return found


def _could(entries: Iterable[files.Entry | Refusal], name: str) -> list[files.Entry]:
    """Files that may hold annotations. Raises InputError where they are too many, or too large."""
    could = [e for e in entries if isinstance(e, files.Entry) and (e.name.lower().endswith(".json") or e.chosen)]
    size = sum(e.size for e in could)
    if len(could) > MOST_FILES or size > MOST_BYTES:
        raise InputError(f"{printable(name)} holds {len(could):,} JSON files of {size / 1e6:,.0f} MB in all. At most {MOST_FILES} of "
                         f"{MOST_BYTES // 10**6} MB in all are read: export fewer pictures at a time.")
    return could


def _taken(entry: files.Entry, found: Returned) -> bool:
    """Take in what a file says; False where it holds no COCO annotations."""
    content = coco_content(entry)
    try:
        if content is not None:
            _take(content, found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{entry.name} looks like COCO, but cannot be understood: {_why(error)}.") from error
    return content is not None


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else printable(str(error))[:120]


def _take(content: dict[str, Any], found: Returned) -> None:
    kinds = {c["id"]: printable(str(c["name"]).strip()) for c in content.get("categories", [])}
    ours: dict[Any, dict[str, Any]] = {}
    bad: dict[Any, str] = {}
    for item in content["images"]:
        name = printable(str(item["file_name"]))
        if not (image_id := _known(name)):
            found.unknown.append(name)
            continue
        try:
            width, height = images.size(image_id)
        except (NotFoundError, ImageError):
            found.unknown.append(name)
            continue
        own = _NAME.sub(PurePosixPath(name).suffix, PurePosixPath(name).name)
        ours[item["id"]] = dict(image_id=image_id, file_name=own, width=width, height=height, boxes=[])
        if (said := (item.get("width", width), item.get("height", height))) != (width, height):
            bad[item["id"]] = OTHER_SIZE.format(*said, width, height)
    for item in content["annotations"]:
        if (one := ours.get(item["image_id"])) is not None:
            problem = _add(item, one, kinds, found.notes)
            if problem:
                bad.setdefault(item["image_id"], problem)
    found.pictures += [one for key, one in ours.items() if key not in bad]
    found.refused += [Refusal(ours[key]["file_name"], reason) for key, reason in bad.items()]


def _add(item: dict[str, Any], one: dict[str, Any], kinds: dict[Any, str], notes: Notes) -> str:
    """Put a box on its picture. Returns why the picture cannot be used, '' mostly."""
    if item.get("iscrowd"):
        notes.add("Outlines of crowds, left out", one["file_name"])
        return ""
    if not kinds.get(item["category_id"]):
        return "It has a box of a kind that is not in the file's list of categories."
    corners = _corners(item)
    if corners is None or not all(map(math.isfinite, corners)):
        return "It has a label without a box."
    x1, y1, x2, y2 = (min(max(v, 0.0), float(most)) for v, most in zip(corners, (one["width"], one["height"]) * 2, strict=True))
    if x2 - x1 < 1 or y2 - y1 < 1:
        notes.add("Boxes smaller than a pixel, or outside their picture, left out", one["file_name"])
        return ""
    one["boxes"].append([kinds[item["category_id"]], round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)])
    return ""


def _corners(item: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """A box; one that was turned in CVAT, or an outline, becomes the upright box about it."""
    outline = item.get("segmentation")
    if len(item.get("bbox") or []) == 4:
        x, y, w, h = map(float, item["bbox"])
        turn = math.radians(float((item.get("attributes") or {}).get("rotation") or 0.0))
        wide, tall = abs(w * math.cos(turn)) + abs(h * math.sin(turn)), abs(w * math.sin(turn)) + abs(h * math.cos(turn))
        return x + (w - wide) / 2, y + (h - tall) / 2, x + (w + wide) / 2, y + (h + tall) / 2
    if isinstance(outline, list) and outline:
        xs, ys = [float(v) for p in outline for v in p[0::2]], [float(v) for p in outline for v in p[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    return None
