"""Each layout is recognised, said, and read; oddities are noted and never corrected silently."""

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.data import catalog, files
from backend.data.catalog import Catalog, Tree
from backend.data.files import Entry
from backend.data.marks import Box, Mark, Notes, components, look
from backend.errors import InputError


def picture(seed: int = 0, size: tuple[int, int] = (60, 40)) -> bytes:
    out = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def mask(*regions: tuple[int, int, int, int], size: tuple[int, int] = (60, 40), white: int = 255) -> bytes:
    pixels = np.zeros((size[1], size[0]), np.uint8)
    for x1, y1, x2, y2 in regions:
        pixels[y1:y2, x1:x2] = white
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def jpeg() -> bytes:
    out = BytesIO()
    Image.open(BytesIO(picture())).save(out, "JPEG")
    return out.getvalue()


def voc_xml(*objects: tuple[str, int, int, int, int], filename: str = "") -> str:
    inside = "".join(f"<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
                     for n, a, b, c, d in objects)
    return f"<annotation><filename>{filename}</filename><size><width>60</width><height>40</height></size>{inside}</annotation>"


def read(root: Path, content: dict[str, bytes | str], layout: str = "auto", as_zip: bool = False) -> Catalog:
    """Write these files and read them as a folder or a zip. Masks are read from disk later, so the folder stays."""
    root.mkdir(exist_ok=True)
    if as_zip:
        with zipfile.ZipFile(root / "in.zip", "w") as z:
            for name, data in content.items():
                z.writestr(name, data)
        root = root / "in.zip"
    else:
        for name, data in content.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    with files.listing(root) as entries:
        return catalog.read(entries, layout)


def found_boxes(found: Catalog, size: tuple[int, int] = (60, 40)) -> dict[str, list[tuple[object, ...]]]:
    return {r.name: [(b.class_name, b.x1, b.y1, b.x2, b.y2) for b in look(r.marks, size, r.name, found.notes)[0]] for r in found.records}


# ---- Pascal VOC

@pytest.mark.parametrize("as_zip", [False, True])
def test_voc(tmp_path: Path, as_zip: bool) -> None:
    found = read(tmp_path, {
        "IMAGES/a_1.png": picture(1), "ANNOTATIONS/a_1.xml": voc_xml(("pit", 1, 2, 11, 12), ("scratch", 20, 5, 70, 15)),
        "IMAGES/a_2.png": picture(2), "ANNOTATIONS/other.xml": voc_xml(("pit", 5, 5, 5, 9), filename="a_2.png"),
        "IMAGES/free.png": picture(3), "ANNOTATIONS/lost.xml": voc_xml(("pit", 0, 0, 5, 5)), "readme.md": "no picture",
    }, as_zip=as_zip)
    assert found.layout == "voc" and found.explanation.startswith("Read as Pascal VOC: 2 of 3 pictures have an XML file")
    assert found_boxes(found) == {"IMAGES/a_1.png": [("pit", 1, 2, 11, 12), ("scratch", 20, 5, 60, 15)], "IMAGES/a_2.png": [],
                                  "IMAGES/free.png": []}
    assert set(found.notes.lines()) == {
        "Annotations without a picture, left out: 1 (ANNOTATIONS/lost.xml).",
        "Pictures without an annotation; they count as free of defects: 1 (IMAGES/free.png).",
        "Boxes that reached beyond their picture, cut at its edge: 1 (IMAGES/a_1.png).",
        "Boxes without an area, left out: 1 (IMAGES/a_2.png)."}


def test_voc_beside_and_by_split_folders_with_the_same_names(tmp_path: Path) -> None:
    found = read(tmp_path, {f"{s}/{n}": d for s, c in (("train", "pit"), ("validation", "rust"), ("test", "dent"))
                            for n, d in (("1.png", picture()), ("1.xml", voc_xml((c, 0, 0, 9, 9))))})
    assert {(r.name, r.split, r.marks[0].class_name) for r in found.records} == {
        ("train/1.png", "train", "pit"), ("validation/1.png", "val", "rust"), ("test/1.png", "test", "dent")}


@pytest.mark.parametrize("bad", ["<annotation><object><name>pit</name></object></annotation>", "<annotation><object>", "not xml",
                                 voc_xml(("", 1, 1, 5, 5)), voc_xml(("pit", 1, 1, 5, 5)).replace("5", "wide"),
                                 '<!DOCTYPE a [<!ENTITY b "bb">]><annotation><filename>&b;</filename></annotation>'])
