"""The recipe from a folder to an immutable snapshot: splits, duplicates, what is written, and the real sets."""

import hashlib
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from backend import rundir
from backend.config import Import
from backend.data import alike, dataset, images, importer, shares, snapshot, splits
from backend.data.shares import Share
from backend.errors import Canceled, ConfigError, InputError

UNLABELLED = f"{importer.NO_DEFECT}."
REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))


def imported(path: Path | str, **more: Any) -> tuple[dict[str, Any], Path]:
    config = Import(path=str(path), **{"name": "set", **more})
    run = rundir.create("import", config.to_json())
    return importer.run(config, run, quiet), run


def quiet(*, step: int, total: int, message: str = "") -> None:
    """A report that nobody reads, as strict about its arguments as the worker's."""
    assert 0 <= step <= total


def pixels(seed: int) -> np.ndarray:
    """Smooth and unlike any other seed's, so that only what is meant to be alike is."""
    small = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC))


def save(path: Path, array: np.ndarray, form: str = "PNG", **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = BytesIO()
    Image.fromarray(array).save(out, form, **more)
    path.write_bytes(out.getvalue())


def voc(root: Path, name: str, array: np.ndarray, *classes: str) -> None:
    save(root / f"{name}.png", array)
    objects = "".join(f"<object><name>{c}</name><bndbox><xmin>{4 + i}</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>"
                      for i, c in enumerate(classes))
    (root / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")


def write_lists(folder: Path, **lists: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, entries in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{e}\n" for e in entries))
    return folder


# ---- splits

def test_lists_take_stems_names_and_paths_and_leave_the_rest_out(tmp_path: Path) -> None:
    for i in range(6):
        voc(tmp_path / "in" / "a", f"p.{i}", pixels(i), "pit")
    lists = write_lists(tmp_path / "lists", **{"det-train": ["p.0", "", "a/p.1"], "det-val": ["p.2.png"], "det-test": ["a/p.3.png"]})
    head, run = imported(tmp_path / "in", splits=str(lists), split_prefix="det-")
    assert head["splits_from"] == "lists" and head["images"] == {"train": 2, "val": 1, "test": 1}
    assert any(n.startswith("Pictures in no split, left out: 2 (a/p.4.png, a/p.5.png)") for n in head["notes"])
    assert len(list((tmp_path / "data" / "images").rglob("*.png"))) == 4


@pytest.mark.parametrize(("lists", "message"), [
    (dict(train=["p0", "x1", "x2", "x3", "x4"]), "not in the data: x1, x2, x3 and 1 more"),
    (dict(train=["p0", "same"]), "fit more than one picture; write more of the path: same"),
    (dict(train=["p0"], test=["p0.png"]), "put one picture into two splits: p0.png"),
    (dict(other=["p0"]), "There is no train.txt, val.txt or test.txt")])
def test_lists_that_do_not_fit_are_an_error(tmp_path: Path, lists: dict[str, list[str]], message: str) -> None:
    for name in ("p0", "a/same", "b/same"):
        save(tmp_path / "in" / f"{name}.png", pixels(len(name)))
    with pytest.raises(InputError, match=message):
        imported(tmp_path / "in", splits=str(write_lists(tmp_path / "lists", **lists)))


def test_a_listed_picture_that_is_damaged_is_refused_not_unknown(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", pixels(i))
    (tmp_path / "in" / "3.png").write_bytes(b"damaged")
    head, _ = imported(tmp_path / "in", splits=str(write_lists(tmp_path / "lists", train=["0", "3"], val=["1"], test=["2"])))
    assert head["refused"] == 1 and head["images"] == {"train": 1, "val": 1, "test": 1}


def test_what_was_not_given_is_drawn_from_train_and_said(tmp_path: Path) -> None:
    for i in range(40):
        save(tmp_path / "in" / ("train" if i < 30 else "test") / "good" / f"{i}.png", pixels(i))
    head, run = imported(tmp_path / "in", seed=3)
    assert head["splits_from"] == "folders" and head["images"] == {"train": 26, "val": 4, "test": 10}
    assert any("No val split was given: 15% of train became val, drawn with seed 3" in n for n in head["notes"])
    assert {p.file_name.split("/")[0] for p in snapshot.read(run).by_split("val")} == {"train"}


@given(st.lists(st.tuples(st.integers(0, 30), st.sets(st.sampled_from("abc"))), min_size=1, max_size=200), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_drawn_splits_keep_groups_whole_and_repeat(pictures: list[tuple[int, set[str]]], seed: int) -> None:
    groups, classes = [f"g{g}" for g, _ in pictures], [c for _, c in pictures]
    drawn = splits.draw(groups, classes, splits.SHARES, seed)
    assert drawn == splits.draw(groups, classes, splits.SHARES, seed)
    assert len(set(zip(groups, drawn, strict=True))) == len(set(groups))
    if len(set(groups)) >= 3:
        assert set(drawn) == set(splits.SPLITS)


def test_drawn_shares_hold_for_every_class_and_the_seed_matters() -> None:
    classes = [{"rare"}] * 40 + [{"common"}] * 400 + [set()] * 200
    groups = [f"g{i:03d}" for i in range(len(classes))]
    drawn = splits.draw(groups, classes, splits.SHARES, 0)
    for kind, n in (({"rare"}, 40), ({"common"}, 400), (set(), 200)):
        for split, share in splits.SHARES.items():
            got = sum(s == split and c == kind for s, c in zip(drawn, classes, strict=True))
            assert abs(got - share * n) <= 2, (kind, split, got)
    assert drawn != splits.draw(groups, classes, splits.SHARES, 1)


# ---- alike pictures

def test_the_same_scene_at_another_exposure_is_one_group_and_others_are_not(tmp_path: Path) -> None:
    for i in range(12):
        for exposure in (1.0, 0.7, 0.4):
            save(tmp_path / "in" / f"{i}-{exposure}.png", (pixels(i) * exposure).astype(np.uint8))
    head, run = imported(tmp_path / "in")
    data = snapshot.read(run)
    groups = {p.file_name.split("-")[0]: p.group_id for p in data.pictures}
    assert all(groups[p.file_name.split("-")[0]] == p.group_id for p in data.pictures) and len(set(groups.values())) == 12
    assert len({(p.group_id, p.split) for p in data.pictures}) == 12 and all(head["images"].values())


def test_near_pairs_agree_with_counting_bits_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = np.unique(np.concatenate([(base := rng.integers(0, 2**63, 40, np.uint64)), base ^ np.uint64(0b10110), base ^ np.uint64(0x1F)]))
    expected = {(i, j) for i, a in enumerate(values) for j, b in enumerate(values) if (int(a) ^ int(b)).bit_count() <= alike.NEAR}
    assert set(zip(*(x.tolist() for x in alike.near_pairs(values)), strict=True)) == expected > {(i, i) for i in range(len(values))}


def test_thousands_of_hashes_are_grouped() -> None:
    values = np.random.default_rng(1).integers(0, 2**63, 5_000, np.uint64)
    found = alike.groups([images.sha256(str(i).encode()) for i in range(len(values))], [f"{v:016x}" for v in values])
    assert len(set(found)) > 4_995


def test_double_content_is_kept_once_test_first(tmp_path: Path) -> None:
    for i in range(12):
        voc(tmp_path / "in" / ("train", "val", "test")[i % 3], f"{i}", pixels(i), "pit")
    voc(tmp_path / "in" / "train", "leak", pixels(2), "pit", "rust")
    voc(tmp_path / "in" / "val", "leak", pixels(2), "pit")
    voc(tmp_path / "in" / "train", "twin", pixels(0), "pit", "rust")
    head, run = imported(tmp_path / "in")
    data = snapshot.read(run)
    assert len({p.image_id for p in data.pictures}) == len(data.pictures) == 12 and head["images"] == dict(train=4, val=4, test=4)
    kept = {p.file_name for p in data.pictures}
    assert "test/2.png" in kept and "train/twin.png" in kept and not kept & {"train/leak.png", "val/leak.png", "train/0.png"}
    assert any(n.startswith("Same content in two splits, kept once, test before val before train: 1") for n in head["notes"])
    assert any(n.startswith("Same content with different boxes: 2") for n in head["notes"])


def test_double_content_stays_where_lists_put_it(tmp_path: Path) -> None:
    for i in range(4):
        voc(tmp_path / "in", f"{i}", pixels(i), "pit")
    voc(tmp_path / "in", "again", pixels(0), "rust", "rust")
    head, run = imported(tmp_path / "in", splits=str(write_lists(tmp_path / "lists", train=["0", "1"], val=["2"], test=["3", "again"])))
    assert head["images"] == {"train": 2, "val": 1, "test": 2} and head["labels"] == 6
    assert "Groups of alike pictures that cross splits as given: 1." in head["notes"]
    data = snapshot.read(run)
    assert {p.file_name: sorted(b.class_name for b in p.boxes) for p in data.pictures if p.image_id == data.by_split("test")[1].image_id} \
        == {"0.png": ["pit"], "again.png": ["rust", "rust"]}


# ---- lots and units

LOT = r"lot(\d+)"


def lots_of(run: Path) -> set[tuple[str, str]]:
    return {(p.file_name.rsplit("/", 1)[-1].split("-")[0], p.split) for p in snapshot.read(run).pictures}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_lot_stays_in_one_split_and_so_do_alike_pictures_of_two_lots(tmp_path: Path, seed: int) -> None:
    for i in range(60):
        save(tmp_path / "in" / f"lot{i % 15}-{i}.png", pixels(i))
    for i in range(4):                                  # lot 20 looks like a picture of lot 0, lot 21 like one of lot 20
        save(tmp_path / "in" / f"lot{20 + i // 2}-{i}.png", ((0.6, 1, 0.6, 1)[i] * pixels((0, 100, 100, 101)[i])).astype(np.uint8))
    head, run = imported(tmp_path / "in", group_pattern=LOT, seed=seed)
    assert head["grouped_by"] == ["near-duplicate group", "lot or unit"] and all(head["images"].values()) and head["notes"] == [UNLABELLED]
    found = lots_of(run)
    assert len(found) == 17 and len({s for lot, s in found if lot in ("lot0", "lot20", "lot21")}) == 1
    data = snapshot.read(run)
    assert len({p.group_id for p in data.pictures}) == 62          # a group still means alike, in the store too
    assert imported(tmp_path / "in", group_pattern=LOT, seed=seed)[0]["snapshot_id"] == head["snapshot_id"]

    plain, run = imported(tmp_path / "in", seed=seed)
    assert plain["grouped_by"] == ["near-duplicate group"] and len(lots_of(run)) > 17


def test_the_same_content_in_two_lots_keeps_both_together(tmp_path: Path) -> None:
    for i in range(30):
        save(tmp_path / "in" / f"lot{i % 10}-{i}.png", pixels(i))
        save(tmp_path / "in" / f"lot{i % 10 // 2 * 2 + 1}-copy{i // 10}.png", pixels(i % 10 // 2 * 2))
    _, run = imported(tmp_path / "in", group_pattern=LOT)
    found = dict(lots_of(run))
    assert len(lots_of(run)) == 10 and all(found[f"lot{i}"] == found[f"lot{i + 1}"] for i in range(0, 10, 2))


def test_lots_stay_together_when_val_is_drawn_from_train(tmp_path: Path) -> None:
    for i in range(48):
        save(tmp_path / "in" / ("train" if i < 40 else "test") / "good" / f"lot{i % 8}-{i}.png", pixels(i))
    head, run = imported(tmp_path / "in", group_pattern=LOT)
    assert head["splits_from"] == "folders" and head["images"] == {"train": 35, "val": 5, "test": 8}
    assert len({(lot, s) for lot, s in lots_of(run) if s != "test"}) == 8 and head["grouped_by"][1] == "lot or unit"
    assert "Lots or units that cross splits as given: 8." in head["notes"] and not any("alike" in n for n in head["notes"])
    assert len({p.group_id for p in snapshot.read(run).pictures}) == 48


def test_given_splits_are_grouped_by_nothing_and_one_lot_cannot_be_divided(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "in" / f"lot1-{i}.png", pixels(i))
    lists = write_lists(tmp_path / "lists", train=["lot1-0"], val=["lot1-1"], test=["lot1-2"])
    head, _ = imported(tmp_path / "in", group_pattern=LOT, splits=str(lists))
    assert head["grouped_by"] == [] and "Lots or units that cross splits as given: 1." in head["notes"]
    head, _ = imported(tmp_path / "in", group_pattern=LOT)
    assert head["images"]["train"] == 6
    assert head["notes"] == ["No picture is in val or test: the lots or units are too few to divide.", UNLABELLED]


@pytest.mark.parametrize(("pattern", "lots"), [
    (r"(\d+)_(\d+)", ["1/12", "11/2", "7/7", ""]), (r"^([^/]+)/", ["a", "a", "b7", "b7"]), (r"^([a-z])(\d)?", ["", "", "", "n/"]),
    (r"x(\d*)", [""] * 4), (None, [""] * 4), ("", [""] * 4)])
def test_the_lot_is_the_joined_groups_of_the_bare_name_or_of_the_path(pattern: str | None, lots: list[str]) -> None:
    lot = splits.lot_finder(pattern)
    assert [lot(n) for n in ("a/1_12.png", "a/11_2.png", "b7/7_7.png", "b7/none.png")] == lots


@pytest.mark.parametrize(("pattern", "message"), [
    ("lot(", "The group pattern 'lot\\(' is no regular expression: missing \\)"),
    ("lot", r"around the lot or unit, such as lot_\(\\d\+\)\.$"), ("(?:lot)", "needs a group in parentheses"),
    ("(a{99999999999999999999})", "is no regular expression")])
def test_a_group_pattern_that_cannot_work(tmp_path: Path, pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, group_pattern=pattern)


def test_a_group_pattern_that_finds_nothing_or_not_all_is_said(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / "in" / f"lot{i}.png", pixels(i))
    head, _ = imported(tmp_path / "in", group_pattern=r"charge(\d+)")
    assert head["notes"] == ["The group pattern 'charge(\\d+)' finds no lot or unit in any file name.", UNLABELLED]
    assert head["grouped_by"] == ["near-duplicate group"]
    head, _ = imported(tmp_path / "in", group_pattern="lot([0-6])")
    assert head["notes"] == ["File names in which the group pattern finds no lot or unit: 1 (lot7.png).", UNLABELLED]


# ---- what is written

def test_the_snapshot_is_its_content(tmp_path: Path) -> None:
    """Id from the manifest's bytes; names, place and date do not matter, a moved box does."""
    for i in range(8):
        voc(tmp_path / "in", f"{i}", pixels(i), *["pit", "rust"][: i % 3])
    head, run = imported(tmp_path / "in", name=" first ")
    assert head["name"] == "first"
    assert head["snapshot_id"] == hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest()[:16]
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "in")
    again, _ = imported(tmp_path / "packed.zip", name="second")
    assert again["snapshot_id"] == head["snapshot_id"] and again["counts"] == head["counts"]
    xml = tmp_path / "in" / "1.xml"
    xml.write_text(xml.read_text().replace("<xmax>20", "<xmax>21"))
    assert imported(tmp_path / "in")[0]["snapshot_id"] != head["snapshot_id"]
    assert imported(tmp_path / "packed.zip", seed=5)[0]["seed"] == 5


def test_parts_json_and_read_agree(tmp_path: Path) -> None:
    for i in range(20):
        voc(tmp_path / "in", f"{i}", pixels(i), *["pit", "rust"][: i % 3])
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    head, run = imported(tmp_path / "in")
    data = snapshot.read(run)
    assert json.loads((run / "snapshot.json").read_text()) == head == data.head
    assert head["labels"] == data.labels.num_rows == sum(len(p.boxes) for p in data.pictures)
    assert rundir.rows(run, "snapshots").to_pylist()[0]["labels"] == head["labels"]
    assert data.images.num_rows == sum(head["images"].values()) == 20 and data.classes == ["pit", "rust"]
    assert sum(n for by in head["counts"].values() for n in by.values()) == head["labels"]
    assert rundir.rows(run, "refused").to_pylist() == [dict(file_name="bad.png", reason="The file is empty.")]
    for p in data.pictures:
        assert images.sha256(p.path.read_bytes()) == p.image_id and (p.width, p.height) == (48, 48) and p.group_id and len(p.phash) == 16
    assert {p.split for p in data.pictures} == {"train", "val", "test"}


def test_an_inbox_is_read_then_removed_and_an_interrupted_import_starts_again(tmp_path: Path) -> None:
    config = Import(name="uploaded")
    run = rundir.create("import", config.to_json())
    (run / "inbox").mkdir()
    for i in range(30):
        save(run / "inbox" / f"{i:06d}.bin", pixels(i))
    rundir.write_json(run / "inbox" / "inbox.json", [dict(file=f"{i:06d}.bin", name=f"part {i}.png") for i in range(30)])

    def cancel(step: int = 0, **_: Any) -> None:
        if step:
            raise Canceled
    with pytest.raises(Canceled):
        importer.run(config, run, cancel)
    assert (run / "inbox").exists()
    head = importer.run(config, run, quiet)
    assert sum(head["images"].values()) == 30 and not (run / "inbox").exists()
    assert len(rundir.parts(run, "snapshot_images")) == 1 and head["layout"] == "images"
    assert importer.run(config, run, quiet) == head, "killed before it could say so, it says it now, though the inbox is gone"


def test_progress_is_told(tmp_path: Path) -> None:
    for i in range(45):
        save(tmp_path / "in" / f"{i}.png", pixels(i))
    config, told = Import(path=str(tmp_path / "in"), name="x"), []
    importer.run(config, rundir.create("import", config.to_json()), lambda **k: told.append((k["step"], k.get("total"))))
    assert told == [(0, 1), (20, 45), (40, 45), (45, 45), (45, 45)]


@pytest.mark.parametrize(("values", "message"), [
    (dict(name=" ", path="x"), "Give the dataset a name"), (dict(name="x"), "Choose a folder or zip")])
def test_settings_that_are_missing(values: dict[str, str], message: str) -> None:
    config = Import(**values)
    with pytest.raises(ConfigError, match=message):
        importer.run(config, rundir.create("import", config.to_json()), quiet)


def test_what_was_changed_and_lists_that_were_not_used_are_said(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", pixels(i))
    save(tmp_path / "in" / "deep.png", np.random.default_rng(0).integers(0, 4000, (48, 48), np.uint16))
    write_lists(tmp_path / "in" / "splits", train=["0"])
    notes = imported(tmp_path / "in")[0]["notes"]
    assert "Pictures scaled to 8 bits: 1 (deep.png)." in notes
    assert "Split lists lie in the data but were not asked for; the split was drawn: 1 (splits/train.txt)." in notes


def test_few_labels_and_equal_steps(tmp_path: Path) -> None:
    """Every class in turn, more labels hold the fewer, as many pictures as all of them; without boxes none."""
    for i in range(40):
        voc(tmp_path / "in", f"{i}", pixels(i), *([] if i % 8 == 0 else ["pit" if i % 4 else "dent"]))
    _, run = imported(tmp_path / "in")
    train = snapshot.read(run).by_split("train")
    few = {n: shares.laid(train, Share(labels=n)) for n in (2, 3, 6)}
    three, six = ({p.image_id for p in few[n]} for n in (3, 6))
    assert (len(three), len(six)) == (3, 6) and three < six
    assert all(p.boxes for p in few[6]) and len({c for p in few[2] for c in p.classes}) == 2
    dataset.yolo_folder(run, tmp_path / "out", Share(labels=3))
    shown = [p.stem[:64] for p in (tmp_path / "out" / "images" / "train").iterdir()]
    assert len(shown) == len(train) and set(shown) == three
    times = sorted(map(shown.count, three))
    assert times[-1] - times[0] <= 1
    assert len(list((tmp_path / "out" / "images" / "val").iterdir())) == len(snapshot.read(run).by_split("val"))


def test_the_yolo_folder(tmp_path: Path) -> None:
    """Grey stays grey and is linked; what another reader would see otherwise is written as we see it."""
    for i in range(12):
        voc(tmp_path / "in", f"{i}", pixels(i), *["pit"] * (i % 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "in" / "turned.jpg", np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8), "JPEG", exif=exif)
    save(tmp_path / "in" / "deep.png", np.random.default_rng(1).integers(0, 4000, (48, 48), np.uint16))
    _, run = imported(tmp_path / "in")
    data = snapshot.read(run)
    head = yaml.safe_load(dataset.yolo_folder(run, tmp_path / "out").read_text())
    assert head["names"] == {0: "pit"} and Path(head["path"]) == (tmp_path / "out").resolve()
    for split in splits.SPLITS:
        wanted = {p.image_id: p for p in data.by_split(split)}
        written = {p.stem: p for p in (tmp_path / "out" / head[split]).iterdir()}
        assert written.keys() == wanted.keys() == {p.stem for p in (tmp_path / "out" / "labels" / split).iterdir()}
        for image_id, path in written.items():
            with Image.open(path) as image:
                assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(images.load(image_id)))
                assert image.mode == ("RGB" if wanted[image_id].file_name in ("turned.jpg", "deep.png") else "L")
            lines = (tmp_path / "out" / "labels" / split / f"{image_id}.txt").read_text().splitlines()
            assert len(lines) == len(wanted[image_id].boxes)
            for line, box in zip(lines, wanted[image_id].boxes, strict=True):
                kind, cx, cy, w, h = map(float, line.split())
                assert kind == 0 and np.allclose([(cx - w / 2) * 48, (cy - h / 2) * 48, (cx + w / 2) * 48, (cy + h / 2) * 48],
                                                 [box.x1, box.y1, box.x2, box.y2], atol=1e-3)
    assert dataset.yolo_folder(run, tmp_path / "out").exists()          # a second time, over the first


def test_a_trainer_that_repairs_jpegs_in_place_never_reaches_the_store(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "in" / f"{i}.jpg", pixels(i), "JPEG")
        with open(tmp_path / "in" / f"{i}.jpg", "ab") as f:
            f.write(b"\0\0")                            # harmless bytes after the last marker
    _, run = imported(tmp_path / "in")
    dataset.yolo_folder(run, tmp_path / "out")
    written = [p for p in (tmp_path / "out" / "images").rglob("*") if p.is_file()]
    assert len(written) == 4 and all(p.suffix == ".png" and p.stat().st_nlink == 1 for p in written)


# ---- the real sets

def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"{name} is not here")
    return REAL / name


def test_a_few_of_neu_det(tmp_path: Path) -> None:
    neu, few = real("NEU-DET"), tmp_path / "in"
    lists = {s: (neu / "splits" / f"{s}.txt").read_text().split() for s in splits.SPLITS}
    chosen = {s: sorted({*listed[::len(listed) // 12], *({"patches_101", "patches_105"} & {*listed})}) for s, listed in lists.items()}
    for kind, suffix in (("IMAGES", ".jpg"), ("ANNOTATIONS", ".xml")):
        (few / kind).mkdir(parents=True)
        for stem in (stem for listed in chosen.values() for stem in listed):
            shutil.copy(neu / kind / f"{stem}{suffix}", few / kind)
    head, run = imported(few, splits=str(write_lists(tmp_path / "lists", **chosen)))
    assert head["layout"] == "voc" and head["images"] == {s: len(listed) for s, listed in chosen.items()} and head["refused"] == 0
    assert head["labels"] == sum(path.read_text().count("<object>") for path in (few / "ANNOTATIONS").iterdir())
    assert head["classes"] == ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"]
    assert head["notes"][0].startswith("Same content in one split, kept as listed: 1 (IMAGES/patches_101.jpg = IMAGES/patches_105.jpg)")
    assert {Path(p.file_name).stem for p in snapshot.read(run).by_split("test")} == {*chosen["test"]}


@pytest.mark.slow
def test_neu_det(tmp_path: Path) -> None:
    head, run = imported(real("NEU-DET"), splits=str(REAL / "NEU-DET" / "splits"))
    assert head["layout"] == "voc" and head["images"] == {"train": 1260, "val": 180, "test": 360} and head["labels"] == 4189
    assert head["classes"] == ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"] and head["refused"] == 0
    assert head["notes"][0].startswith("Same content in one split, kept as listed: 1 (IMAGES/patches_101.jpg = IMAGES/patches_105.jpg)")
    assert {p.file_name.removeprefix("IMAGES/").removesuffix(".jpg") for p in snapshot.read(run).by_split("test")} \
        == set((REAL / "NEU-DET" / "splits" / "test.txt").read_text().split())


@pytest.mark.slow                                        # a few tiles: tests/test_distillation_benchmark.py
def test_magnetic_tile_detection_lists() -> None:
    head, run = imported(real("magnetic-tile"), splits=str(REAL / "magnetic-tile" / "splits"), split_prefix="det-")
    assert head["layout"] == "mask-beside" and head["images"] == {"train": 800, "val": 143, "test": 401}
    assert head["classes"] == ["Blowhole", "Break", "Crack", "Fray", "Uneven"]
    assert [sum("MT_Free" in p.file_name for p in snapshot.read(run).by_split(s)) for s in splits.SPLITS] == [571, 95, 286]
    assert not any(p.boxes for p in snapshot.read(run).pictures if "MT_Free" in p.file_name)


def test_piped_has_no_val_so_it_is_drawn_from_train() -> None:
    kind = real("PIPED/PA_ZPB01_RL")
    head, run = imported(kind, splits=str(kind / "splits"))
    assert head["layout"] == "mvtec" and head["images"]["test"] == 64 and head["images"]["train"] + head["images"]["val"] == 32
    assert head["images"]["val"] in (4, 5) and head["counts"]["test"]["defect"] > 48 and head["classes"] == ["defect"]


# ---- synthetic sets

def synthetic(base: Path, parents: list[str], first: int = 500) -> None:
    """A set as `synthesize` leaves it: an image for each parent, with its mask and the head."""
    white = np.zeros((48, 48), np.uint8)
    white[5:15, 8:20] = 255
    for i in range(len(parents)):
        save(base / f"{i:06d}.png", pixels(first + i))
        save(base / f"{i:06d}_mask.png", white)
    items = [dict(file=f"{i:06d}.png", mask=f"{i:06d}_mask.png", parent=p, source="noise") for i, p in enumerate(parents)]
    (base / "head.json").write_text(json.dumps(dict(items=items, classes=["pit"])))


def test_synthetic_pictures_alone_are_of_train(tmp_path: Path) -> None:
    synthetic(tmp_path / "in", ["p"] * 12)
    (tmp_path / "train.txt").write_text("000001\n")
    (tmp_path / "test.txt").write_text("000002\n")
    for lists in (None, str(tmp_path)):
        head, run = imported(tmp_path / "in", splits=lists)
        data = snapshot.read(run)
        assert head["layout"] == "synthetic" and head["images"] == {"train": 12, "val": 0, "test": 0} and head["grouped_by"] == []
        assert {(p.origin, p.parent, p.is_good, len(p.boxes)) for p in data.pictures} == {("synthetic", "p", False, 1)}
        assert data.classes == ["pit"] and any(n.startswith("All pictures are synthetic") for n in head["notes"])
        assert any(n.startswith("Synthetic pictures that the lists put into val or test; they are of train: 1 (000002.png)")
                   for n in head["notes"]) == bool(lists)


@pytest.mark.parametrize("folders", [False, True])
def test_synthetic_pictures_beside_real_ones_tell_nothing_of_val_and_test(tmp_path: Path, folders: bool) -> None:
    """Real ones are drawn as if the others were not there; what was made of a held one, or equals one nearly, is left out."""
    real = tmp_path / "in"
    for i in range(20):
        voc(real / (("train" if i < 14 else "test") if folders else "."), f"r{i}", pixels(i), *["pit"] * (i % 2))
    before = {p.image_id: p.split for p in snapshot.read(imported(real)[1]).pictures}
    synthetic(real / "made", list(before))
    near = pixels(500).copy()                               # of the first synthetic one, which is made of the first real one
    for name in (f"made/copy_{i}" for i in range(2)):
        save(real / f"{name}.png", near)                    # not listed in the head: left out, and no real picture
    head, run = imported(real)
    data = snapshot.read(run)
    assert {p.image_id: p.split for p in data.pictures if p.origin == "real"} == before
    made = [p for p in data.pictures if p.origin == "synthetic"]
    assert {p.split for p in made} == {"train"} and {p.parent for p in made} == {i for i, s in before.items() if s == "train"}
    assert sum("left out" in n for n in head["notes"]) == 2 and head["layout"] == "voc"


def test_what_shows_a_held_pictures_defect_is_left_out(tmp_path: Path) -> None:
    real = tmp_path / "in"
    for i in range(8):
        voc(real / ("train" if i < 4 else "test"), f"r{i}", pixels(i), "pit")
    known = {s: [p.image_id for p in snapshot.read(imported(real)[1]).pictures if p.split == s] for s in ("train", "test")}
    synthetic(real / "made", [known["train"][0]] * 2)
    head = json.loads((real / "made" / "head.json").read_text())
    for item, donor in zip(head["items"], (known["train"][1], known["test"][0]), strict=True):
        item["donor"] = donor
    (real / "made" / "head.json").write_text(json.dumps(head))
    made = [p for p in snapshot.read(imported(real)[1]).pictures if p.origin == "synthetic"]
    assert [(p.file_name, p.donor) for p in made] == [("made/000000.png", known["train"][1])]


def test_a_copy_or_a_near_copy_of_a_synthetic_picture(tmp_path: Path) -> None:
    for i in range(6):
        voc(tmp_path / "in" / ("train" if i < 4 else "test"), f"r{i}", pixels(i), "pit")
    synthetic(tmp_path / "in" / "made", ["p", "q", "r"])
    save(tmp_path / "in" / "test" / "copy.png", pixels(500))
    save(tmp_path / "in" / "test" / "near.png", np.clip(pixels(501).astype(int) + 1, 0, 255).astype(np.uint8))
    (tmp_path / "lists").mkdir()
    for split in ("train", "test"):
        (tmp_path / "lists" / f"{split}.txt").write_text("".join(f"{p.stem}\n" for p in (tmp_path / "in" / split).glob("*.png")))
    for lists in (None, str(tmp_path / "lists")):
        head, run = imported(tmp_path / "in", splits=lists)
        found = {p.file_name: (p.origin, p.split) for p in snapshot.read(run).pictures}
        assert "test/copy.png" not in found and found["made/000000.png"] == ("synthetic", "train")
        assert "made/000001.png" not in found and found["test/near.png"] == ("real", "test") and "made/000002.png" in found
        assert any("kept once, as synthetic" in n for n in head["notes"])
