"""Datasets of drawn plates: a snapshot without a file, the same for a seed, and one that trains like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import rundir
from backend.config import DrawPlates
from backend.data import alike, demo, demo_plates, images, shares, snapshot
from backend.data.dataset import yolo_folder
from backend.errors import ConfigError


def silent(**progress: Any) -> None:
    """A report that nobody reads."""


def drawn(**more: Any) -> Path:
    config = DrawPlates(**dict(name="plates", train=8, val=4, test=4, classes="dent, stain") | more)
    run = rundir.create("draw-plates", config.to_json())
    rundir.write_json(run / "result.json", demo_plates.run(config, run, silent))
    rundir.set_state(run, "completed")
    return run


def test_drawn_plates_are_a_dataset_without_a_file(data_folder: Path) -> None:
    run = drawn()
    data = snapshot.read(rundir.find_snapshot("plates"))
    assert data.head["images"] == {"train": 8, "val": 4, "test": 4} and data.classes == ["dent", "stain"]
    assert [len(data.by_split(s)) - sum(p.is_good for p in data.by_split(s)) for s in ("train", "val", "test")] == [6, 3, 3]
    assert not (data_folder / "images").exists() and len({p.image_id for p in data.pictures}) == 16
    for p in data.pictures:
        assert [(b.class_name, b.x1, b.y1, b.x2, b.y2) for b in p.boxes] == sorted(demo.boxes(p.image_id)) and p.split in p.file_name
    assert snapshot.read(drawn(name="again")).snapshot_id == data.snapshot_id != snapshot.read(drawn(seed=1)).snapshot_id
    rare = snapshot.read(drawn(name="rare", good=0.75)).by_split("train")
    assert [p.is_good for p in rare] == [False, True, True, True] * 2 and [p.classes for p in rare if p.boxes] == [{"dent"}, {"stain"}]
    assert demo_plates.run(DrawPlates(name="plates"), run, silent) == data.head, "killed after its end, it says the same"


def test_drawn_plates_can_be_trained_on(data_folder: Path, tmp_path: Path) -> None:
    data = snapshot.read(run := drawn())
    yolo_folder(run, tmp_path / "yolo", shares.ALL)
    files = sorted((tmp_path / "yolo" / "images" / "train").iterdir())
    assert len(files) == 8
    first = data.by_split("train")[0]
    assert np.array_equal(np.asarray(images.decode(first.path.read_bytes(), "x")), np.asarray(images.load(first.image_id)))
    assert first.path == first.path and len(list((data_folder / "images" / "drawn").iterdir())) == 16, "drawn once"


def test_no_plate_nearly_equals_one_of_another_split(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by chance, some do; they are drawn anew."""
    monkeypatch.setattr(alike, "NEAR", 24)                   # of 64 bits: what 128 plates meet by chance, 16 shall meet too
    pictures = snapshot.read(drawn()).pictures
    hashes = {split: [p.phash for p in pictures if p.split == split] for split in ("train", "val", "test")}
    assert [len(h) for h in hashes.values()] == [8, 4, 4]
    for split, own in hashes.items():
        assert not alike.near([(h, h) for h in own], [h for other, some in hashes.items() if other != split for h in some])
    monkeypatch.setattr(alike, "near", lambda pictures, others: set())
    twins = snapshot.read(drawn(name="as they come")).pictures
    assert {p.image_id for p in twins} != {p.image_id for p in pictures}, "some had met"


@pytest.mark.parametrize(("more", "sentence"), [(dict(name=" "), "a name"), (dict(classes="dent, rust"), "No plate is drawn with 'rust'")])
def test_what_cannot_be_drawn_is_said(data_folder: Path, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        drawn(**more)