def test_a_picture_whose_annotation_is_bad_is_refused_not_called_good(tmp_path: Path, bad: str) -> None:
    found = read(tmp_path, {"1.png": picture(), "1.xml": voc_xml(("pit", 1, 1, 5, 5)), "2.png": picture(), "2.xml": bad})
    assert [r.name for r in found.records] == ["1.png"]
    assert [(r.name, r.reason) for r in found.refused] == [("2.png", "Its annotation 2.xml cannot be understood.")]


def test_a_picture_whose_label_file_was_refused_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.xml").write_text(voc_xml(("pit", 1, 1, 5, 5)))
    (tmp_path / "in" / "2.xml").symlink_to(tmp_path / "secret.xml")
    found = read(tmp_path / "in", {"1.png": picture(), "1.xml": voc_xml(("pit", 1, 1, 5, 5)), "2.png": picture()})
    assert [r.name for r in found.records] == ["1.png"]
    assert [(r.name, r.reason.split(":")[0]) for r in found.refused] == [
        ("2.xml", "It is a link to a place outside the folder."), ("2.png", "Its label file 2.xml was refused.")]


# ---- YOLO

@pytest.mark.parametrize("names", ["names: [pit, scratch]", "names: {0: pit, 1: scratch}"])
def test_yolo_with_data_yaml(tmp_path: Path, names: str) -> None:
    found = read(tmp_path, {
        "data.yaml": f"path: .\ntrain: images/train2017\nval: images/other\n{names}\n",
        "images/train2017/a.png": picture(1), "labels/train2017/a.txt": "1 0.5 0.5 0.5 0.5\n\n0 0.1 0.1 0.2 0.2 0.99\n",
        "images/other/b.png": picture(2), "labels/other/b.txt": "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.4\n",
        "images/other/c.png": picture(3), "labels/other/lost.txt": "0 .5 .5 .1 .1",
    })
    assert found.layout == "yolo" and found.classes == ["pit", "scratch"]
    assert found.explanation == "Read as YOLO: data.yaml names the classes; 2 of 3 pictures have a label file of the same name."
    got = found_boxes(found)
    assert got["images/train2017/a.png"] == [("scratch", 15, 10, 45, 30), ("pit", 0, 0, 12, 8)]
    assert got["images/other/b.png"] == [("pit", 6, 4, 30, 24)]
    assert [r.split for r in found.records] == ["val", "val", "train"]
    assert "Annotations without a picture, left out: 1 (labels/other/lost.txt)." in found.notes.lines()


def test_yolo_beside_the_pictures_with_classes_txt_or_without_names(tmp_path: Path) -> None:
    content = {"a.png": picture(), "a.txt": "1 .5 .5 .5 .5", "b.png": picture(1), "b.txt": ""}
    found = read(tmp_path / "named", {**content, "classes.txt": "pit\nscratch\n"})
    assert found.layout == "yolo" and found.classes == ["pit", "scratch"] and found.records[0].marks[0].class_name == "scratch"
    found = read(tmp_path / "bare", content)
    assert found.classes == ["1"] and any("classes carry their numbers" in n for n in found.notes.lines())


def test_yolo_lists_named_in_data_yaml(tmp_path: Path) -> None:
    found = read(tmp_path, {"data.yaml": "train: train.txt\nval: val.txt\nnames: [pit]",
                            "train.txt": "./images/a.png\n", "val.txt": "./images/b.png", "images/a.png": picture(),
                            "images/b.png": picture(1), "labels/a.txt": "0 .5 .5 .5 .5"})
    assert {r.name: r.split for r in found.records} == {"images/a.png": "train", "images/b.png": "val"}


@pytest.mark.parametrize(("line", "reason"), [
    ("0 a b c d", "line 1 holds something other than numbers"), ("0 .5 .5", "line 1 has 3 numbers"),
    ("7 .5 .5 .5 .5", "line 1 has the class 7, which has no name"), ("0 30 20 10 10", "line 1 is in pixels"),
    ("inf .5 .5 .5 .5", "has the class inf"), ("-1 .5 .5 .5 .5", "has the class -1"), ("0.5 .5 .5 .5 .5", "has the class 0.5")])
