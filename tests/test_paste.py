"""Copy-paste: what is cut out, how it fits, that no seam is left, and that labels say where it came to lie."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from backend import rundir
from backend.config import Import, Synthesize
from backend.data import images, importer, marks, snapshot
from backend.data.marks import Box
from backend.errors import ConfigError
from backend.synthesis import by_paste, masks, paste, synthesize
from tests import plates
from tests.squares import one_core

SIZE = (72, 96)
SHOWN = {"hole": 30, "blob": 215}                    # grey of a defect, a disc or a square, on a plate of about 120


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(synthesize, "cores", one_core)
        patch.setattr(synthesize, "CHUNK", 4)
        yield


def drawn(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A plate, uint8 (h, w), and the mask of its defect."""
    base = rng.uniform(105, 135) + ndimage.gaussian_filter(rng.normal(0, 6, SIZE), 0.7)
    ys, xs = np.ogrid[:SIZE[0], :SIZE[1]]
    y, x, r = rng.integers(16, SIZE[0] - 16), rng.integers(16, SIZE[1] - 16), rng.integers(5, 8)
    white = {"hole": (ys - y) ** 2 + (xs - x) ** 2 < r * r, "blob": (abs(ys - y) < r) & (abs(xs - x) < r)}.get(kind, np.zeros(SIZE, bool))
    return np.clip(np.where(white, SHOWN.get(kind, 0), base), 0, 255).astype(np.uint8), np.asarray(white)


def imported(folder: Path, name: str, kinds: dict[str, int], *, boxes: bool) -> snapshot.Snapshot:
    """Plates of each kind ('free' has no defect) for train, two of each for val and test; labelled by boxes, or by masks beside them."""
    rng, lists, n = np.random.default_rng(len(name)), {s: list[str]() for s in ("train", "val", "test")}, 0
    for kind, count in kinds.items():
        (folder / kind).mkdir(parents=True)
        for i in range(count + 4):
            pixels, white = drawn(rng, kind)
            n, split = n + 1, "train" if i < count else "val" if i < count + 2 else "test"
            lists[split].append(f"{kind}/{n}")
            Image.fromarray(pixels).save(folder / kind / f"{n}.bmp")
            if not boxes:
                Image.fromarray(white).convert("L").save(folder / kind / f"{n}.png")
            elif white.any():
                (x1, y1, x2, y2), = marks.components(white)[0]
                shares = (x1 + x2) / 2 / SIZE[1], (y1 + y2) / 2 / SIZE[0], (x2 - x1) / SIZE[1], (y2 - y1) / SIZE[0]
                (folder / kind / f"{n}.txt").write_text(f"{list(SHOWN).index(kind)} {' '.join(map(str, shares))}\n")
    if boxes:
        (folder / "classes.txt").write_text("\n".join(SHOWN))
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(names))
    return snapshot.read(plates.run_of("import", lambda run: importer.run(
        Import(path=str(folder), name=name, splits=str(folder)), run, plates.silent)))


