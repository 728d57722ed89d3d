"""Pictures that nobody labelled: what learns without labels learns from them too; no detector, and nothing that judges, ever sees them."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import BuildRepository, Combine, Import, Relabel, TeachBackbone, TrainDiffusion
from backend.data import combine, dataset, images, importer, labelling, relabel, seen, snapshot
from backend.data.marks import Box
from backend.data.normals import divided
from backend.detection import train
from backend.errors import ConfigError, InputError
from backend.synthesis import sources
from tests import plates

FREE = 5


def pixels(seed: int) -> np.ndarray:
    """Smooth and unlike any other seed's."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC))


def save(path: Path, array: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = BytesIO()
    Image.fromarray(array).save(out, "PNG")
    path.write_bytes(out.getvalue())
    return out.getvalue()


def folder(root: Path, name: str = "unlabelled", divided: bool = True, first: int = 0) -> Path:
    """12 labelled pictures in YOLO's layout, and five more in a folder of that name, one with a label beside it that is not read. With
    another `first` they are other pictures."""
    for i in range(12):
        split = ("train", "train", "val", "test")[i % 4] if divided else "."
        save(root / "images" / split / f"{i}.png", pixels(first + i))
        label = root / "labels" / split / f"{i}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    for i in range(FREE):
        save(root / name / f"lot{i}_{i}.png", pixels(first + 100 + i))
    (root / name / "lot0_0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "data.yaml").write_text("names: [bright]\n")
    return root


def imported(path: Path, **more: Any) -> snapshot.Snapshot:
    config = Import(path=str(path), **{"name": "set", **more})
    run = rundir.create("import", config.to_json())
    rundir.write_json(run / "result.json", importer.run(config, run, plates.silent))
    rundir.set_state(run, "completed")
    return snapshot.read(run)


def free(data: snapshot.Snapshot) -> list[snapshot.Picture]:
    return data.by_split(snapshot.UNLABELLED)


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
@pytest.mark.parametrize("divided", [True, False])
def test_a_folder_of_that_name_is_learnt_from_without_labels(tmp_path: Path, name: str, divided: bool) -> None:
    data = imported(folder(tmp_path / "in", name, divided))
    assert data.head["splits_from"] == ("folders" if divided else "drawn") and data.head["layout"] == "yolo"
    assert data.head["images"][snapshot.UNLABELLED] == len(free(data)) == FREE and sum(data.head["images"].values()) == 12 + FREE
    assert not any(p.boxes for p in free(data)) and all(p.boxes for p in data.pictures if p.split != snapshot.UNLABELLED)
    assert {p.image_id for p in data.learnable(snapshot.UNLABELLED)} == {p.image_id for p in [*data.by_split("train"), *free(data)]}
    assert "5 in a folder called unlabelled" in data.head["explanation"]
    assert not any("without an annotation" in n for n in data.head["notes"])           # they are not called good


def test_no_detector_and_nothing_that_judges_sees_them(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    for i in (0, 1, 4, 5):
        (root / "labels" / "train" / f"{i}.txt").write_text("")                          # good ones, for an anomaly model
    data = imported(root)
    ids = {p.image_id for p in free(data)}
    dataset.yolo_folder(rundir.find_snapshot("set"), tmp_path / "yolo")
    shown = {p.stem for p in (tmp_path / "yolo").rglob("*") if p.suffix in (".png", ".jpg")}
    assert shown and not shown & ids
    good, held = divided(data)
    assert not ids & {p.image_id for p in [*data.learnable(), *sources.good(data), *sources.usable(data), *good, *held]}


def test_what_tells_of_val_or_test_stays_out(tmp_path: Path) -> None:
    """The same picture, nearly the same, of the same unit, and one that is in train already; each is said."""
    root = folder(tmp_path / "in")
    for split in ("val", "test"):
        for path in (root / "images" / split).iterdir():
            path.rename(path.with_name(f"lot9{split}_{path.name}"))
        for path in (root / "labels" / split).iterdir():
            path.rename(path.with_name(f"lot9{split}_{path.name}"))
    held = next((root / "images" / "test").iterdir())
    shutil.copy(held, root / "unlabelled" / "copy.png")
    bright = np.asarray(Image.open(next((root / "images" / "val").iterdir()))).astype(int)
    save(root / "unlabelled" / "brighter.png", np.clip(bright + 6, 0, 255).astype(np.uint8))
    save(root / "unlabelled" / "lot9val_view.png", pixels(500))
    shutil.copy(next((root / "images" / "train").iterdir()), root / "unlabelled" / "known.png")
    data = imported(root, group_pattern=r"(lot\w+)_")
    assert len(free(data)) == FREE and {p.file_name.split("/")[-1] for p in free(data)} == {f"lot{i}_{i}.png" for i in range(FREE)}
    told = next(n for n in data.head["notes"] if "val or test" in n)
    assert all(name in told for name in ("copy.png", "brighter.png", "lot9val_view.png")), told
    assert any("known.png" in n for n in data.head["notes"] if "already" in n)


def listed(root: Path, folder_: Path, *more: str) -> snapshot.Snapshot:
    folder_.mkdir()
    for split, stems in (("train", ("0", "1", "2", *more)), ("val", ("3",)), ("test", ("4", "5"))):
        (folder_ / f"{split}.txt").write_text("\n".join(stems))
    return imported(root, splits=str(folder_))


def test_lists_leave_them_where_they_are(tmp_path: Path) -> None:
    """Elsewhere, what no list names is left out. Where lists name pictures in there, the folder's name says nothing: labels are read."""
    root = folder(tmp_path / "in", divided=False)
    data = listed(root, tmp_path / "lists")
    assert data.head["images"] == {"train": 3, "val": 1, "test": 2, "unlabelled": FREE}
    assert any("in no split" in n for n in data.head["notes"])
    data = listed(root, tmp_path / "more", "lot0_0")
    assert data.head["images"] == {"train": 4, "val": 1, "test": 2}
    assert next(p for p in data.pictures if "lot0_0" in p.file_name).boxes


def test_alone_they_are_a_dataset_as_before(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "in" / "unlabelled" / f"{i}.png", pixels(i))
    data = imported(tmp_path / "in")
    assert not free(data) and snapshot.UNLABELLED not in data.head["images"] and len(data.pictures) == 6


def test_a_stray_picture_beside_a_pile_is_said(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "in" / "unlabelled" / f"{i}.png", pixels(i))
    save(tmp_path / "in" / "overview.png", pixels(50))
    data = imported(tmp_path / "in")
    assert any("No label was found beside" in n and "overview.png" in n for n in data.head["notes"])


def test_labels_reach_the_picture_that_they_name(tmp_path: Path) -> None:
    """COCO lists pictures in there too, of names that others have: no box of theirs goes elsewhere, and none is called missing."""
    images, boxes = [], []
    for i, name in enumerate(("train/0.png", "train/1.png", "val/2.png", "test/3.png", "unlabelled/3.png", "unlabelled/9.png")):
        save(tmp_path / "in" / name, pixels(i))
        images.append(dict(id=i, file_name=name))
        boxes.append(dict(image_id=i, category_id=0, bbox=[i + 1, 1, 9, 9]))
    (tmp_path / "in" / "all.json").write_text(json.dumps(dict(images=images, annotations=boxes, categories=[dict(id=0, name="pit")])))
    data = imported(tmp_path / "in", layout="coco")
    assert {p.file_name: [b.x1 for b in p.boxes] for p in data.pictures if p.split != snapshot.UNLABELLED} == {
        "train/0.png": [1.0], "train/1.png": [2.0], "val/2.png": [3.0], "test/3.png": [4.0]}
    assert len(free(data)) == 2 and not any("without a picture" in n for n in data.head["notes"])


def test_masks_and_made_pictures_in_there_are_no_photographs(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    white = np.zeros((48, 48), np.uint8)
    white[5:20, 5:20] = 255
    for i in range(3):
        save(root / "unlabelled" / f"lot{i}_{i}_mask.png", white)
    save(root / "test" / "unlabelled" / "x.png", pixels(700))
    data = imported(root)
    assert len(free(data)) == FREE and not any("_mask" in p.file_name for p in data.pictures)
    assert any("Masks beside" in n for n in data.head["notes"]) and any("within val or test" in n for n in data.head["notes"])


def test_of_a_content_with_two_names_both_count_and_names_without_a_lot_are_said(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", divided=False)
    for path in [*(root / "images").rglob("*.png"), *(root / "labels").rglob("*.txt")]:
        path.rename(path.with_name(f"lot{900 + int(path.stem) // 4}_{path.name}"))
    data = imported(root, group_pattern=r"(lot\d+)_")
    lot = next(p.file_name for p in data.pictures if p.split == "test").split("/")[-1].split("_")[0]
    shutil.rmtree(root / "unlabelled")
    one = save(root / "unlabelled" / "a_scan.png", pixels(800))
    (root / "unlabelled" / f"{lot}_9.png").write_bytes(one)
    save(root / "unlabelled" / lot / "view.png", pixels(801))
    again = imported(root, group_pattern=r"(lot\d+)_")
    assert [p.file_name for p in free(again)] == [f"unlabelled/{lot}/view.png"]
    assert any("no lot or unit was found" in n and "view.png" in n for n in again.head["notes"])
    assert not free(imported(root, group_pattern=r"(lot\d+)[_/]"))                       # told by the path, without the folder's name


def test_without_one_labelled_picture_that_can_be_used_it_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    for path in (root / "images").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="can be used"):
        imported(root)


# ---- joining a dataset later

def joined(**more: Any) -> snapshot.Snapshot:
    config = Combine(**{"dataset": "set", "name": "more", "unlabelled": "pile", **more})
    return snapshot.read(plates.run_of("combine", lambda run: combine.run(config, run, plates.silent)))


def pile(root: Path) -> snapshot.Snapshot:
    """Seven pictures of another dataset, of which one is a val picture here."""
    for i in range(6):
        save(root / f"{i}.png", pixels(200 + i))
    save(root / "held.png", pixels(2))
    return imported(root, name="pile")


def test_pictures_of_another_dataset_join_without_their_labels(tmp_path: Path) -> None:
    data, other = imported(folder(tmp_path / "in")), pile(tmp_path / "pile")
    more = joined()
    assert len(free(more)) == FREE + 6 and all(not p.boxes and not p.mask for p in free(more))
    assert {p.image_id for p in other.pictures} - {p.image_id for p in more.pictures} == set()        # the val picture was there before
    assert [p for p in more.pictures if p.split != snapshot.UNLABELLED] == [p for p in data.pictures if p.split != snapshot.UNLABELLED]
    assert more.test_set_id == data.test_set_id and more.classes == data.classes
    assert "6 pictures without labels, of 'pile'" in more.head["explanation"]


def test_near_a_val_or_test_picture_they_do_not_join(tmp_path: Path) -> None:
    imported(folder(tmp_path / "in"))
    save(tmp_path / "pile" / "near.png", np.clip(pixels(2).astype(int) + 6, 0, 255).astype(np.uint8))
    save(tmp_path / "pile" / "far.png", pixels(300))
    imported(tmp_path / "pile", name="pile")
    more = joined()
    assert [p.file_name for p in free(more) if "far" in p.file_name or "near" in p.file_name] == ["far.png"]
    assert any("nearly equals" in n for n in more.head["notes"])


def test_a_killed_run_goes_on_with_the_same_pile(tmp_path: Path) -> None:
    imported(folder(tmp_path / "in"))
    pile(tmp_path / "pile")
    whole = joined()
    said, run = rundir.read_json(next(rundir.find("combine")) / "chosen.json"), rundir.create("combine", {})
    rundir.write_json(run / "chosen.json", said)
    save(tmp_path / "other" / "0.png", pixels(900))
    imported(tmp_path / "other", name="pile")                                          # the newest of that name is another by now
    head = combine.run(Combine(dataset="set", name="more", unlabelled="pile"), run, plates.silent)
    assert head["snapshot_id"] == whole.snapshot_id


def test_lots_in_val_or_test_are_kept_out_as_the_import_was_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    for kind in ("images", "labels"):
        for path in [p for p in (root / kind / "test").iterdir()]:
            path.rename(path.with_name(f"lot77_{path.name}"))
    imported(root, group_pattern=r"(lot\d+)_")
    save(tmp_path / "pile" / "lot77_view.png", pixels(600))
    save(tmp_path / "pile" / "lot5_view.png", pixels(601))
    imported(tmp_path / "pile", name="steel, 2024")
    more = joined(unlabelled="steel, 2024")                                            # a name with a comma is one name
    assert [p.file_name for p in free(more) if "view" in p.file_name] == ["lot5_view.png"]
    assert any("same lot or unit" in n for n in more.head["notes"])
    assert snapshot.lot_pattern(rundir.find_snapshot(more.snapshot_id)) == r"(lot\d+)_"


def test_a_generator_that_learnt_from_a_pile_knows_its_pictures(tmp_path: Path) -> None:
    """`few` has joined all pictures of `set`; what was made from it may not go into `set`, whose val and test it knows."""
    data = imported(folder(tmp_path / "in"))
    train = data.by_split("train")
    for split, n in (("train", 3), ("val", 1), ("test", 1)):
        for i in range(n):
            if split == "train":
                shutil.copy(train[i].path, tmp_path / f"{i}.png")
                save_as, content = tmp_path / "few" / "images" / split / f"{i}.png", (tmp_path / f"{i}.png").read_bytes()
                save_as.parent.mkdir(parents=True, exist_ok=True)
                save_as.write_bytes(content)
            else:
                save(tmp_path / "few" / "images" / split / f"{split}{i}.png", pixels(300 + len(split) + i))
            name = f"{i}" if split == "train" else f"{split}{i}"
            (tmp_path / "few" / "labels" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "few" / "labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "few" / "data.yaml").write_text("names: [bright]\n")
    imported(tmp_path / "few", name="few")
    both = joined(dataset="few", unlabelled="set", name="both")
    parent = both.by_split("train")[0].image_id
    with pytest.raises(ConfigError, match="generator may have learned"):
        combine._refuse_stranger(dict(name="made", dataset="both", snapshot_id=both.snapshot_id, items=[dict(parent=parent)]), data)


@pytest.mark.parametrize("more, message", [({"unlabelled": ""}, "Name at least one"), ({"unlabelled": "set"}, "cannot join itself")])
def test_what_cannot_join(tmp_path: Path, more: dict[str, str], message: str) -> None:
    imported(folder(tmp_path / "in"))
    with pytest.raises(ConfigError, match=message):
        joined(**more)


def test_nothing_to_add_is_said(tmp_path: Path) -> None:
    data = imported(folder(tmp_path / "in"))
    shutil.copytree(tmp_path / "in" / "unlabelled", tmp_path / "same")
    imported(tmp_path / "same", name="pile", layout="images")
    with pytest.raises(ConfigError, match="nothing to add"):
        joined(dataset=data.snapshot_id)


# ---- what comes after

def test_once_labelled_a_picture_is_of_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = imported(folder(tmp_path / "in"))
    one, good = free(data)[:2]
    said = {p.image_id: labelling.Labelled(p.image_id, p.file_name, 48, 48, boxes, "run", "", "") for p, boxes in (
        (one, (Box("scratch", 1.0, 2.0, 20.0, 30.0, "person"),)), (good, ()))}
    monkeypatch.setattr(relabel, "labelled", lambda *_: said)
    new = snapshot.read(plates.run_of("relabel", lambda run: relabel.run(Relabel(dataset="set", name="new"), run, plates.silent)))
    splits = {p.image_id: p.split for p in new.pictures}
    assert splits[one.image_id] == splits[good.image_id] == "train" and (new.head["relabelled"], new.head["added"]) == (0, 2)
    assert [b.class_name for p in new.pictures if p.image_id == one.image_id for b in p.boxes] == ["scratch"]
    assert len(free(new)) == FREE - 2 and new.test_set_id == data.test_set_id


def test_a_word_on_one_that_judges_elsewhere_leaves_it_unlabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does one on another view of a test picture's unit, as for pictures that are new."""
    data = imported(folder(tmp_path / "in"))
    other = imported(folder(tmp_path / "other", name="extra", first=1000), name="other")
    more = joined(unlabelled="other")
    test, held, view = data.by_split("test")[0], other.by_split("test")[0], free(data)[0]
    said = {p.image_id: labelling.Labelled(p.image_id, p.file_name, 48, 48, (Box("scratch", 1.0, 2.0, 20.0, 30.0, "person"),), unit, of, "")
            for p, unit, of in ((test, "unit 1", data.snapshot_id), (view, "unit 1", ""), (held, "", other.snapshot_id))}
    monkeypatch.setattr(relabel, "labelled", lambda *_: said)
    new = snapshot.read(plates.run_of("relabel", lambda run: relabel.run(Relabel(dataset="more", name="new"), run, plates.silent)))
    splits = {p.image_id: p.split for p in new.pictures}
    assert splits[view.image_id] == splits[held.image_id] == snapshot.UNLABELLED and len(free(new)) == len(free(more))
    assert (new.head["relabelled"], new.head["added"], new.head["held"]) == (1, 0, 1)


def test_a_model_that_learnt_from_them_knows_them(tmp_path: Path) -> None:
    """They may be test pictures of another dataset."""
    data = imported(folder(tmp_path / "in"))
    run = rundir.create("train-detector", {}, state="completed")
    folder_ = run / ".weights"
    folder_.mkdir()
    rundir.keep_artifact(folder_, run, "weights", dict(key="k", name="first", snapshot_id=data.snapshot_id))
    seen.refuse(run / "weights", {p.image_id: snapshot.UNLABELLED for p in free(data)})
    with pytest.raises(ConfigError, match="knows 1 of the pictures"):
        seen.refuse(run / "weights", {free(data)[0].image_id: "test"})


def test_diffusion_models_and_backbones_learn_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six of train and these five; the repository holds all pictures, since those of val and test are needed to score."""
    from backend.detection import teach
    from backend.diffusion import ddpm
    from backend.teacher import repository

    for module in (teach, ddpm, repository):
        monkeypatch.setattr(module, "cores", lambda: 1)
    monkeypatch.setattr(ddpm, "PREVIEW", 2)
    monkeypatch.setitem(ddpm.PRESETS, "tiny", ddpm.Preset((8, 16, 16, 16), 1, 32, 4, 1, 0.9))
    imported(folder(tmp_path / "in"))
    denoiser = plates.run_of("train-diffusion", lambda run: ddpm.run(TrainDiffusion(dataset="set", name="d"), run, plates.silent))
    features = plates.run_of("build-repository", lambda run: repository.run(BuildRepository(dataset="set", name="r", steps=10), run,
                                                                            plates.silent))
    taught = plates.run_of("teach-backbone", lambda run: teach.run(TeachBackbone(dataset="set", name="b", steps=1, imgsz=64, batch=4), run,
                                                                   plates.silent))
    assert [rundir.read_json(run / "result.json")["images"] for run in (denoiser, taught)] == [6 + FREE, 6 + FREE]
    assert rundir.read_json(features / "result.json")["images"] == 12 + FREE


def test_pictures_of_equal_names_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two exports of one layout: test was judged by its own boxes on the other's pixels. A snapshot of an older program is read so too."""
    data = imported(folder(tmp_path / "in"))
    imported(folder(tmp_path / "other", first=1000), name="other")
    join = Combine(dataset="set", name="both", unlabelled="other")
    for old in (True, False):
        with monkeypatch.context() as m:
            if old:
                m.setattr(snapshot, "_named_once", lambda pictures: pictures)
            run = plates.run_of("combine", lambda run: combine.run(join, run, plates.silent))
            names = [p.file_name for p in snapshot.read(run).pictures]
            assert (len(set(names)) < len(names)) == old
        both = snapshot.read(run)
        assert len({p.file_name for p in both.pictures}) == len(both.pictures) == len(data.pictures) + 12 + FREE
        material = train.from_snapshot(run, tmp_path / f"laid-{old}" / "data")
        for split in ("test", "val", "train"):
            assert [p.file_name for p in both.by_split(split)] == [p.file_name for p in data.by_split(split)]
            for picture in both.by_split(split):
                assert material.keys[picture.file_name] == picture.image_id
                assert np.array_equal(material.load(picture.file_name), np.asarray(images.load(picture.image_id)))


def test_a_lot_that_is_tested_with_is_not_trained_on_by_way_of_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the dataset's own pattern, though nobody said of which unit its pictures are."""
    data = imported(folder(tmp_path / "in"), group_pattern=r"(\d+)\.png$")
    lots = {split: Path(data.by_split(split)[0].file_name).stem for split in ("train", "test")}
    said, box = {}, Box("bright", 1.0, 2.0, 20.0, 30.0, "person")
    for seed, lot in enumerate(lots.values()):
        content = save(tmp_path / "new.png", pixels(500 + seed))
        image_id = images.sha256(content)
        images.keep(content, image_id, "PNG")
        said[image_id] = labelling.Labelled(image_id, f"camera2/{lot}.png", 48, 48, (box,), "", "", "")
    monkeypatch.setattr(relabel, "labelled", lambda *_: said)
    run = plates.run_of("relabel", lambda run: relabel.run(Relabel(dataset="set", name="new"), run, plates.silent))
    new = snapshot.read(run)
    assert new.head["added"] == 1 and f"camera2/{lots['train']}.png" in {p.file_name for p in new.by_split("train")}
    assert [r["reason"] for r in rundir.rows(run, "refused").to_pylist()] == [relabel.VIEW]


def test_a_run_taken_up_again_learns_from_the_dataset_it_began_with(tmp_path: Path) -> None:
    """Though another of that name was imported meanwhile; where its own is gone, the newest has to do."""
    first = imported(folder(tmp_path / "in"))
    run = rundir.create("train-detector", {})
    assert rundir.snapshot_id(rundir.taken_snapshot(run, "set")) == first.snapshot_id
    second = imported(folder(tmp_path / "anew", first=2000))
    assert rundir.snapshot_id(rundir.taken_snapshot(run, "set")) == first.snapshot_id != second.snapshot_id
    assert rundir.snapshot_id(rundir.taken_snapshot(rundir.create("train-detector", {}), "set")) == second.snapshot_id
    shutil.rmtree(next(p for p in rundir.find("import") if rundir.snapshot_id(p) == first.snapshot_id))
    assert rundir.snapshot_id(rundir.taken_snapshot(run, "set")) == second.snapshot_id