def test_a_bad_yolo_line_refuses_its_picture(tmp_path: Path, line: str, reason: str) -> None:
    found = read(tmp_path, {"data.yaml": "names: [pit]", "images/a.png": picture(), "labels/a.txt": line,
                            "images/b.png": picture(), "labels/b.txt": "0 .5 .5 .5 .5"})
    assert [r.name for r in found.records] == ["images/b.png"]
    assert found.refused[0].name == "images/a.png" and reason in found.refused[0].reason


def test_a_yaml_bomb_costs_nothing(tmp_path: Path) -> None:
    """Each line doubles the last: written out, the thirtieth would be a billion words."""
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 31)]
    found = read(tmp_path, {"data.yaml": "\n".join([*lines, "names: [pit, *a30]", "train: *a30"]), "images/a.png": picture(),
                            "labels/a.txt": "1 .5 .5 .5 .5"})
    assert found.classes == ["pit", "1"] and found.records[0].marks[0].class_name == "1"


# ---- COCO

def coco_json(**more: object) -> str:
    return json.dumps({"images": [dict(id=1, file_name="a.png"), dict(id=2, file_name="b.png"), dict(id=3, file_name="gone.png")],
                       "annotations": [dict(image_id=1, category_id=5, bbox=[10, 5, 20, 10]),
                                       dict(image_id=1, category_id=2, segmentation=[[1, 2, 9, 2, 9, 8]]),
                                       dict(image_id=3, category_id=2, bbox=[0, 0, 5, 5]),
                                       dict(image_id=2, category_id=2, bbox=[0, 0, 5, 5], iscrowd=1)],
                       "categories": [dict(id=5, name="scratch"), dict(id=2, name="pit")], **more})


def test_coco(tmp_path: Path) -> None:
    found = read(tmp_path, {"images/a.png": picture(), "images/b.png": picture(1), "annotations/instances_val2017.json": coco_json(),
                            "other.json": '{"images": "not this"}'})
    assert found.layout == "coco" and found.classes == ["pit", "scratch"]
    assert found.explanation == "Read as COCO: annotations/instances_val2017.json lists 2 of 2 pictures."
    assert found_boxes(found) == {"images/a.png": [("scratch", 10, 5, 30, 15), ("pit", 1, 2, 9, 8)], "images/b.png": []}
    assert {r.split for r in found.records} == {"val"}
    assert set(found.notes.lines()) == {"Annotations without a picture, left out: 1 (gone.png).",
                                        "Crowd regions, left out: 1 (images/b.png)."}


def test_coco_in_split_folders(tmp_path: Path) -> None:
    one = json.dumps({"images": [dict(id=1, file_name="a.png")], "annotations": [dict(image_id=1, category_id=1, bbox=[1, 1, 5, 5])],
                      "categories": [dict(id=1, name="pit")]})
    both = {"a.png": picture(), "_annotations.coco.json": one}
    found = read(tmp_path, {f"{s}/{n}": d for s in ("train", "valid", "test") for n, d in both.items()})
    assert {(r.name, r.split, len(r.marks)) for r in found.records} == {
        ("train/a.png", "train", 1), ("valid/a.png", "val", 1), ("test/a.png", "test", 1)}


def test_coco_that_contradicts_itself(tmp_path: Path) -> None:
    found = read(tmp_path / "class", {"a.png": picture(), "b.png": picture(1), "x.json": coco_json(categories=[dict(id=2, name="pit")])})
    assert [r.name for r in found.refused] == ["a.png"] and "not in its list of categories" in found.refused[0].reason
    huge = [dict(image_id=1, category_id=5, bbox=[10**400, 0, 1, 1])]
    for i, odd in enumerate([dict(images=[dict(id=1)]), dict(images=[3]), dict(categories=None), dict(annotations=huge)]):
        with pytest.raises(InputError, match="x.json looks like COCO, but cannot be understood"):
            read(tmp_path / f"odd{i}", {"a.png": picture(), "x.json": coco_json(**odd)})


# ---- masks

