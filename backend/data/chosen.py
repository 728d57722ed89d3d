"""Items of synthetic sets that are wanted in a dataset, as pictures: decoded, kept, with boxes and mask, parent and donor.

Stands between what `synthesize` leaves on disk and `combine`. What cannot be used is refused with its reason. Knows nothing of who
wants a picture, or of whether it tells of val or test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.data import alike, images
from backend.data.files import Refusal, printable
from backend.data.layouts_synthetic import NOWHERE, SOURCES
from backend.data.marks import MASK_WHITE, Box
from backend.data.snapshot import Picture, Snapshot
from backend.errors import InputError


@dataclass(frozen=True)
class Chosen:
    """An item of a set that is wanted."""

    folder: Path                     # <run>/synthetic
    head: dict[str, Any]
    item: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.folder.parent.name

    @property
    def name(self) -> str:
        """How the snapshot calls the file."""
        return f"{printable(self.head['name'])}/{self.run_id[-6:]}/{self.item['file']}"


def read(chosen: list[Chosen], data: Snapshot, refused: list[Refusal], report: Callable[..., None]) -> Iterator[Picture]:
    """Made pictures, kept under their content's hash; what is in the dataset already, or twice in the sets, is refused."""
    boxes = {p.image_id: p.boxes for p in data.pictures}
    known = {p.image_id: p.file_name for p in data.pictures}
    for done, one in enumerate(chosen):
        if done % 20 == 0:
            report(step=done, total=len(chosen), message="Reading pictures")
        try:
            picture = _picture(one, boxes)
        except InputError as error:
            refused.append(Refusal(one.name, str(error)))
            continue
        if picture.image_id in known:
            refused.append(Refusal(one.name, f"It is the same picture as {known[picture.image_id]}."))
            continue
        known[picture.image_id] = picture.file_name
        yield picture


def _picture(one: Chosen, known: dict[str, tuple[Box, ...]]) -> Picture:
    """Raises InputError."""
    item, path = one.item, one.folder / one.item["file"]
    if not path.exists():
        raise InputError("Its file is missing from the set.")
    content = path.read_bytes()
    image = images.decode(content, item["file"])
    image_id = images.sha256(content)
    images.keep(content, image_id, str(image.format))
    mask = images.keep_mask(white) if (white := _mask(one, image.size)) is not None else ""
    return Picture(image_id, one.name, *image.size, alike.phash(image), _boxes(one, known.get(item["parent"], ())), "train",
                   origin="synthetic", parent=item["parent"], donor=item.get("donor", ""), generator_run=one.run_id, mask=mask)


def _mask(one: Chosen, size: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.bool_]] | None":
    """The mask where it outlines all that is defective; else none, since it would call the rest good."""
    if not one.item["mask"] or not one.item.get("exact", True):
        return None
    path = one.folder / one.item["mask"]
    if not path.exists():
        raise InputError("Its mask is missing from the set.")
    white = np.asarray(images.decode(path.read_bytes(), path.name).convert("L")) > MASK_WHITE
    if white.shape != size[::-1]:
        raise InputError("Its mask is of another size.")
    return white


def _boxes(one: Chosen, parents: tuple[Box, ...]) -> tuple[Box, ...]:
    """As the item lists them. What a box is from, the item says; one that it shares with its parent is from what the parent's is."""
    item = one.item
    if "boxes" not in item:
        raise InputError("The set is an old one that lists no boxes. Make it anew, or import its folder together with the dataset's.")
    if not item["boxes"]:
        raise InputError(NOWHERE)
    source = SOURCES.get(item.get("boxes_from", ""), "mask" if item.get("exact", True) else "box")
    shared = {_place(b.class_name, b.x1, b.y1, b.x2, b.y2): b.source for b in parents}
    return tuple(Box(name, float(x1), float(y1), float(x2), float(y2), shared.get(_place(name, x1, y1, x2, y2), source))
                 for name, x1, y1, x2, y2 in item["boxes"])


def _place(name: str, *corners: float) -> tuple[str, ...]:
    return name, *(f"{value:.2f}" for value in corners)
