"""What people draw: kept, taken back, to CVAT and back, and into a new dataset whose test pictures stay where they were."""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import jobs, rundir
from backend.data import coco, images, labelling, relabel, snapshot
from backend.errors import ConfigError, InputError
from backend.jobs import house
from backend.jobs import labelling as drawing
from tests import plates
from tests import small_plant as plant


@pytest.fixture
def data(data_folder: Path, tmp_path: Path) -> Iterator[snapshot.Snapshot]:
    yield snapshot.read(plates.imported(tmp_path / "in", "plates"))


def said(picture: snapshot.Picture, *boxes: list[Any]) -> dict[str, Any]:
    return dict(image_id=picture.image_id, file_name=picture.file_name, width=picture.width, height=picture.height, boxes=list(boxes))


def kept(seed: int, size: tuple[int, int] = (44, 60)) -> str:
    """A picture among the kept ones that is in no dataset; its id."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, size).astype(np.uint8)).save(out, "PNG")
    image_id = images.sha256(out.getvalue())
    images.keep(out.getvalue(), image_id, "PNG")
    return image_id


def relabelled(**more: Any) -> snapshot.Snapshot:
    config = jobs.Relabel(**{"dataset": "plates", "name": "plates 2", **more})
    return snapshot.read(plates.run_of("relabel", lambda run: relabel.run(config, run, plates.silent)))


def test_a_new_snapshot_has_the_new_boxes_and_the_old_splits(data: snapshot.Snapshot, tmp_path: Path) -> None:
    train, test = data.by_split("train")[0], data.by_split("test")[0]
    new = kept(1)
    near = np.asarray(images.load(test.image_id)).copy()
    near[0, 0] += 1
    out = io.BytesIO()
    Image.fromarray(near).save(out, "PNG")
    twin = images.sha256(out.getvalue())
    images.keep(out.getvalue(), twin, "PNG")
    drawing.save("real", [said(train, ["dent", 1, 2, 20, 21])], "Kim")
    wrong = drawing.save("real", [said(train)], "Kim")
    drawing.save("real", [said(test, ["bright", 3.5, 4, 30, 31])], "Lee")
    drawing.save("real", [dict(image_id=i, file_name=f"{i[:4]}.png", width=60, height=44, boxes=[["dent", -3, 2, 99, 9]])
                          for i in (new, twin)])
    drawing.save("demo", [dict(image_id=kept(2), file_name="x.png", width=60, height=44, boxes=[])], "another plant's")
    other = snapshot.read(plates.imported(tmp_path / "other", "others", seed=1)).by_split("test")[0]
    house.opened().ingest()
    drawing.save("real", [said(other, ["dent", 1, 2, 20, 21])])
    jobs.undo(wrong)
    assert drawing.count("real") == 5

    made = relabelled()
    after = {p.image_id: p for p in made.pictures}
    assert {p.image_id: p.split for p in made.pictures if p.image_id != new} == {p.image_id: p.split for p in data.pictures}
    assert [(b.class_name, b.x1, b.x2) for b in after[train.image_id].boxes] == [("dent", 1, 20)]
    assert [(b.class_name, b.x1, b.source) for b in after[test.image_id].boxes] == [("bright", 3.5, "box")]
    assert after[new].split == "train" and after[new].boxes[0].x1 == 0 and after[new].boxes[0].x2 == 60        # cut at the edge
    assert made.head["relabelled"] == 2 and made.head["added"] == 1 and made.head["refused"] == 1 and twin not in after
    assert other.image_id not in after and f"({other.file_name})" in made.head["notes"][-1]       # it stays in its own dataset
    assert made.classes == ["bright", "dent"] and made.test_set_id != data.test_set_id
    assert rundir.rows(rundir.find_snapshot("plates 2"), "refused").to_pylist()[0]["reason"] == relabel.NEAR
    assert {p for p in made.pictures if p.image_id not in (train.image_id, test.image_id, new)} == \
        {p for p in data.pictures if p.image_id not in (train.image_id, test.image_id)}

    # a killed run goes on with what was said when it began; where no test picture was touched the test set is the same one
    run = rundir.create("relabel", {})
    relabel._taken_up(run, jobs.Relabel(dataset="plates", name="x"))
    drawing.save("real", [said(test, *[[b.class_name, b.x1, b.y1, b.x2, b.y2] for b in test.boxes])])
    assert relabel.run(jobs.Relabel(dataset="plates", name="x"), run, plates.silent)["snapshot_id"] == made.snapshot_id
    assert relabelled().test_set_id == data.test_set_id


def test_without_a_dataset_splits_are_drawn_and_views_of_a_unit_stay_together(data: snapshot.Snapshot) -> None:
    with pytest.raises(ConfigError, match="Nobody has labelled"):
        relabelled(dataset="")
    drawing.save("real", [dict(image_id=kept(i), file_name=f"{i}.png", width=60, height=44, unit=f"u{i // 4}",
                               boxes=[["dent", 1, 1, 9, 9]] if i % 3 else []) for i in range(24)])
    made = relabelled(dataset="")
    splits = {p.file_name: p.split for p in made.pictures}
    assert set(splits.values()) == {"train", "val", "test"} and made.head["images"]["train"] > 12
    assert all(len({splits[f"{4 * u + i}.png"] for i in range(4)}) == 1 for u in range(6))
    assert sum(p.is_good for p in made.pictures) == 8


def test_what_a_labelled_dataset_tests_with_is_never_trained_on_later(data: snapshot.Snapshot) -> None:
    def label(*numbers: int) -> None:
        drawing.save("real", [dict(image_id=kept(i), file_name=f"{i}.png", width=60, height=44, unit=f"u{i // 2}",
                                   boxes=[["dent", 1, 1, 9, 9]] if i % 3 else []) for i in numbers])
    label(*range(24))
    first = {p.file_name: p.split for p in relabelled(dataset="", name="L1").pictures}
    tested = {name for name, split in first.items() if split != "train"}
    label(*range(24, 40))
    label(41)                                                        # its other view comes later

    second = relabelled(dataset="", name="L2", seed=1)
    splits = {p.file_name: p.split for p in second.pictures}
    assert {name: splits[name] for name in first} == first and len(splits) == 41
    assert {splits[f"{i}.png"] for i in range(24, 40)} == {"train", "val", "test"}
    assert second.head["held"] == len(tested) and f"kept there: {len(tested)} (" in second.head["notes"][-1]
    everything = {name for name, split in splits.items() if split != "train"}
    made = relabelled(name="plates 3")                               # the base has none of them
    there = {p.image_id for p in data.pictures}
    assert not everything & {p.file_name for p in made.pictures if p.image_id not in there}
    assert made.head["held"] == len(everything) and f"none is trained on: {len(everything)} (" in made.head["notes"][-1]
    label(40)
    assert {p.file_name: p.split for p in relabelled(dataset="", name="L3").pictures}["40.png"] == splits["41.png"]


def test_a_further_view_of_a_part_in_test_does_not_go_to_train(data: snapshot.Snapshot) -> None:
    views = {split: kept(n) for n, split in enumerate(("train", "val", "test"))}
    for split, image_id in views.items():
        drawing.save("real", [{**said(data.by_split(split)[0]), "unit": split},
                              dict(image_id=image_id, file_name=f"{split}.png", width=60, height=44, boxes=[], unit=split)])
    made = relabelled()
    assert {p.split for p in made.pictures if p.image_id in views.values()} == {"train"} and made.head["added"] == 1
    refused = rundir.rows(rundir.find_snapshot("plates 2"), "refused").to_pylist()
    assert {r["file_name"]: r["reason"] for r in refused} == {"val.png": relabel.VIEW, "test.png": relabel.VIEW}


def test_bad_boxes_are_named(data: snapshot.Snapshot) -> None:
    picture = data.pictures[0]
    for box, problem in ((["", 1, 1, 9, 9], "has no kind"), (["dent", 1, 1, 1.5, 9], "smaller than a pixel"),
                         (["dent", 1, float("nan"), 9, 9], "has no place"), (["dent", 99, 99, 120, 120], "outside the picture")):
        with pytest.raises(ConfigError, match=problem):
            drawing.save("real", [said(picture, box)])
    with pytest.raises(ConfigError, match="no picture"):
        drawing.save("real", [])
    assert drawing.count("real") == 0


# --- CVAT ------------------------------------------------------------------------------------------------------------------------


def as_cvat(path: Path, change: Any) -> io.BytesIO:
    """The zip as CVAT gives it back: other numbers, kinds in another order, no field of ours, frames in a folder; and what a person
    changed there."""
    with zipfile.ZipFile(path) as z:
        content = json.loads(z.read(coco.ANNOTATIONS))
        assert all(f"images/{i['file_name']}" in z.namelist() for i in content["images"])
    kinds = {c["id"]: len(content["categories"]) - n for n, c in enumerate(content["categories"])}
    for one in content["categories"]:
        one["id"] = kinds[one["id"]]
    for one in content["images"]:
        one |= dict(id=one["id"] + 70, file_name=f"images/{one['file_name']}")
        one.pop("sha256")
    for one in content["annotations"]:
        one |= dict(image_id=one["image_id"] + 70, category_id=kinds[one["category_id"]])
    change(content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("annotations/instances_default.json", json.dumps(content))
    out.seek(0)
    return out


def test_a_trip_to_cvat_and_back(data: snapshot.Snapshot) -> None:
    house.opened().ingest()
    rows = drawing.waiting("real", data.snapshot_id)
    first = said(data.by_split("train")[1], ["Kratzer, tief", 1.25, 2.5, 20.75, 21])
    drawing.save("real", [{**first, "unit": "u1"}], "Kim")
    everything = drawing.waiting("real", data.snapshot_id, again=True)
    assert len(rows) == len(everything) == len(drawing.waiting("real", data.snapshot_id)) + 1 == 21
    parts = everything["split"].tolist()
    assert parts == sorted(parts, key=["unlabelled", "train", "val", "test"].index) and len(set(parts)) == 3
    assert all(some["file_name"].is_monotonic_increasing for _, some in everything.groupby("split"))
    path, told = drawing.to_cvat("real", data.snapshot_id, ["bright"])
    assert told == dict(pictures=21, boxes=sum(len(p.boxes) for p in data.pictures), missing=0)

    # nothing changed: every box, kind and picture is what it was
    back = drawing.from_cvat("real", as_cvat(path, lambda content: None), "task.zip", data.snapshot_id)
    known = {r.image_id: sorted(map(str, drawing.begin("real", r.image_id, None, data.snapshot_id)[0])) for r in everything.itertuples()}
    assert {p["image_id"]: sorted(map(str, p["boxes"])) for p in back.pictures} == known and not back.notes

    # a box moved, one turned, one of a new kind, one taken away; a picture that is none of ours
    def change(content: dict[str, Any]) -> None:
        first, second, third = content["annotations"][5:8]
        first["bbox"][0] += 2
        second["attributes"] = dict(rotation=45.0)
        content["categories"].append(dict(id=9, name="burr"))
        third["category_id"] = 9
        content["annotations"].pop()
        content["images"].append(dict(id=1, file_name="theirs.png", width=9, height=9))
    taken = drawing.from_cvat("real", as_cvat(path, change), "task.zip", data.snapshot_id)
    assert "theirs.png" in taken.notes[0] and len(taken.notes) == 1 and len(taken.pictures) == 21
    drawing.save("real", taken.pictures, "Kim", "CVAT")
    assert labelling.labelled("real")[first["image_id"]].unit == "u1", "what it is a view of is kept"
    made = relabelled()
    old, new = ({p.image_id: p for p in s.pictures} for s in (data, made))
    moved = [i for i in old if {b[:5] for b in map(_place, old[i].boxes)} != {b[:5] for b in map(_place, new[i].boxes)}]
    assert len(moved) == 5 and "burr" in made.classes and "Kratzer, tief" in made.classes
    assert {i: p.split for i, p in new.items()} == {i: p.split for i, p in old.items()}
    assert {i: p.file_name for i, p in new.items()} == {i: p.file_name for i, p in old.items()}
    again = drawing.from_cvat("real", as_cvat(path, change), "task.zip", data.snapshot_id)
    assert (back.changed, taken.changed, again.changed) == (0, 4, 0)


def _place(box: Any) -> tuple[Any, ...]:
    return (box.class_name, *(round(v, 1) for v in (box.x1, box.y1, box.x2, box.y2)))


@pytest.mark.parametrize(("content", "problem"), [
    (b"no json", "holds no COCO annotations. In CVAT choose"), (b"{}", "holds no COCO annotations"),
    (b"PK\x03\x04broken", "damaged or cut short"),
    ({"images": [{"id": 1}], "annotations": []}, "'file_name' is missing"), ({"images": [7], "annotations": []}, "cannot be understood"),
    ({"images": [{"id": 1, "file_name": "theirs.png"}], "annotations": []}, "None of its pictures .* for instance theirs.png"),
    ({"images": [], "annotations": []}, "None of its pictures")])
def test_a_file_that_is_none_is_refused_in_a_sentence(data_folder: Path, content: Any, problem: str) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(InputError, match=problem):
        drawing.from_cvat("real", io.BytesIO(raw), "task.json")


def test_too_many_or_too_large_annotations_are_refused_before_they_are_read(
        data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def zipped(n: int) -> Path:
        out = tmp_path / "task.zip"
        with zipfile.ZipFile(out, "w") as z:
            for k in range(n):
                z.writestr(f"{k}.json", json.dumps(dict(images=[dict(id=1, file_name="theirs.png")], annotations=[])))
            z.writestr("a.png", bytes(5000))
        return out

    with pytest.raises(InputError, match="task.zip holds 21 JSON files of .* At most 20 of 200 MB"):
        drawing.from_cvat("real", io.BytesIO(zipped(21).read_bytes()), "task.zip")
    monkeypatch.setattr(coco, "MOST_BYTES", 2000)
    with pytest.raises(InputError, match="None of its pictures"):    # pictures do not count
        coco.read(zipped(20))
    monkeypatch.setattr(coco, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="holds 20 JSON files"):
        coco.read(zipped(20))


def test_pictures_that_cannot_be_used_are_left_out_by_name(data: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "MOST", 4)
    house.opened().ingest()
    path, _ = drawing.to_cvat("real", data.snapshot_id, [])

    def change(content: dict[str, Any]) -> None:
        content["images"][0]["width"] = 30
        content["annotations"] = [dict(id=1, image_id=72, category_id=5, bbox=[1, 1, 5, 5]),
                                  dict(id=2, image_id=73, category_id=1, bbox=[1, 1]),
                                  dict(id=3, image_id=74, category_id=1, segmentation=[[1, 1, 9, 1, 9, 8]])]
        content["categories"] = [dict(id=1, name="bright")]
    back = drawing.from_cvat("real", as_cvat(path, change), "task.zip")
    assert [p["boxes"] for p in back.pictures] == [[["bright", 1.0, 1.0, 9.0, 8.0]]]
    assert [w in " ".join(back.notes) for w in ("picture was scaled", "not in the file's list", "label without a box")] == [True] * 3


def test_what_waits_begins_with_the_model_s_boxes(data_folder: Path) -> None:
    plant.model("m1", {"pits": 0.5})
    ids = plant.add(plant.batch([]), [dict(boxes=[("pits", 0.9)]), dict(boxes=[("pits", 0.45)]), dict(boxes=[])])
    house.opened().ingest()
    jobs.record("review", dict(inspection_id=ids[2], verdict="defective", class_name="", reviewer="Kim"))
    assert drawing.waiting("real", "doubtful")["inspection_id"].tolist() == [ids[1], ids[0]]
    assert drawing.waiting("real", "missed")["inspection_id"].tolist() == [ids[2]]
    first = drawing.waiting("real", "rejected").iloc[0]
    assert drawing.begin("real", first["image_id"], ids[0]) == ([["pits", 10.0, 10.0, 30.0, 40.0]], "model")
    assert drawing.to_cvat("real", "rejected", [])[1] == dict(pictures=0, boxes=0, missing=1)              # its file is not here
    drawing.save("real", [dict(image_id=first["image_id"], file_name="a", width=100, height=100, boxes=[])], "Kim")
    assert drawing.begin("real", first["image_id"], ids[0]) == ([], "person")
    assert drawing.waiting("real", "rejected").empty and len(drawing.waiting("real", "rejected", again=True)) == 1
    with pytest.raises(ConfigError):
        from backend.store import labels
        labels.waiting(house.database(), "real", "odd", 5)


def test_a_later_word_forgets_neither_the_unit_nor_where_the_picture_is_from(data: snapshot.Snapshot) -> None:
    """Corrected in a dataset, or by way of CVAT, nobody speaks of units."""
    new = kept(3)
    one = dict(image_id=new, file_name="a.png", width=60, height=44, boxes=[["dent", 1, 2, 20, 21]], unit="part 17")
    drawing.save("real", [one], "Kim")
    made = relabelled()
    house.opened().ingest()
    assert any(p.image_id == new for p in made.by_split("train"))
    undone = drawing.save("real", [one | dict(unit="", boxes=[])], "Lee")
    word = labelling.labelled("real")[new]
    assert (word.unit, word.of, word.boxes, word.run_id) == ("part 17", "", (), undone)


def test_a_dataset_can_be_corrected_without_what_was_labelled_elsewhere(data: snapshot.Snapshot) -> None:
    """Of another product, perhaps."""
    house.opened().ingest()
    train = data.by_split("train")[0]
    drawing.save("real", [said(train, ["dent", 1, 2, 20, 21])])
    drawing.save("real", [dict(image_id=kept(4), file_name="leather.png", width=60, height=44, boxes=[["scar", 1, 2, 20, 21]])])
    alone, both = relabelled(new=False), relabelled(name="plates 3")
    assert (alone.head["relabelled"], alone.head["added"], alone.classes) == (1, 0, ["bright", "dent"])
    assert (both.head["added"], both.classes) == (1, ["bright", "dent", "scar"])
    assert relabelled(dataset="", name="alone", new=False).head["added"] == 1, "without a dataset they are all there is"


def test_no_defect_is_believed_where_a_mask_says_otherwise(data: snapshot.Snapshot) -> None:
    picture = replace(data.by_split("train")[0], boxes=(), mask="m")
    word = labelling.Labelled(picture.image_id, picture.file_name, picture.width, picture.height, (), "", "", "run")
    notes: list[str] = []
    assert not picture.is_good and relabel._anew(picture, {picture.image_id: word}, notes).is_good and notes == [picture.file_name]
    assert relabel._anew(picture, {}, notes) == picture


def test_a_word_on_a_dataset_is_kept_with_the_real_plant_whoever_is_looked_at(data: snapshot.Snapshot) -> None:
    """By way of CVAT the page may stand on the demo's pictures when labels of a dataset come back."""
    house.opened().ingest()
    one = data.by_split("train")[0]
    drawing.save("demo", [said(one)])
    assert (drawing.count("demo"), drawing.count("real")) == (0, 1)
    with pytest.raises(ConfigError, match="Some of these pictures are of a dataset, others the demo plant's"):
        drawing.save("demo", [said(one), dict(image_id="demo:1:2a:1:good", file_name="x", width=9, height=9, boxes=[])])