def test_mvtec(tmp_path: Path) -> None:
    found = read(tmp_path, {
        "set/train/good/0.png": picture(0), "set/test/good/0.png": picture(1),
        "set/test/hole/0.png": picture(2), "set/test/hole/1.png": picture(3),
        "set/ground_truth/hole/0_mask.png": mask((5, 5, 15, 10), (30, 20, 40, 39), (50, 2, 51, 4)), "set/license.txt": "text"})
    assert found.layout == "mvtec" and "1 set has train/good" in found.explanation and "1 of 4 pictures have a mask" in found.explanation
    assert found_boxes(found)["set/test/hole/0.png"] == [("hole", 5, 5, 15, 10), ("hole", 30, 20, 40, 39)]
    assert {r.name: r.split for r in found.records if "good" in r.name} == {"set/train/good/0.png": "train", "set/test/good/0.png": "test"}
    assert set(found.notes.lines()) == {"Pictures of a defect without a mask; they carry no box: 1 (set/test/hole/1.png).",
                                        "Masks with specks of fewer than 4 pixels, which were dropped: 1 (set/test/hole/0.png)."}


def test_mask_beside(tmp_path: Path) -> None:
    found = read(tmp_path, {
        "MT_Blowhole/Imgs/1.jpg": jpeg(), "MT_Blowhole/Imgs/1.png": mask((5, 5, 15, 10)),
        "MT_Crack/Imgs/2.jpg": jpeg(), "MT_Crack/Imgs/2.png": mask(),
        "MT_Free/Imgs/3.jpg": jpeg(), "MT_Free/Imgs/3.png": mask((0, 0, 9, 9)),
        "MT_Crack/Imgs/4.jpg": jpeg(), "MT_Crack/Imgs/4.png": mask((2, 2, 8, 8), size=(30, 20)),
        "MT_Crack/Imgs/5.jpg": jpeg()})
    assert found.layout == "mask-beside" and "4 of 5 pictures have a mask" in found.explanation
    got = {n[-5]: b for n, b in found_boxes(found).items()}
    assert got == {"1": [("Blowhole", 5, 5, 15, 10)], "2": [], "3": [], "4": [("Crack", 4, 4, 16, 16)], "5": []}
    assert {n.split(":")[0] for n in found.notes.lines()} == {
        "Pictures of a defect whose mask is empty, or dust only; they carry no box",
        "Good pictures whose mask is not empty; the mask was ignored",
        "Masks of another size than their picture; their boxes were scaled", "Pictures without a mask; they count as free of defects"}


def test_masks_named_with_a_suffix_and_no_class_folder(tmp_path: Path) -> None:
    found = read(tmp_path, {"7.png": picture(), "7_GT.png": mask((5, 5, 15, 10)), "8.png": picture(1), "8_GT.png": mask()})
    assert found.layout == "mask-beside" and found_boxes(found) == {"7.png": [("defect", 5, 5, 15, 10)], "8.png": []}


def test_a_damaged_mask_refuses_its_picture(tmp_path: Path) -> None:
    found = read(tmp_path, {"a/1.jpg": jpeg(), "a/1.png": mask((5, 5, 15, 10)), "a/2.jpg": jpeg(), "a/2.png": b"\x89PNG\r\n\x1a\n cut"})
    (bad,) = (r for r in found.records if r.name == "a/2.jpg")
    with pytest.raises(InputError, match="Its mask a/2.png cannot be used. The picture is damaged"):
        look(bad.marks, (60, 40), bad.name, Notes())


def test_photographs_in_two_formats_are_no_masks(tmp_path: Path) -> None:
    found = read(tmp_path, {"1.jpg": jpeg(), "1.png": picture()})
    assert found.layout == "images" and len(found.records) == 2


def test_white_begins_above_the_middle_and_diagonals_touch() -> None:
    pixels = np.zeros((10, 10), np.uint8)
    pixels[1:3, 1:3], pixels[3:5, 3:5], pixels[8, 8] = 128, 255, 255
    pixels[6:9, 0:3] = 127
    assert components(pixels > 127) == ([(1, 1, 5, 5)], 1)


@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_zero_and_one_count(tmp_path: Path, white: int) -> None:
    found = read(tmp_path, {"pit/1.png": picture(), "pit/1_mask.png": mask((5, 5, 15, 10), white=white)})
    assert found_boxes(found)["pit/1.png"] == [("pit", 5, 5, 15, 10)]


# ---- the rest

