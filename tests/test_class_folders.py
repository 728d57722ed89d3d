"""The layout of class folders: read where it is asked for, recognised only where nothing else can be meant."""

from pathlib import Path

import pytest

from backend.data import snapshot
from backend.data.catalog import Catalog
from backend.data.marks import Box, look
from backend.errors import InputError
from tests import small_classes
from tests.test_catalog import jpeg, mask, picture, read

FOLDERS = "class-folders"


def classes(found: Catalog) -> dict[str, list[str]]:
    return {r.name: [m.class_name for m in r.marks] for r in found.records}


def many(*names: str) -> dict[str, bytes | str]:
    return {n: picture(i) for i, n in enumerate(names)}


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_folder_is_a_class(tmp_path: Path, as_zip: bool) -> None:
    found = read(tmp_path, many("set/scratch/1.png", "set/rolled-in scale/deep/er/2.png", "set/Without-Defect/3.png", "set/OK/4.png"),
                 FOLDERS, as_zip)
    assert found.layout == FOLDERS and found.classes == ["rolled-in scale", "scratch"]
    assert classes(found) == {"set/scratch/1.png": ["scratch"], "set/rolled-in scale/deep/er/2.png": ["rolled-in scale"],
                              "set/Without-Defect/3.png": [], "set/OK/4.png": []}
    assert found.explanation.startswith("Read as a folder for each class: 4 pictures of 2 classes, 2 of good parts.")
    [scratch] = [r for r in found.records if r.name == "set/scratch/1.png"]
    assert look(scratch.marks, (60, 40), scratch.name, found.notes) == ([Box("scratch", 0, 0, 60, 40, "image")], None)


def test_splits_and_plain_folders_are_passed_over(tmp_path: Path) -> None:
    found = read(tmp_path, many("d/train/pit/images/1.png", "d/train/good/2.png", "d/valid/pit/3.png", "d/test/crack/Imgs/4.png",
                                "d/5.png"), FOLDERS)
    assert classes(found) == {"d/train/pit/images/1.png": ["pit"], "d/train/good/2.png": [], "d/valid/pit/3.png": ["pit"],
                              "d/test/crack/Imgs/4.png": ["crack"]}
    assert {r.split for r in found.records} == {"train", "val", "test"}
    assert found.notes.lines() == ["Pictures in no folder of a class, left out: 1 (d/5.png)."]


def test_masks_beside_pictures_are_no_pictures(tmp_path: Path) -> None:
    found = read(tmp_path, {"blow/Imgs/1.jpg": jpeg(), "blow/Imgs/1.png": mask((5, 5, 20, 20)), "free/Imgs/2.jpg": jpeg(),
                            "free/Imgs/2.png": mask()}, FOLDERS)
    assert classes(found) == {"blow/Imgs/1.jpg": ["blow"], "free/Imgs/2.jpg": []}
    assert found.notes.lines()[0].startswith("Masks beside pictures, left out")


def test_one_class_alone(tmp_path: Path) -> None:
    assert classes(read(tmp_path, many("pit/1.png", "pit/2.png"), FOLDERS)) == {"pit/1.png": ["pit"], "pit/2.png": ["pit"]}


def test_no_folder_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not look like pictures in a folder for each class"):
        read(tmp_path, many("1.png", "2.png"), FOLDERS)


@pytest.mark.parametrize(("names", "layout"), [
    (["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"], FOLDERS),
    (["x/train/a/1.png", "x/train/b/2.png", "x/val/b/4.png", "x/val/a/3.png"], FOLDERS),
    (["a/1.png", "b/2.png", "good/3.png"], "images"),                                            # lots, cameras, days?
    (["train/a/1.png", "train/b/2.png", "test/a/3.png"], "images"),                              # not the same folders
    (["train/a/1.png", "test/a/3.png"], "images"),                                               # one folder is no choice
    (["train/a/1.png", "train/b/2.png"], "images"),                                              # nothing to test on
    (["train/images/1.png", "train/masks/2.png", "test/images/3.png", "test/masks/4.png"], "images"),
    (["train/left/1.png", "train/right/1.png", "test/left/2.png", "test/right/2.png"], "images"),      # pairs
    (["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png", "extra.png"], "images"),
    (["train/a/1.png", "train/b/deep/2.png", "test/a/3.png", "test/b/4.png"], "images"),
    (["x/train/a/1.png", "x/train/b/2.png", "y/test/a/3.png", "y/test/b/4.png"], "images"),
    (["train/good/1.png", "train/pit/2.png", "test/good/3.png", "test/pit/4.png"], "mvtec"),
    (["1.png", "2.png"], "images")])
def test_recognised_only_where_nothing_else_is_meant(tmp_path: Path, names: list[str], layout: str) -> None:
    assert read(tmp_path, many(*names)).layout == layout


def test_a_person_is_told_that_folders_may_be_classes(tmp_path: Path) -> None:
    said = "If each of its 2 folders is a class, choose the layout class-folders."
    assert read(tmp_path / "a", many("in/pit/1.png", "in/hole/2.png")).explanation.endswith(said)
    for i, names in enumerate((("1.png", "2.png"), ("in/1.png", "in/2.png"), ("train/1.png", "test/2.png"))):
        assert "class-folders" not in read(tmp_path / f"b{i}", many(*names)).explanation
    assert "class-folders" not in read(tmp_path / "c", many("pit/1.png", "hole/2.png"), "images").explanation


def test_labels_come_before_folders(tmp_path: Path) -> None:
    """train and test with the same folders, but YOLO labels beside the pictures, or masks: those say more."""
    names = ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    labels = {n.replace(".png", ".txt"): "0 0.5 0.5 0.2 0.2\n" for n in names}
    assert read(tmp_path / "y", {**many(*names), **labels, "classes.txt": "pit\n"}).layout == "yolo"
    pairs = {n.replace(".png", ".jpg"): jpeg() for n in names} | {n: mask((1, 1, 9, 9)) for n in names}
    assert read(tmp_path / "m", pairs).layout == "mask-beside"


def test_a_snapshot_of_class_folders(data_folder: Path, tmp_path: Path) -> None:
    counts = {"train": 3, "test": 2}
    run = small_classes.imported(small_classes.drawn(tmp_path / "in", ("spot", "stripe"), counts), layout="auto")
    data = snapshot.read(run)
    assert data.head["layout"] == FOLDERS and data.classes == ["spot", "stripe"] and len(data.pictures) == 10
    height, width = small_classes.SIZE
    for p in data.pictures:
        assert p.boxes == (Box(p.file_name.split("/")[1], 0.0, 0.0, float(width), float(height), "image"),)
    assert set(data.labels["source"].to_pylist()) == {"image"}
