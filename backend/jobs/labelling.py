"""Drawing boxes: which pictures wait, what is known of each, what a person drew; to CVAT and back.

    waiting begin             pictures to label; boxes to begin with: a person's own, a dataset's, the model's
    save                      what a person drew (event `label`); no box: the picture shows no defect
    to_cvat from_cvat         a zip of pictures with their boxes; what came back, before anybody takes it over

The recipe `relabel` makes a dataset of it. Everything is read from files at the moment it is asked; knows nothing of pages.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from backend.data import coco, labelling
from backend.errors import ConfigError
from backend.jobs import audit, cells, events, export, house, pictures
from backend.jobs.needs import needs, reading, signed
from backend.store import engineering, labels, queries

MOST = 2000                 # pictures in one zip

KINDS = {"doubtful": "Doubtful pictures", "missed": "Defects that people found", "unusual": "Pictures unlike good parts",
         "rejected": "Rejected pictures"}


@dataclass(frozen=True)
class Back:
    """What came back from CVAT, ready to be taken over."""

    pictures: list[dict[str, Any]]
    changed: int                     # of these other boxes than are known here
    bare: int                        # without any box
    notes: list[str]                 # what a person should know, one sentence each


def waiting(plant: str, source: str, limit: int = 200, again: bool = False) -> pd.DataFrame:
    """`source`: one of KINDS, or a snapshot's id. See store.labels for the columns."""
    if source in KINDS:
        return labels.waiting(house.database(), plant, source, limit, again)
    return labels.of_dataset(house.database(), plant, source, limit, again)


def begin(plant: str, image_id: str, inspection_id: int | None = None, snapshot_id: str = "") -> tuple[list[list[Any]], str]:
    """Boxes to begin with, [kind, x1, y1, x2, y2], and whose they are: person | dataset | model, '' where there are none."""
    if (word := labels.word(house.database(), plant, image_id)) is not None:
        return word, "person"
    if snapshot_id:
        rows = pictures.rows(engineering.labels(house.database(), snapshot_id, [image_id]))
        return _boxes(rows), "dataset" if rows else ""
    if inspection_id is None:
        return [], ""
    rows = pictures.passing(pictures.rows(queries.detections(house.database(), [inspection_id])))
    return _boxes(rows), "model" if rows else ""


def _plain(box: Any) -> list[Any]:
    return [box.class_name, box.x1, box.y1, box.x2, box.y2]


def _boxes(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [[r["class_name"], *(round(float(r[side]), 2) for side in ("x1", "y1", "x2", "y2"))] for r in rows]


@needs("review")
def save(plant: str, found: list[dict[str, Any]], reviewer: str = "", source: str = "drawn") -> str:
    """Write down what a person drew of these pictures: image_id, file_name, width, height, boxes, unit. Returns the id that `undo` takes.
    Raises ConfigError where a box has no kind or no place."""
    opened = house.opened()
    of = labels.datasets_of(house.database(), [str(one["image_id"]) for one in found])
    found = [{**one, "of": of.get(one["image_id"], "")} for one in found]
    plant = _owner(plant, found)
    run_id = events.record("label", dict(pictures=labelling.checked(found), reviewer=signed(reviewer), source=source), plant,
                           signed(reviewer))
    opened.ingest(run_ids=[run_id])
    return run_id


def _owner(plant: str, found: list[dict[str, Any]]) -> str:
    """The plant that a word on these pictures is kept with, whatever was looked at when it was said. A dataset is no plant's: what is drawn
    on it must not go with the demo. Raises ConfigError."""
    owners = {"real" if one["of"] else plant for one in found}
    if len(owners) > 1:
        raise ConfigError("Some of these pictures are of a dataset, others the demo plant's alone. Take them over one after the other.")
    return owners.pop() if owners else plant


def count(plant: str) -> int:
    """Pictures that people of this plant have labelled."""
    return labels.counted(house.database(), plant)


def to_cvat(plant: str, source: str, classes: list[str], again: bool = False) -> tuple[Path, dict[str, int]]:
    """A zip, in a file that lasts an hour, of the pictures of a source (all of a dataset) with the boxes that each begins with; and how
    much is in it."""
    snapshot_id = "" if source in KINDS else source
    rows, said = waiting(plant, source, MOST, again or bool(snapshot_id)), labelling.labelled(plant)
    known = _boxes_of(rows, snapshot_id) | {i: [_plain(b) for b in word.boxes] for i, word in said.items()}
    found = [dict(image_id=r["image_id"], file_name=r["file_name"], width=int(r["width"]), height=int(r["height"]),
                  boxes=known.get(r["image_id"], [])) for r in pictures.rows(rows)]
    audit.write("export", f"{len(found):,} pictures to be labelled elsewhere")
    path = export.temporary()
    return path, coco.write(path, found, classes)


def _boxes_of(rows: pd.DataFrame, snapshot_id: str) -> dict[str, list[list[Any]]]:
    """By image id, the dataset's boxes or the model's."""
    if snapshot_id:
        found = engineering.labels(house.database(), snapshot_id, rows["image_id"].tolist())
    else:
        seen = queries.detections(house.database(), rows["inspection_id"].tolist())
        found = seen[seen["passes"]].merge(rows[["inspection_id", "image_id"]], on="inspection_id")
    return {str(i): _boxes(pictures.rows(boxes)) for i, boxes in found.groupby("image_id")}


def from_cvat(plant: str, stream: BinaryIO, name: str, snapshot_id: str = "") -> Back:
    """Read a zip or JSON that CVAT gave; nothing is taken over yet. Known are the boxes that people drew here, and the dataset's. Raises
    InputError."""
    path = export.temporary()
    try:
        with open(path, "wb") as f:
            shutil.copyfileobj(stream, f)                # it may hold gigabytes of pictures, which nobody reads
        found = coco.Returned.of(cells.ask("returned", str(path), name))
    finally:
        path.unlink(missing_ok=True)
    said = labelling.labelled(plant)
    ids = [one["image_id"] for one in found.pictures]
    known = _boxes_of(pd.DataFrame({"image_id": ids}), snapshot_id) if snapshot_id else {}
    for one in found.pictures:
        if (word := said.get(one["image_id"])) is not None:
            one |= dict(file_name=word.file_name, unit=word.unit)                  # CVAT knows no units, and names were shortened
            known[one["image_id"]] = [_plain(b) for b in word.boxes]
    changed = sum(_differs(one["boxes"], known.get(one["image_id"], [])) for one in found.pictures)
    lost = [f"Left out, since they are none of the pictures taken from here: {len(found.unknown):,} ({', '.join(found.unknown[:3])})."]
    return Back(found.pictures, changed, sum(not one["boxes"] for one in found.pictures), [
        *(f"{r.name}: {r.reason}" for r in found.refused), *(lost if found.unknown else []), *found.notes.lines()])


def _differs(boxes: list[list[Any]], known: list[list[Any]]) -> bool:
    return sorted(map(str, boxes)) != sorted(map(str, known))


reading(globals())