def test_plain_pictures_and_an_insisted_layout(tmp_path: Path) -> None:
    content = {"a.png": picture(), "b/c.png": picture(1), "b/d.gif": b"GIF89a"}
    found = read(tmp_path, content)
    assert found.layout == "images" and "3 pictures without labels" in found.explanation and [r.marks for r in found.records] == [()] * 3
    with pytest.raises(InputError, match="does not look like Pascal VOC"):
        read(tmp_path, content, layout="voc")
    with pytest.raises(InputError, match="There is no picture in it"):
        read(tmp_path / "empty", {"a.txt": "x"})


def test_names_met_twice_in_a_zip_are_both_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("a.png", picture(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            z.writestr("a.png", picture(2))
    with files.listing(tmp_path / "a.zip") as entries:
        found = catalog.read(entries)
        assert {r.name: r.entry.read() for r in found.records} == {"a.png": picture(1), "a.png (again)": picture(2)}


@pytest.mark.parametrize("corners", [(float("nan"), 0, 5, 5), (5, 5, 5, 9), (9, 5, 5, 9), (100, 100, 120, 120), (-9, -9, -1, -1),
                                     (float("-inf"), 0, 5, float("inf"))])
def test_boxes_that_are_no_boxes_are_left_out_with_a_note(corners: tuple[float, float, float, float]) -> None:
    notes = Notes()
    assert look((Mark("pit", corners),), (60, 40), "a.png", notes) == ([], None) and len(notes.lines()) == 1


def test_rounding_in_shares_is_clipped_without_a_word() -> None:
    notes = Notes()
    assert look((Mark("pit", (-1e-6, 0, 1.000001, 0.5), shares=True),), (60, 40), "a", notes)[0] == [Box("pit", 0, 0, 60, 20)]
    assert notes.lines() == []


def test_noise_as_a_mask_costs_nothing() -> None:
    """Specks get no box, however many; too many regions are no mask."""
    specks = np.zeros((1000, 1000), bool)
    specks[::2, ::2] = True
    specks[500:503, 500:503] = True
    assert components(specks)[0] == [(500, 500, 503, 503)]
    squares = np.zeros((600, 600), bool)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        squares[row::4, column::4] = True
    with pytest.raises(InputError, match="22,500 separate"):
        components(squares)


def test_thousands_of_files_of_one_name_are_told_apart_at_once() -> None:
    tree = Tree([Entry("a.png", 1, lambda: BytesIO(b"")) for _ in range(20_000)])
    assert len(tree.entries) == 20_000 and {"a.png", "a.png (again)", "a.png (again 2)"} <= set(tree.entries)


# ---- synthetic sets

def synthetic_set(base: str = "", n: int = 2, **more: object) -> dict[str, bytes | str]:
    """Files of a set as `synthesize` leaves it below `base`."""
    files: dict[str, bytes | str] = {f"{base}labels.json": coco_json()}
    for i in range(n):
        files |= {f"{base}{i:06d}.png": picture(40 + i), f"{base}{i:06d}_mask.png": mask((5, 5, 15, 10))}
    items = [dict(file=f"{i:06d}.png", mask=f"{i:06d}_mask.png", parent="ab" * 32, source="noise") for i in range(n)]
    return files | {f"{base}head.json": json.dumps(dict(items=items, classes=["pit"], **more))}


@pytest.mark.parametrize("layout", ["auto", "synthetic", "coco", "images"])
@pytest.mark.parametrize("base", ["", "run/synthetic/"])
def test_a_synthetic_set_is_its_items_only(tmp_path: Path, base: str, layout: str) -> None:
    content = {**synthetic_set(base), f"{base}stray.png": picture(9), **({"run/samples.png": picture(8)} if base else {})}
    found = read(tmp_path, content, layout)
    assert found.layout == "synthetic" and found.explanation.startswith("Read as a synthetic set: 2 synthetic pictures")
    assert [(r.name, r.split, r.origin, r.parent) for r in found.records] \
        == [(f"{base}00000{i}.png", "train", "synthetic", "ab" * 32) for i in range(2)]
    assert found_boxes(found)[f"{base}000000.png"] == [("pit", 5, 5, 15, 10)]
    assert any(line.endswith(f"left out: 1 ({base}stray.png).") for line in found.notes.lines())


def test_a_synthetic_set_beside_real_pictures(tmp_path: Path) -> None:
    found = read(tmp_path, {"a.png": picture(0), "a.txt": "0 .5 .5 .5 .5", "b.png": picture(1), "b.txt": "", "classes.txt": "dent",
                            **synthetic_set("s/")})
    assert found.layout == "yolo" and found.classes == ["dent", "pit"] and "Beside them: 2 synthetic pictures" in found.explanation
    assert {r.name: r.origin for r in found.records} \
        == {"a.png": "real", "b.png": "real", "s/000000.png": "synthetic", "s/000001.png": "synthetic"}


def test_a_synthetic_set_with_files_missing(tmp_path: Path) -> None:
    files = synthetic_set(n=3)
    del files["000000_mask.png"], files["000001.png"]
    found = read(tmp_path, files)
    assert [r.name for r in found.records] == ["000002.png"] and [r.name for r in found.refused] == ["000000.png"]
    assert "Synthetic pictures that are listed but not there: 1 (000001.png)." in found.notes.lines()
    files["head.json"] = json.dumps({"items": [dict(file=1, mask="m.png", parent="", source="")]})
    with pytest.raises(InputError, match=r"head\.json looks like that of a synthetic set"):
        read(tmp_path, files)


def test_a_made_picture_of_a_defect_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    """It would be read as one of a good part."""
    about = dict(mask="", parent="", source="image")
    items = [dict(about, file="000000.png", boxes=[["pit", 5, 5, 15, 10]]), dict(about, file="000001.png", boxes=[]),
             dict(about, file="000002.png"), dict(about, file="000003.png", mask="000003_mask.png", boxes=[], exact=False)]
    found = read(tmp_path, {**synthetic_set(n=4), "head.json": json.dumps(dict(items=items, classes=["pit"]))})
    assert [r.name for r in found.records] == ["000000.png"]
    assert [r.name for r in found.refused] == ["000001.png", "000002.png", "000003.png"] and "no defect" in found.refused[0].reason


def test_a_synthetic_set_of_many_classes_lists_its_boxes(tmp_path: Path) -> None:
    """From masks, from boxes, and of the whole picture; a mask that leaves something out is none to keep."""
    both = [["pit", 5, 5, 15, 10], ["dent", 20, 20, 30, 28]]
    items = [dict(mask="000000_mask.png", parent="a", donor="d", source="paste", boxes=both, boxes_from="mask", exact=True),
             dict(mask="000001_mask.png", parent="a", source="paste", boxes=both, boxes_from="mask", exact=False),
             dict(mask="", parent="a", source="image", boxes=both[1:], boxes_from="parent", exact=False),
             dict(mask="", parent="", source="noise", boxes=[["pit", 0, 0, 60, 40]], boxes_from="whole", exact=False)]
    items = [dict(item, file=f"{i:06d}.png") for i, item in enumerate(items)]
    found = read(tmp_path, {**synthetic_set(n=4), "head.json": json.dumps(dict(items=items, classes=["pit", "dent"]))})
    united = [look(r.marks, (60, 40), r.name, Notes()) for r in found.records]
    assert [[[b.class_name, b.x1, b.y1, b.x2, b.y2] for b in boxes] for boxes, _ in united] == [i["boxes"] for i in items]
    assert [{b.source for b in boxes} for boxes, _ in united] == [{"mask"}, {"box"}, {"box"}, {"image"}]
    assert [None if white is None else int(white.sum()) for _, white in united] == [50, None, None, None]
    assert [(r.parent, r.donor) for r in found.records] == [("a", "d"), ("a", ""), ("a", ""), ("", "")]


def test_a_defect_without_a_mask_is_none_of_the_good_ones(tmp_path: Path) -> None:
    found = read(tmp_path, {"train/good/0.png": picture(0), "test/good/1.png": picture(1), "test/hole/2.png": picture(2)})
    united = {r.name: look(r.marks, (60, 40), r.name, Notes()) for r in found.records}
    assert united["test/good/1.png"] == ([], None) and "0 of 3 pictures have a mask" in found.explanation
    boxes, white = united["test/hole/2.png"]
    assert boxes == [] and white is not None and white.shape == (40, 60) and not white.any()
    lost: list[Entry | files.Refusal] = [*(r.entry for r in found.records), files.Refusal("ground_truth/hole/2.png", "It is too large.")]
    assert "test/hole/2.png" in {r.name for r in catalog.read(lost).refused}