@pytest.fixture(scope="module")
def outlined(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return imported(tmp_path_factory.mktemp("outlined") / "in", "outlined", {"hole": 4, "blob": 4, "free": 4}, boxes=False)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return imported(tmp_path_factory.mktemp("boxed") / "in", "boxed", {"hole": 5, "blob": 5}, boxes=True)


def made(data: snapshot.Snapshot, run: Path | None = None, **more: Any) -> SimpleNamespace:
    run = run or rundir.create("synthesize", {})
    settings = Synthesize(**{"dataset": data.head["name"], "name": "s", "count": 6, "method": "paste", **more})
    result = synthesize.run(settings, run, plates.silent)
    return SimpleNamespace(run=run, folder=run / "synthetic", result=result, head=rundir.read_json(run / "synthetic" / "head.json"))


def pixels_of(folder: Path, item: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A result and its parent, (h, w) int."""
    with Image.open(folder / item["file"]) as image:
        return np.asarray(image.convert("L")).astype(int), np.asarray(images.load(item["parent"]).convert("L")).astype(int)


def flat(grey: int, size: tuple[int, int] = (80, 100)) -> np.ndarray:
    return np.full((*size, 3), grey, np.uint8)


def spotted(grey: int = 120, spot: int = 40, box: tuple[int, int, int, int] = (40, 30, 60, 44)) -> tuple[np.ndarray, np.ndarray]:
    image, mask = flat(grey), np.zeros((80, 100), bool)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2], mask[y1:y2, x1:x2] = spot, True
    return image, mask


# ---- blending

def test_a_membrane_is_harmonic(monkeypatch: pytest.MonkeyPatch) -> None:
    ys, xs = np.mgrid[:60, :70].astype(np.float32)
    plane = np.stack([ys + 2 * xs, 3 * ys, 50 - xs], 2)                     # a plane is its own harmonic continuation
    region = (ys - 30) ** 2 + (xs - 33) ** 2 < 400
    spoilt = np.where(region[..., None], 999, plane).astype(np.float32)
    assert np.abs(paste.membrane(spoilt, region) - plane).max() < 1e-3
    monkeypatch.setattr(paste, "UNKNOWNS", 200)
    coarse = paste.membrane(spoilt, region)
    assert np.array_equal(coarse[~region], plane[~region]) and 0 < np.abs(coarse - plane).max() < 6


def test_a_piece_takes_on_the_light_of_its_scene() -> None:
    """From a plate of 120 to one of 60 to 100 that grows brighter: no seam, and half the contrast of a spot that is a third as bright."""
    image, mask = spotted()
    scene = np.repeat(np.linspace(60, 100, 100)[None, :, None], 80, 0).repeat(3, 2).astype(np.uint8)
    piece = paste.cut(image, mask, (("spot", 40, 30, 60, 44),))
    result = paste.paste(scene, piece, 20, 30).astype(int)
    h, w = piece.outline.shape
    there, outline = np.zeros((80, 100), bool), np.zeros((80, 100), bool)
    there[20:20 + h, 30:30 + w], outline[20:20 + h, 30:30 + w] = piece.region, piece.outline
    assert np.array_equal(result[~there], scene[~there]), "outside not a pixel differs"
    rim = there & ~ndimage.binary_dilation(outline, iterations=2)
    assert np.abs(result - scene)[rim].max() <= 3, "the margin is as the scene"
    inside = ndimage.binary_erosion(outline, iterations=2)
    change = (result - scene)[inside]
    assert -65 < change.min() and change.max() < -40, "80 darker on 120 is 50 or so on 75"


def test_a_defect_at_an_edge_stays_at_an_edge() -> None:
    image, mask = spotted(box=(80, 30, 100, 44))
    piece = paste.cut(image, mask, (("spot", 80, 30, 100, 44),))
    assert piece.sides == (False, True, False, False)
    sides = set()
    for seed in range(12):
        fitted = paste.turned(piece, np.random.default_rng(seed), (90, 110), tilt=True)
        assert fitted is not None
        place = paste.spot(fitted, np.zeros((90, 110), bool), np.random.default_rng(seed))
        assert place is not None
        result = paste.paste(flat(100, (90, 110)), fitted, *place)
        dark = result[..., 0] < 60
        touched = tuple(bool(edge.any()) for edge in (dark[0], dark[:, -1], dark[-1], dark[:, 0]))
        assert touched == fitted.sides and sum(touched) == 1
        sides.add(touched)
    assert len(sides) == 4


@pytest.mark.parametrize("seed", range(8))
def test_boxes_turn_with_their_piece(seed: int) -> None:
    image, mask = spotted()
    piece = paste.turned(paste.cut(image, mask, (("spot", 40, 30, 60, 44),)), np.random.default_rng(seed), (80, 100), tilt=False)
    assert piece is not None
    (_, x1, y1, x2, y2), = piece.boxes
    ys, xs = np.nonzero(piece.pixels[..., 0] < 80)
    assert np.abs(np.array([x1, y1, x2, y2]) - (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).max() <= 1
    assert np.array_equal(*(np.flatnonzero(m.any(0))[[0, -1]] for m in (piece.outline, piece.pixels[..., 0] < 80)))


def test_what_does_not_fit_is_none() -> None:
    image, mask = spotted(box=(10, 10, 90, 70))
    piece = paste.cut(image, mask, ())
    assert paste.turned(piece, np.random.default_rng(0), (30, 200), tilt=False) is None, "it would have to be made less than 0.6 as large"
    image, mask = spotted(box=(0, 0, 100, 80))
    assert paste.turned(paste.cut(image, mask, ()), np.random.default_rng(0), (80, 100), tilt=False) is None, "all of it fits nowhere"


def test_what_runs_from_edge_to_edge_still_does() -> None:
    image, mask = spotted(box=(40, 0, 50, 80))
    spans = set()
    for seed in range(6):
        piece = paste.turned(paste.cut(image, mask, ()), np.random.default_rng(seed), (90, 90), tilt=True)
        assert piece is not None
        place = paste.spot(piece, np.zeros((90, 90), bool), np.random.default_rng(seed))
        assert place is not None
        dark = paste.paste(flat(120, (90, 90)), piece, *place)[..., 0] < 80
        assert dark[[0, -1]].any(1).all() or dark[:, [0, -1]].any(0).all()
        spans.add(bool(dark[0].any()))
    assert spans == {True, False}


def test_nothing_is_set_where_something_is() -> None:
    image, mask = spotted()
    piece, taken = paste.cut(image, mask, ()), np.ones((80, 100), bool)
    assert paste.spot(piece, taken, np.random.default_rng(0)) is None
    taken[20:60, 30:100] = False
    places = {paste.spot(piece, taken, np.random.default_rng(i)) for i in range(20)}
    assert len(places) > 8
    for place in places:
        assert place is not None
        window = tuple(slice(v, v + n) for v, n in zip(place, piece.region.shape, strict=True))
        assert not (taken[window] & piece.region).any()


def test_stripes_come_to_lie_along_those_of_the_scene() -> None:
    upright = np.repeat((120 + 60 * np.sin(np.arange(100) / 2)).astype(np.uint8)[None, :, None], 80, 0).repeat(3, 2)
    level = np.ascontiguousarray(upright.transpose(1, 0, 2))
    assert paste.grain(upright) > 0.9 > -0.9 > paste.grain(level) and abs(paste.grain(flat(9))) < 0.01
    mask = np.zeros((80, 100), bool)
    mask[30:40, 40:55] = True
    for seed in range(6):
        for scene in (upright, level):
            piece = paste.turned(paste.cut(upright, mask, ()), np.random.default_rng(seed), scene.shape[:2], True,
                                 paste.grain(upright) * paste.grain(scene))
            assert piece is not None and paste.grain(piece.pixels) * paste.grain(scene) > 0.5
    turned = {paste.turned(paste.cut(upright, mask, ()), np.random.default_rng(i), (80, 100), False).outline.shape[0] > 30      # type: ignore[union-attr]
              for i in range(8)}
    assert turned == {True, False}, "without stripes in both, any turn will do"


# ---- what is cut out

def picture(*boxes: tuple[str, float, float, float, float], source: str = "box", mask: str = "") -> snapshot.Picture:
    return snapshot.Picture("i", "i.png", 200, 200, "", tuple(Box(*b, source=source) for b in boxes), "train", mask=mask)


def test_boxes_that_would_be_cut_through_come_along() -> None:
    apart, crossing, slight = ("a", 0, 0, 40, 40), ("b", 20, 20, 60, 60), ("a", 35, 0, 90, 10)
    found = list(by_paste.clusters([picture(apart, crossing, slight)], "a"))
    assert [sorted(b.class_name for b in boxes) for _, boxes in found] == [["a", "b"], ["a"]], "a tenth of a box may stay behind"
    assert list(by_paste.clusters([picture(apart, source="image")], "a")) == []
    near = picture(("a", 0, 0, 40, 40), ("a", 42, 0, 50, 9), ("a", 90, 90, 99, 99), source="mask", mask="m")
    assert [len(boxes) for _, boxes in by_paste.clusters([near], "a")] == [2, 1], "what is outlined and near comes along, once"


def test_an_outline_is_the_masks_or_as_wide_as_the_box(outlined: snapshot.Snapshot, boxed: snapshot.Snapshot) -> None:
    for data, true in ((outlined, True), (boxed, False)):
        donor = next(p for p in data.by_split("train") if p.boxes)
        outline, exact = by_paste.outline_of(donor, donor.boxes)
        assert exact == true
        (box,), b = marks.components(outline)[0], donor.boxes[0]
        assert np.abs(np.array(box) - (b.x1, b.y1, b.x2, b.y2)).max() <= 0.5
        if exact:
            assert np.array_equal(outline, images.load_mask(donor.mask))


# ---- the method

def test_defects_come_into_good_pictures_with_true_outlines(outlined: snapshot.Snapshot) -> None:
    found = made(outlined)
    assert found.result["images"] == 6 and found.result["classes"] == {"blob": 3, "hole": 3} and found.result["warnings"] == []
    known = {p.image_id: p for p in outlined.pictures}
    for item in found.head["items"]:
        parent, donor = known[item["parent"]], known[item["donor"]]
        assert parent.split == donor.split == "train" and not parent.boxes and donor.classes == {item["class_name"]}
        after, before = pixels_of(found.folder, item)
        mask = masks.read(found.folder / item["mask"])
        assert item["boxes"] == [[item["class_name"], *b] for b in marks.components(mask)[0]] and item["exact"] is True
        deep = ndimage.binary_erosion(mask, iterations=2)
        assert (np.sign(after - before)[deep] == (-1 if item["class_name"] == "hole" else 1)).mean() > 0.95
        wide = ndimage.binary_dilation(mask, iterations=paste.WIDE + 2)
        assert np.array_equal(after[~wide], before[~wide]) and (item["boxes_from"], item["method"]) == ("mask", "paste")
    assert max(Counter(i["donor"] for i in found.head["items"]).values()) == 1, "every defect before any comes again"


def test_without_good_pictures_free_regions_take_them(boxed: snapshot.Snapshot) -> None:
    found = made(boxed, count=8, seed=1)
    assert found.result["classes"] == {"hole": 4, "blob": 4} and "free regions" in found.result["warnings"][0]
    known = {p.image_id: p for p in boxed.pictures}
    labels = rundir.read_json(found.folder / "labels.json")
    for number, item in enumerate(found.head["items"]):
        own, boxes = known[item["parent"]].boxes, [tuple(b) for b in item["boxes"]]
        assert item["parent"] != item["donor"] and item["exact"] is False
        assert boxes[0] == pytest.approx((own[0].class_name, own[0].x1, own[0].y1, own[0].x2, own[0].y2), abs=1e-3) and len(boxes) == 2
        name, x1, y1, x2, y2 = boxes[1]
        assert name == item["class_name"]
        after, before = pixels_of(found.folder, item)
        changed = np.abs(after - before) > 40
        ys, xs = np.nonzero(changed)
        assert np.abs(np.array([x1, y1, x2, y2]) - (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)).max() <= 2, "the box fits"
        window = np.s_[int(own[0].y1):int(own[0].y2), int(own[0].x1):int(own[0].x2)]
        assert np.array_equal(after[window], before[window]), "what was there stays"
        assert [a["category_id"] for a in labels["annotations"] if a["image_id"] == number] \
            == [labels["categories"][[c["name"] for c in labels["categories"]].index(b[0])]["id"] for b in boxes]


def test_where_each_picture_is_to_show_one_class_none_goes_into_another_s(boxed: snapshot.Snapshot) -> None:
    """A classifier calls a picture what covers most of it: a spot set into a picture of another class would teach it the wrong name."""
    few = [p for p in boxed.pictures if p.split == "train" and "hole" in p.classes][1:]
    data = snapshot.Snapshot(boxed.head, [p for p in boxed.pictures if p not in few], boxed.images, boxed.labels)
    methods = [by_paste.ByPaste(Synthesize(dataset="boxed", name="s", method="paste", same_class=same), data) for same in (False, True)]
    scenes = [list(m._scenes(np.random.default_rng(0), m.donors["hole"][0][0], "hole")) for m in methods]
    assert {c for p in scenes[0] for c in p.classes} == {"blob"} and not scenes[1], "a single picture of the class has no scene"
    found = made(boxed, count=8, same_class=True)
    shown = {p.image_id: p.classes for p in boxed.pictures}
    assert len(found.head["items"]) == 8 and all(shown[i["parent"]] == {i["class_name"]} for i in found.head["items"])


def test_what_is_made_again_has_its_kinds_and_donors_and_another_chance(outlined: snapshot.Snapshot) -> None:
    """Two holes and a blob are asked for again, not one of each kind in turn."""
    first = made(outlined)
    kinds = [[i for i in first.head["items"] if i["class_name"] == c] for c in ("hole", "blob")]
    marked = [*kinds[0][:2], kinds[1][2]]
    told = json.dumps(dict(seed=0, attempts=dict(hole=[i["attempt"] for i in kinds[0][:2]], blob=[kinds[1][2]["attempt"]])))
    second = made(outlined, count=3, seed=7, again=told)
    assert second.result["classes"] == {"hole": 2, "blob": 1} and {i["seed"] for i in second.head["items"]} == {7}
    assert sorted((i["class_name"], i["donor"], i["again"]) for i in second.head["items"]) \
        == sorted((i["class_name"], i["donor"], i["attempt"]) for i in marked)
    before, after = ({(f.folder / i["file"]).read_bytes() for i in f.head["items"]} for f in (first, second))
    assert not before & after


def test_a_class_alone_is_made_as_among_others(outlined: snapshot.Snapshot) -> None:
    alone, among = made(outlined, count=3, class_name="hole"), made(outlined, count=6)
    bytes_of = [[(f.folder / i["file"]).read_bytes() for i in f.head["items"] if i["class_name"] == "hole"] for f in (alone, among)]
    assert bytes_of[0] == bytes_of[1] and alone.head["classes"] == ["hole"]


def test_a_killed_run_comes_to_the_same_set(boxed: snapshot.Snapshot) -> None:
    whole, broken = made(boxed, count=9, seed=3), rundir.create("synthesize", {})

    def kill(step: int, **_: Any) -> None:
        if step >= 4:
            raise KeyboardInterrupt

    settings = Synthesize(dataset="boxed", name="s", count=9, method="paste", seed=3)
    with pytest.raises(KeyboardInterrupt):
        synthesize.run(settings, broken, kill)
    assert (broken / "synthesizing" / "done.jsonl").exists() and not (broken / "synthetic").exists()
    again = made(boxed, broken, count=9, seed=3)
    content = [{p.name: p.read_bytes() for p in f.folder.iterdir() if p.name != "head.json"} for f in (whole, again)]
    assert content[0] == content[1] and whole.head["items"] == again.head["items"]


def test_the_likest_scene_is_taken(boxed: snapshot.Snapshot) -> None:
    """Scenes of the class come before others; of these, the nearest in brightness first."""
    method = by_paste.ByPaste(Synthesize(dataset="boxed", name="s", method="paste"), boxed)
    donor = method.donors["hole"][0][0]
    order = list(method._scenes(np.random.default_rng(0), donor, "hole"))
    first = [p for p in order if "hole" in p.classes]
    assert order[:len(first)] == first and len(first) == 4 and donor not in order
    brightness = [abs(method._look(p)[0] - method._look(donor)[0]) + abs(method._look(p)[1] - method._look(donor)[1]) for p in first]
    assert brightness == sorted(brightness)


def test_donors_and_scenes_tell_nothing_of_val_and_test(boxed: snapshot.Snapshot) -> None:
    hidden = boxed.by_split("train")[0]
    test = boxed.by_split("test")[0]
    pictures = [replace(p, group_id=test.group_id) if p is hidden else p for p in boxed.pictures]
    data = snapshot.Snapshot(boxed.head, pictures, boxed.images, boxed.labels)
    method = by_paste.ByPaste(Synthesize(dataset="boxed", name="s", method="paste"), data)
    used = {p.image_id for found in method.donors.values() for p, _ in found} | {p.image_id for s in method.scenes.values() for p in s}
    train = {p.image_id for p in boxed.by_split("train")}
    assert used == train - {hidden.image_id}


def test_what_cannot_be_cut_out_is_said(boxed: snapshot.Snapshot) -> None:
    with pytest.raises(ConfigError, match="shows the class 'dent'. It has blob, hole"):
        made(boxed, class_name="dent")
    whole = [replace(p, boxes=tuple(replace(b, source="image") for b in p.boxes)) for p in boxed.pictures]
    with pytest.raises(ConfigError, match="do not say where"):
        by_paste.ByPaste(Synthesize(dataset="boxed", name="s", method="paste"),
                         snapshot.Snapshot(boxed.head, whole, boxed.images, boxed.labels))


def test_a_mixed_set_goes_back_in_with_its_boxes(boxed: snapshot.Snapshot, outlined: snapshot.Snapshot) -> None:
    for data, pixels_known in ((boxed, False), (outlined, True)):
        found = made(data)
        config = Import(path=str(found.folder), name="back")
        back = snapshot.read(plates.run_of("import", lambda run: importer.run(config, run, plates.silent)))  # noqa: B023
        expected = {images.sha256((found.folder / i["file"]).read_bytes()): i for i in found.head["items"]}
        assert {p.image_id for p in back.pictures} == set(expected)
        for p in back.pictures:
            item = expected[p.image_id]
            assert sorted([b.class_name, b.x1, b.y1, b.x2, b.y2] for b in p.boxes) == sorted(item["boxes"])
            assert (p.parent, p.donor, bool(p.mask)) == (item["parent"], item["donor"], pixels_known)
            assert {b.source for b in p.boxes} == {"mask" if pixels_known else "box"}
