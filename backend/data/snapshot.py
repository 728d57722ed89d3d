"""A dataset as it was on one day, never changed again: pictures by content, boxes, splits.

The directory of a run that imports or combines holds `manifest.json` (classes, and for each picture its content's hash, split,
origin, boxes and mask, in one order), `snapshot.json` (what a person wants to know) and parts for the store. The snapshot's id is
the manifest's SHA-256, first 16 digits: names and dates are not in it, so the same content has the same id, and anybody can check it.
Knows nothing of layouts or of how splits came about.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from backend import rundir
from backend.data.files import Refusal
from backend.data.marks import Box
from backend.errors import NotFoundError

UNLABELLED = "unlabelled"          # the split of pictures that nobody labelled: learnt from without labels, never shown to a detector


@dataclass(frozen=True)
class Picture:
    """One picture of a snapshot with its boxes."""

    image_id: str
    file_name: str
    width: int
    height: int
    phash: str
    boxes: tuple[Box, ...] = ()
    split: str = ""
    group_id: str = ""
    origin: str = "real"
    parent: str = ""
    mask: str = ""                     # id of its mask among the kept images (`images.load_mask`); '' where no layout gave one
    generator_run: str = ""            # the run that made it, where it is synthetic and that is known
    donor: str = ""                    # of a synthetic one: the real picture whose defect was set in

    @property
    def classes(self) -> set[str]:
        return {b.class_name for b in self.boxes}

    @property
    def judges(self) -> bool:
        """A model is judged by it: it must not be learnt from."""
        return self.split in ("val", "test")

    @property
    def is_good(self) -> bool:
        """Nothing says that it shows a defect. Where nobody looked for one, it may all the same."""
        return not self.boxes and not self.mask

    @property
    def path(self) -> Path:
        """Where its bytes are; a drawn one gets a file now. Raises NotFoundError."""
        from backend.data import images  # Pillow: the dashboard and a worker that starts read snapshots too

        path = images.drawn(self.image_id) if self.image_id.startswith("demo:") else images.path_of(self.image_id)
        if path is None:
            raise NotFoundError(f"The picture {self.file_name} of this dataset is missing from the data folder. Import the dataset again.")
        return path


@dataclass(frozen=True)
class Snapshot:
    """A snapshot read back: `head` is snapshot.json."""

    head: dict[str, Any]
    pictures: list[Picture]
    images: pa.Table                   # records.SCHEMAS["snapshot_images"]
    labels: pa.Table                   # records.SCHEMAS["labels"]
    classes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", list(self.head["classes"]))

    @property
    def snapshot_id(self) -> str:
        return str(self.head["snapshot_id"])

    @property
    def test_set_id(self) -> str:
        """What its models are judged by, see `rundir.test_set_id`."""
        return str(self.head.get("test_set_id") or rundir.test_set_of([_entry(p) for p in self.pictures]))

    def by_split(self, split: str) -> list[Picture]:
        """Pictures of one split, by file name."""
        return sorted((p for p in self.pictures if p.split == split), key=lambda p: p.file_name)

    def learnable(self, *splits: str) -> list[Picture]:
        """Real pictures of train (and of further `splits`) whose content is in neither val nor test, each content once: to learn
        from without labels. What a generator has made tells another one nothing of the surface."""
        kept = {p.image_id for p in self.pictures if p.judges}
        found = {p.image_id: p for p in self.pictures if p.split in ("train", *splits) and p.origin == "real" and p.image_id not in kept}
        return [found[i] for i in sorted(found)]


def write(run_dir: Path, pictures: list[Picture], classes: list[str], refused: list[Refusal], about: dict[str, Any]) -> dict[str, Any]:
    """Write manifest, parts and snapshot.json; returns what stands in snapshot.json. `about`: name, layout, explanation, seed ..."""
    pictures = sorted(_named_once(pictures), key=lambda p: json.dumps(_entry(p)))
    entries = [_entry(p) for p in pictures]
    manifest = json.dumps(dict(classes=classes, images=entries), separators=(",", ":")).encode()
    snapshot_id = hashlib.sha256(manifest).hexdigest()[:16]
    created_at = rundir.now()
    counts = Counter(p.split for p in pictures)
    head = dict(snapshot_id=snapshot_id, **about, created_at=created_at, classes=classes, counts=box_counts(pictures, classes),
                images={s: counts[s] for s in ("train", "val", "test", *([UNLABELLED] if counts[UNLABELLED] else []))},
                labels=sum(len(p.boxes) for p in pictures), refused=len(refused), test_set_id=rundir.test_set_of(entries))
    rundir.write_bytes(run_dir / "manifest.json", manifest)
    # Numbered parts: an import that was interrupted and starts again replaces its own.
    rundir.write_part(run_dir, "snapshots", [dict(
        snapshot_id=snapshot_id, name=about["name"], layout=about["layout"], created_at=datetime.fromisoformat(created_at), classes=classes,
        seed=about["seed"], splits_from=about["splits_from"], images=len(pictures), labels=head["labels"], refused=len(refused),
        test_set_id=head["test_set_id"])], 1)
    rundir.write_part(run_dir, "snapshot_images", [dict(
        snapshot_id=snapshot_id, image_id=p.image_id, file_name=p.file_name, split=p.split, origin=p.origin, parent=p.parent,
        generator_run=p.generator_run, width=p.width, height=p.height, group_id=p.group_id, phash=p.phash) for p in pictures], 1)
    rundir.write_part(run_dir, "labels", [dict(
        snapshot_id=snapshot_id, image_id=p.image_id, class_name=b.class_name, x1=b.x1, y1=b.y1, x2=b.x2, y2=b.y2, source=b.source)
        for p in pictures for b in p.boxes], 1)
    rundir.write_part(run_dir, "refused", [dict(file_name=r.name, reason=r.reason) for r in refused], 1)
    rundir.write_json(run_dir / "snapshot.json", head)
    return head


def _named_once(pictures: list[Picture]) -> list[Picture]:
    """The same, no two of one name: truth, answers and pixels are told apart by it. A dataset's own names are, but another dataset's
    pictures may join, or a camera's that counts from 0001 each day. What models are judged by keeps its name, then what they learn from."""
    order = ("test", "val", "train", UNLABELLED)
    found, taken, again = list(pictures), set[str](), Counter[str]()
    for k in sorted(range(len(found)), key=lambda k: (order.index(found[k].split) if found[k].split in order else len(order), k)):
        name = found[k].file_name
        while name in taken:
            again[found[k].file_name] += 1
            name = f"{found[k].file_name} (again{f' {n}' if (n := again[found[k].file_name]) > 1 else ''})"
        taken.add(name)
        if name != found[k].file_name:
            found[k] = replace(found[k], file_name=name)
    return found


