"""The datasets of the distillation benchmark: how each is imported, which arms and seeds are asked of it, and its true boxes.

Truth is a folder of Pascal VOC files, since the published scorer reads those. NEU-DET brings them. Of magnetic-tile there are
masks only; what the product made of them (a box around each connected white region of 4 pixels or more, of the class of its
folder) is written into the benchmark's data folder, as boxes of the locked list's pictures, good ones with none.
"""

import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from backend.data import snapshot
from backend.evaluation.detection import Truth
from tests.benchmarks.record import SHARED


@dataclass(frozen=True)
class Dataset:
    """`name` is its name in the product, `suffix` that of its results, `prefix` that of its lists."""

    name: str
    folder: Path
    images: Path
    prefix: str
    suffix: str
    about: str
    arms: tuple[str, ...] = ()           # none: every one
    seeds: tuple[int, ...] = (0, 1, 2)
    annotations: Path | None = None      # none: written from the snapshot

    @property
    def test(self) -> Path:
        """The locked list."""
        return self.folder / "splits" / f"{self.prefix}test.txt"

    def words(self) -> tuple[str, ...]:
        """Of the command that imports it."""
        prefix = ("--split-prefix", self.prefix) if self.prefix else ()
        return (str(self.folder), "--name", self.name, "--splits", str(self.folder / "splits"), *prefix)


NEU = SHARED / "data" / "NEU-DET"
TILE = SHARED / "data" / "magnetic-tile"
SETS = {s.name: s for s in (
    Dataset("neu-det", NEU, NEU / "IMAGES", "", "", "NEU-DET, its lists: 1,260 train, 180 val, 360 test", annotations=NEU / "ANNOTATIONS"),
    Dataset("magnetic-tile", TILE, TILE, "det-", "-tile",
            "magnetic-tile, its det- lists: 800 train, 143 val, 401 test, of which 571, 95 and 286 are good; boxes from its masks",
            ("plain", "self", "ddpm-taught", "ddpm-distilled", "ddpm-taught-distilled"), (0,)),
)}


def write_truth(import_run: Path, folder: Path) -> Path:
    """True boxes of the test pictures of an imported snapshot, as VOC files by stem. The folder appears when it is whole."""
    half = folder.with_name(f".{folder.name}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    for picture in snapshot.read(import_run).by_split("test"):
        root = ET.Element("annotation")
        for box in picture.boxes:
            mark = ET.SubElement(root, "object")
            ET.SubElement(mark, "name").text = box.class_name
            corners = ET.SubElement(mark, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (box.x1, box.y1, box.x2, box.y2), strict=True):
                ET.SubElement(corners, side).text = str(value)
        path = half / f"{Path(picture.file_name).stem}.xml"
        assert not path.exists(), f"two test pictures have the stem of {picture.file_name}, and the scorer goes by stems"
        ET.ElementTree(root).write(path)
    return half.rename(folder)


def true_boxes(annotations: Path, listing: Path) -> Truth:
    """The true boxes of a list, by stem, read as the published scorer reads them."""
    stems = [Path(line).stem for line in listing.read_text().split()]
    return {stem: [_box(mark) for mark in ET.parse(annotations / f"{stem}.xml").getroot().iter("object")] for stem in stems}


def _box(mark: ET.Element) -> tuple[str, list[float]]:
    x1, y1, x2, y2 = (float(mark.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
    return mark.findtext("name", ""), [x1, y1, x2 - x1, y2 - y1]