def _entry(p: Picture) -> dict[str, Any]:
    """A picture as the manifest has it, with mask and donor if it has them. The file's name is left out: content decides."""
    boxes = sorted([b.class_name, *(round(v, 3) for v in (b.x1, b.y1, b.x2, b.y2)), b.source] for b in p.boxes)
    more = {k: v for k, v in (("mask", p.mask), ("donor", p.donor)) if v}
    return dict(split=p.split, image_id=p.image_id, origin=p.origin, parent=p.parent, boxes=boxes, **more)


def box_counts(pictures: list[Picture], classes: list[str]) -> dict[str, dict[str, int]]:
    """Boxes by split and class, every class named."""
    found = Counter((p.split, b.class_name) for p in pictures for b in p.boxes)
    return {s: {c: found[s, c] for c in classes} for s in ("train", "val", "test")}


def ancestors(snapshot_id: str) -> set[str]:
    """This snapshot and those that it was combined or relabelled from, as far as they are here."""
    found = set[str]()
    try:
        while snapshot_id and snapshot_id not in found:
            found.add(snapshot_id)
            head = rundir.read_json(rundir.find_snapshot(snapshot_id) / "snapshot.json")
            snapshot_id = str(head.get("combined_from") or head.get("relabelled_from") or "")
    except NotFoundError:
        pass
    return found


def lot_pattern(snapshot_run: Path) -> str | None:
    """The pattern by which the import told lots or units in file names; a dataset made of another has it from the one it began with."""
    head = rundir.read_json(snapshot_run / "snapshot.json")
    try:
        while before := head.get("combined_from") or head.get("relabelled_from"):
            snapshot_run = rundir.find_snapshot(before)
            head = rundir.read_json(snapshot_run / "snapshot.json")
    except NotFoundError:                                                                # taken away since; its lots are forgotten
        return None
    pattern = rundir.read_json(snapshot_run / "job.json")["config"].get("group_pattern")
    return str(pattern) if pattern else None


def written(run_dir: Path) -> dict[str, Any] | None:
    """What stands in the snapshot.json of a run that was killed after it, before it could say so: the snapshot is whole."""
    path = run_dir / "snapshot.json"
    return dict(rundir.read_json(path)) if path.exists() else None


def read(run_dir: Path) -> Snapshot:
    """The snapshot that a run made, an import or a combination. Boxes come from the manifest, picture by picture."""
    head = rundir.read_json(run_dir / "snapshot.json")
    manifest = rundir.read_json(run_dir / "manifest.json")
    table = rundir.rows(run_dir, "snapshot_images")
    pictures = []
    for row, entry in zip(table.to_pylist(), manifest["images"], strict=True):
        assert row["image_id"] == entry["image_id"], "manifest and parts are written in one order"
        kept = {k: row[k] for k in ("image_id", "file_name", "width", "height", "phash", "split", "group_id", "origin", "parent",
                                    "generator_run")}
        boxes, more = tuple(Box(*b) for b in entry["boxes"]), {k: entry.get(k, "") for k in ("mask", "donor")}
        pictures.append(Picture(boxes=boxes, **more, **kept))
    return Snapshot(head, _named_once(pictures), table, rundir.rows(run_dir, "labels"))
