"""Sources, blending, what one sees of it, and the recipe: from good pictures to a labelled synthetic set."""

import io
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from backend import rundir
from backend.config import Import, Synthesize, TrainDiffusion
from backend.data import images, importer, marks, snapshot
from backend.diffusion import ddpm
from backend.errors import Canceled, ConfigError, NotFoundError, ResourceError
from backend.synthesis import blend, by_paste, by_prior, filling, keeping, masks, methods, sources, synthesize
from backend.teacher.extractors import extractor
from tests import plates
from tests.squares import one_core
from tests.tiny_prior import tiny_surface

SMALL = ddpm.Preset((8, 16, 16, 16), 1, crop=16, batch=4, steps=12, ema=0.9)


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks of 70,000 weights, on one core, chunks of four, in a data folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(ddpm, "cores", one_core)
        patch.setattr(synthesize, "cores", one_core)
        patch.setattr(synthesize, "CHUNK", 4)
        patch.setitem(ddpm.PRESETS, "tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return snapshot.read(plates.imported(tmp_path_factory.mktemp("good") / "in", "good", boxes="none", size=(72, 96)))


@pytest.fixture(scope="module")
def denoiser(good: snapshot.Snapshot) -> Path:
    return plates.run_of("train-diffusion", lambda run: ddpm.run(
        TrainDiffusion(dataset="good", name="d", steps=4, channels="1"), run, plates.silent))


@pytest.fixture(scope="module")
def made(denoiser: Path) -> SimpleNamespace:
    run, told = rundir.create("synthesize", {}), list[dict[str, Any]]()
    result = synthesize.run(config(count=6), run, lambda **said: told.append(said))
    folder = run / "synthetic"
    return SimpleNamespace(run=run, result=result, told=told, folder=folder, head=rundir.read_json(folder / "head.json"),
                           labels=rundir.read_json(folder / "labels.json"))


def config(**more: Any) -> Synthesize:
    return Synthesize(**{"dataset": "good", "name": "s", "count": 4, "steps": 2, "variance": 1.0, "low_area": 0.02, **more})


def surface(seed: int = 0, size: tuple[int, int] = (96, 96)) -> blend.Image:
    """Grey, grained, uneven: (H, W, 3)."""
    rng = np.random.default_rng(seed)
    grey = 120 + 40 * masks.perlin(rng, *size, 3, 3) + ndimage.gaussian_filter(rng.normal(0, 8, size), 0.8)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def disc(size: tuple[int, int] = (96, 96), radius: int = 16) -> blend.Mask:
    ys, xs = np.ogrid[:size[0], :size[1]]
    return np.asarray((ys - size[0] // 2) ** 2 + (xs - size[1] // 2) ** 2 < radius**2)


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "head.json"}


# ---- sources

def test_noise_has_the_colour_of_its_image() -> None:
    grey = sources.noise(np.random.default_rng(0), surface())
    assert np.ptp(grey, axis=2).max() == 0
    coloured = sources.noise(np.random.default_rng(0), surface() // np.array([1, 2, 3], np.uint8))
    assert np.ptp(coloured, axis=2).mean() > 20
    strengths = [np.abs(sources.noise(np.random.default_rng(i), surface()).astype(int) - surface()).mean() for i in range(8)]
    assert min(strengths) > 8 and max(strengths) > 1.5 * min(strengths)


def test_textures_are_other_surfaces_of_the_right_colour() -> None:
    known = [surface(i) for i in range(3)]
    found = [sources.texture(np.random.default_rng(i), known, 50, 70) for i in range(24)]
    assert {f.shape for f in found} == {(50, 70, 3)} and {f.dtype for f in found} == {np.dtype(np.uint8)}
    assert max(int(np.ptp(f, axis=2).max()) for f in found) == 0, "grey pictures, grey textures"
    assert np.ptp(sources.texture(np.random.default_rng(1), [], 50, 70), axis=2).max() > 0
    assert np.array_equal(found[5], sources.texture(np.random.default_rng(5), known, 50, 70))
    assert len({f.tobytes() for f in found}) == 24


@pytest.mark.parametrize("pattern", sources.PATTERNS)
def test_patterns_vary(pattern: Any) -> None:
    for size in ((8, 8), (40, 70)):
        field = pattern(np.random.default_rng(0), *size)
        assert field.shape == size and np.isfinite(field).all() and np.ptp(field) > 0


def test_parents_carry_no_box_and_are_of_train(tmp_path: Path) -> None:
    data = snapshot.read(plates.imported(tmp_path / "in", "boxed"))
    assert len(data.by_split("train")) == plates.COUNTS["train"]
    assert [p.file_name for p in sources.good(data)] == [p.file_name for p in data.by_split("train") if not p.boxes] != []


def test_near_duplicates_of_held_pictures_are_no_parents() -> None:
    def picture(i: int, split: str, group: str) -> snapshot.Picture:
        return snapshot.Picture(f"{i}", f"{i}.png", 8, 8, "", split=split, group_id=group)

    some = [picture(0, "train", "a"), picture(1, "train", "b"), picture(2, "test", "a"), picture(3, "train", ""), picture(4, "val", "")]
    data = snapshot.Snapshot({"classes": []}, some, None, None)
    assert {p.image_id for p in sources.good(data)} == {"1", "3"}


# ---- blending

def test_only_the_mask_changes_and_its_rim_fades() -> None:
    normal, change, mask = surface(), np.full((96, 96, 3), 250, np.uint8), disc()
    result = blend.blend(normal, change, mask, 1.0)
    assert np.array_equal(result[~mask], normal[~mask])
    deep = ndimage.binary_erosion(mask, iterations=3)
    assert (result[deep] == 250).all()
    rim = mask & ~ndimage.binary_erosion(mask)
    shares = (result[rim].astype(float) - normal[rim]) / (250 - normal[rim])
    assert 0.4 < shares.min() and shares.max() < 0.8
    half = blend.blend(normal, change, mask, 0.5)
    assert np.abs(half[deep] - (normal[deep] / 2 + 125)).max() <= 1


def test_the_effective_mask_is_what_one_sees() -> None:
    normal, mask = surface(), disc()
    change = normal.copy()
    change[:, :48] = 250                                          # the right half of the mask changes nothing
    change[40:43, 38:41] = normal[40:43, 38:41]                   # nor does a gap of three pixels
    result = blend.blend(normal, change, mask, 1.0)
    seen = blend.effective(normal, result, mask)
    assert not (seen & ~mask).any() and not seen[:, 51:].any() and seen[41, 39]
    visible = np.abs(result.astype(int) - normal).max(2) > 2 * blend.VISIBLE
    assert seen[visible].mean() > 0.98
    assert not blend.effective(normal, normal, mask).any()
    speck = normal.copy()
    speck[48, 48] += 15
    assert not blend.effective(normal, speck, mask).any()


@pytest.fixture(scope="module")
def witness() -> blend.Witness:
    return blend.Witness(extractor("efficientnet-lite0"))


def test_features_see_other_surfaces_and_not_normal_variation(witness: blend.Witness) -> None:
    normals, mask = [surface(i) for i in range(4)], disc()
    buffers = [io.BytesIO() for _ in normals]
    for normal, buffer in zip(normals, buffers, strict=True):
        Image.fromarray(normal).save(buffer, "JPEG", quality=92)
    same = [normals, [np.asarray(Image.open(b).convert("RGB")) for b in buffers], [n + np.uint8(3) for n in normals]]
    for results in same:
        assert not witness.sees(normals, results, [mask] * 4).any()
    fills = [sources.texture(np.random.default_rng(i), [], 96, 96) for i in range(4)]
    results = [blend.blend(n, f, mask, 0.9) for n, f in zip(normals, fills, strict=True)]
    assert witness.sees(normals, results, [mask] * 4).all()
    assert len(witness.sees([], [], [])) == 0


def test_a_change_outside_the_mask_is_no_witness(witness: blend.Witness) -> None:
    normal, elsewhere = surface(size=(256, 256)), np.zeros((256, 256), bool)
    result, corner = normal.copy(), normal.copy()
    elsewhere[:40, :40] = True
    result[216:, 216:] = 250
    corner[:40, :40] = 250
    told = witness.strength([normal] * 2, [result, corner], [elsewhere] * 2)
    assert told[0] < 0.1 and told[1] > blend.STRONGER


# ---- the denoiser as a source

def test_only_a_window_is_drawn_again(denoiser: Path) -> None:
    normal, mask = surface(size=(200, 160)), np.zeros((200, 160), bool)
    mask[150:170, 20:50] = True
    fill = filling.Filling(config(), ddpm.load(denoiser / "denoiser"), [])
    change, = fill.changes([normal], [mask], [np.random.default_rng(0)])
    differs = (change != normal).any(2)
    ys, xs = np.nonzero(differs)
    assert differs[mask].mean() > 0.8 and ys.min() >= 120 and xs.max() < 80
    assert (change.astype(int) - normal).std(axis=2).max() <= 1, "a grey denoiser changes all channels alike"


# ---- the recipe

def test_a_set_is_images_masks_and_labels(made: SimpleNamespace, good: snapshot.Snapshot) -> None:
    assert made.result["images"] == len(made.head["items"]) == 6 and made.result["images_per_second"] > 0
    assert made.head["attempts"] == 6 + sum(made.head["rejected"].values())
    parents = {p.image_id: p for p in good.pictures}
    assert len({i["parent"] for i in made.head["items"]}) > 3
    for item in made.head["items"]:
        parent = parents[item["parent"]]
        assert parent.split == "train"
        before = np.asarray(images.load(item["parent"]))
        after, mask = np.asarray(Image.open(made.folder / item["file"])), masks.read(made.folder / item["mask"])
        assert after.shape == before.shape and mask.shape == before.shape[:2]
        changed = np.abs(after.astype(int) - before).max(2)
        assert changed[mask].mean() > blend.VISIBLE / 2 and changed[mask].mean() > 5 * changed[~mask].mean()
        assert item["area"] == pytest.approx(mask.mean(), abs=1e-6) and 0.5 <= item["opacity"] <= 1


def test_labels_are_the_boxes_of_the_masks(made: SimpleNamespace) -> None:
    assert made.labels["categories"] == [{"id": 1, "name": "defect"}] and made.head["classes"] == ["defect"]
    assert [i["file_name"] for i in made.labels["images"]] == [i["file"] for i in made.head["items"]]
    for image, item in zip(made.labels["images"], made.head["items"], strict=True):
        mask = masks.read(made.folder / item["mask"])
        boxes = sorted(marks.components(mask)[0])
        found = [a for a in made.labels["annotations"] if a["image_id"] == image["id"]]
        assert sorted((x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in found)) == boxes != []
        for label in found:
            points = np.array(label["segmentation"][0]).reshape(-1, 2)
            x, y, w, h = label["bbox"]
            assert np.abs(points.min(0) - (x, y)).max() <= 1 and np.abs(points.max(0) - (x + w, y + h)).max() <= 1


def test_the_run_is_left_tidy_and_shows_what_it_makes(made: SimpleNamespace) -> None:
    assert not (made.run / "synthesizing").exists()
    assert len(list(made.folder.iterdir())) == 6 * 2 + 2
    assert [t["step"] for t in made.told] == sorted(t["step"] for t in made.told) and made.told[-1]["message"] == "made 6"
    with Image.open(made.run / "samples.png") as preview:
        assert preview.size == (3 * keeping.CELL, 6 * keeping.CELL) and preview.mode == "RGB"
    again = synthesize.run(config(count=6), made.run, lambda **_: pytest.fail("made again"))
    assert again == made.result


@pytest.mark.parametrize("source", ["ddpm", "texture", "noise"])
def test_a_killed_run_comes_to_the_same_set(denoiser: Path, source: str) -> None:
    """Killed between two chunks, with half a line of the next behind them; then canceled runs leave nothing."""
    whole, broken = rundir.create("synthesize", {}), rundir.create("synthesize", {})
    settings = config(source=source, count=9, seed=4)
    synthesize.run(settings, whole, plates.silent)

    def kill(step: int, **_: Any) -> None:
        if step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize.run(settings, broken, kill)
    lines = broken / "synthesizing" / "done.jsonl"
    assert 3 <= len(keeping.taken_up(lines).items) < 9
    with open(lines, "a") as f:
        f.write('{"items": [{"fi')
    synthesize.run(settings, broken, plates.silent)
    first, second = content(whole / "synthetic"), content(broken / "synthetic")
    assert first.keys() == second.keys() and json.loads(first["labels.json"]) == json.loads(second["labels.json"])
    assert first == second


def test_a_canceled_run_leaves_nothing(denoiser: Path) -> None:
    run = rundir.create("synthesize", {})

    def cancel(step: int, **_: Any) -> None:
        if step:
            raise Canceled

    with pytest.raises(Canceled):
        synthesize.run(config(source="noise", count=8), run, cancel)
    assert not (run / "synthesizing").exists() and not (run / "synthetic").exists()


def test_shapes_and_class_come_from_collected_masks(good: snapshot.Snapshot) -> None:
    run = rundir.create("collect-masks", {})
    folder = run / ".masks"
    folder.mkdir()
    masks.write(folder / "0.png", disc((60, 60), 12))
    rundir.keep_artifact(folder, run, "masks", dict(key="k", name="dent", items=[dict(file="0.png")]))
    where = rundir.create("synthesize", {})
    synthesize.run(config(source="noise", masks="dent", count=3), where, plates.silent)
    assert rundir.read_json(where / "synthetic" / "labels.json")["categories"] == [{"id": 1, "name": "dent"}]
    for item in rundir.read_json(where / "synthetic" / "head.json")["items"]:
        mask = masks.read(where / "synthetic" / item["mask"])
        (top, left, bottom, right) = (f(v) for f in (min, max) for v in np.nonzero(mask))
        assert mask.sum() / ((bottom - top + 1) * (right - left + 1)) > 0.6, "one disc, not Perlin noise"


def test_a_larger_picture_keeps_its_own_size(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(surface(i, (150, 210))).save(tmp_path / f"{i}.png")
    plates.run_of("import", lambda run: importer.run(Import(path=str(tmp_path), name="large"), run, plates.silent))
    run = rundir.create("synthesize", {})
    synthesize.run(config(dataset="large", source="texture", imgsz=70, count=2), run, plates.silent)
    for item in rundir.read_json(run / "synthetic" / "head.json")["items"]:
        before = np.asarray(images.load(item["parent"]))
        after, mask = np.asarray(Image.open(run / "synthetic" / item["file"])), masks.read(run / "synthetic" / item["mask"])
        assert after.shape == before.shape == (150, 210, 3) and (item["width"], item["height"]) == (210, 150)
        changed = (after != before).any(2)
        assert changed[mask].mean() > 0.8 and changed[~mask].mean() < 0.02


def test_labelled_defects_that_the_denoiser_has_learned_are_said(tmp_path: Path) -> None:
    plates.imported(tmp_path / "in", "boxed", size=(72, 96))
    train = lambda name, **more: plates.run_of("train-diffusion", lambda run: ddpm.run(  # noqa: E731
        TrainDiffusion(dataset="boxed", name=name, channels="1", **more), run, plates.silent))
    train("plain", steps=1)
    train("control", steps=0)
    made = lambda name: synthesize.run(config(dataset="boxed", denoiser=name, count=1), rundir.create("synthesize", {}), plates.silent)  # noqa: E731
    (said,) = made("plain")["warnings"]
    assert f"'plain' has learned from {plates.COUNTS['train'] - 1} images with a labelled defect" in said
    assert made("control")["warnings"] == [], "it has learned nothing"


def test_a_denoiser_of_good_pictures_is_preferred_where_others_know_defects(good: snapshot.Snapshot, denoiser: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bool]()
    stock = ddpm.find
    monkeypatch.setattr(ddpm, "find", lambda name, data, good=False: (asked.append(good), stock(name, data, good))[1])
    assert synthesize.run(config(count=1), rundir.create("synthesize", {}), plates.silent)["warnings"] == []
    marked = snapshot.Snapshot(good.head, [replace(p, mask="some") if i % 2 else p
                                           for i, p in enumerate(good.pictures)], good.images, good.labels)
    monkeypatch.setattr(snapshot, "read", lambda run: marked)
    assert synthesize.run(config(count=1), rundir.create("synthesize", {}), plates.silent)["warnings"] != []
    assert asked == [False, True]


def test_what_cannot_be_seen_is_refused(good: snapshot.Snapshot) -> None:
    """Opacity 0.05 of noise is a few levels of 255: in nearly all attempts too faint."""
    run = rundir.create("synthesize", {})
    with pytest.raises(ConfigError, match="attempts made a change that one sees"):
        synthesize.run(config(source="noise", count=1, low_opacity=0.05, high_opacity=0.05), run, plates.silent)


def test_settings_that_cannot_be_are_said(good: snapshot.Snapshot, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (dict(name=""), ConfigError, "name"), (dict(low_opacity=0.9, high_opacity=0.5), ConfigError, "opacity"),
        (dict(low_area=0.3, high_area=0.2), ConfigError, "area"), (dict(masks="none such"), NotFoundError, "masks"),
        (dict(denoiser="none such"), NotFoundError, "diffusion model")]
    for settings, kind, word in cases:
        with pytest.raises(kind, match=word):
            synthesize.run(config(**settings), rundir.create("synthesize", {}), plates.silent)


def test_a_dataset_without_good_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for i in range(4):
        Image.fromarray(surface(i)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: .\nnames: [dent]\n")
    plates.run_of("import", lambda run: importer.run(Import(path=str(tmp_path), name="bad"), run, plates.silent))
    with pytest.raises(ConfigError, match="no good train images"):
        synthesize.run(config(dataset="bad", source="noise"), rundir.create("synthesize", {}), plates.silent)


def test_a_set_goes_back_in_as_what_it_is(made: SimpleNamespace, tmp_path: Path) -> None:
    """The whole run's folder, its preview too; alone there is nothing to measure on."""
    run = plates.run_of("import", lambda run: importer.run(Import(path=str(made.run), name="back"), run, plates.silent))
    data = snapshot.read(run)
    assert data.head["layout"] == "synthetic" and data.classes == ["defect"] and data.head["images"] == {"train": 6, "val": 0, "test": 0}
    parents = {images.sha256((made.folder / i["file"]).read_bytes()): i["parent"] for i in made.head["items"]}
    assert {p.image_id: p.parent for p in data.pictures} == parents and {p.origin for p in data.pictures} == {"synthetic"}
    assert all(p.boxes and images.load_mask(p.mask).any() for p in data.pictures) and sources.good(data) == []
    assert data.head["labels"] == len(made.labels["annotations"])


# ---- classes in turn

def test_classes_take_turns_and_get_equally_many() -> None:
    """Refusals of one class cost the others nothing; a class of which nothing comes is given up."""
    wanted, progress = synthesize.shares(8, ["a", "b", "c"]), keeping.Progress()
    assert wanted == {"a": 3, "b": 3, "c": 2}
    tried, kept = list[str](), {"a": 0, "b": 0, "c": 0}
    while some := synthesize.tasks(progress, wanted, 4):
        tried += [f"{t.class_name}{t.number}" for t in some]
        items = [dict(class_name=t.class_name) for t in some if t.class_name == "a" or (t.class_name == "b" and t.number % 2)]
        progress.add(dict(items=items, labels=[[] for _ in items], rejected={}, seconds=0.0,
                          attempts=progress.attempts + Counter(t.class_name for t in some)))
    kept |= progress.kept
    assert kept == {"a": 3, "b": 3, "c": 0} and tried[:4] == ["a0", "b0", "c0", "a1"] and len(set(tried)) == len(tried)
    assert progress.attempts == {"a": 3, "b": 6, "c": synthesize.TRIES * 2 + synthesize.EXTRA}


def test_a_large_set_costs_no_more_to_plan() -> None:
    """Chunk after chunk: not all that is to be made is listed each time."""
    wanted = synthesize.shares(400_000, ["a", "b"])
    tracemalloc.start()
    try:
        assert [t.number for t in synthesize.tasks(keeping.Progress(), wanted, 4)] == [0, 0, 1, 1]
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_open_pictures_are_bounded_by_their_bytes(good: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four of twenty megapixels would be four gigabytes, for each class."""
    parents = sources.good(good)[:4]
    known = methods.Opened(parents)
    monkeypatch.setattr(methods, "OPEN", 2 * known[0].nbytes)
    pictures = [known[i] for i in range(4)]
    assert sum(p.nbytes for p in known._kept.values()) == known._bytes == methods.OPEN
    assert known[3] is pictures[3] and known[0] is not pictures[0] and np.array_equal(known[0], pictures[0])
    monkeypatch.setattr(methods, "OPEN", 1)
    assert np.array_equal(known[1], pictures[1]) and len(known._kept) == 1, "the one asked for stays"


def test_what_is_out_of_memory_is_said_with_what_to_do(good: snapshot.Snapshot, boxed: snapshot.Snapshot,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(synthesize, "_fill", full)
    with pytest.raises(ResourceError, match="Choose an image size below 256 px"):
        synthesize.run(config(source="noise"), rundir.create("synthesize", {}), plates.silent)
    with pytest.raises(ResourceError, match="Choose a prior of smaller pictures"):
        drawn("image")


def test_every_thing_comes_before_any_comes_again() -> None:
    for turn in range(3):
        assert sorted(methods.in_turn(5, turn * 7 + i, 7) for i in range(7)) == list(range(7))
    assert [methods.in_turn(5, i, 7) for i in range(7)] != [methods.in_turn(6, i, 7) for i in range(7)]


# ---- the prior

@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    data = snapshot.read(plates.imported(tmp_path_factory.mktemp("boxed") / "in", "with boxes"))
    tiny_surface("tiny")
    return data


def drawn(start: str, run: Path | None = None, **more: Any) -> SimpleNamespace:
    run = run or rundir.create("synthesize", {})
    settings = dict(dataset="with boxes", method="prior", start=start, prior="tiny", steps=2, strength=0.3, guidance=1.0) | more
    result = synthesize.run(config(**settings), run, plates.silent)
    return SimpleNamespace(run=run, folder=run / "synthetic", result=result, head=rundir.read_json(run / "synthetic" / "head.json"))


def opened(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image).astype(int)


def test_a_picture_drawn_again_keeps_its_parents_boxes(boxed: snapshot.Snapshot) -> None:
    parents = {p.image_id: p for p in boxed.by_split("train") if p.boxes}
    found = drawn("image", count=len(parents) + 3)
    used = [i["parent"] for i in found.head["items"]]
    assert set(used[:len(parents)]) == set(parents) and len(set(used[len(parents):])) == 3, "all before any again"
    assert found.head["prior"]["name"] == "tiny" and len(found.head["prior"]["base"]) == 16 and found.head["method"] == "prior"
    for item in found.head["items"]:
        parent, after = parents[item["parent"]], opened(found.folder / item["file"])
        assert [item["boxes"], item["boxes_from"], item["mask"]] == \
            [[["bright", *(pytest.approx(v, abs=1e-3) for v in (b.x1, b.y1, b.x2, b.y2))] for b in parent.boxes], "parent", ""]
        assert after.shape == (parent.height, parent.width, 3) and np.ptp(after, axis=2).max() == 0, "grey stays grey"
        assert (after != np.asarray(parent_pixels(item))).any() and not item["exact"]
        assert (item["prompt"], item["strength"], item["guidance"], item["steps"], item["donor"]) == \
            (found.head["prompts"]["bright"], 0.3, 1.0, 2, "") and "bright" in item["prompt"]
    again = [i for i in found.head["items"] if used.count(i["parent"]) == 2]
    assert len({(found.folder / i["file"]).read_bytes() for i in again}) == 6, "another seed each time"
    assert "not adapted to this dataset" in found.result["warnings"][0]


def parent_pixels(item: dict[str, Any]) -> Image.Image:
    return images.load(item["parent"])


def test_from_noise_the_box_runs_round_the_picture(boxed: snapshot.Snapshot) -> None:
    found = drawn("noise", count=3, prompt="rusty plate")
    for item in found.head["items"]:
        height, width = opened(found.folder / item["file"]).shape[:2]
        assert item["boxes"] == [["bright", 0, 0, width, height]]
        assert (item["boxes_from"], item["mask"], item["parent"]) == ("whole", "", "")
        assert (height, width) == (44, 60) and item["prompt"] == "rusty plate" and item["strength"] == 1.0 and item["area"] == 1.0
    assert rundir.read_json(found.folder / "labels.json")["annotations"][0]["bbox"] == [0, 0, 60, 44]
    with Image.open(found.run / "samples.png") as preview:
        assert preview.size == (3 * keeping.CELL, 3 * keeping.CELL)
    assert [w[:40] for w in found.result["warnings"]] == ["Nobody knows where the defects are in images"[:40]]


def test_inside_a_mask_only_that_is_drawn(boxed: snapshot.Snapshot) -> None:
    """On the one good picture, in the shape of a box of the class; what is seen to change is the outline."""
    found = drawn("inpaint", count=3, strength=1.0)
    good, = sources.good(boxed)
    for item in found.head["items"]:
        after, before = opened(found.folder / item["file"]), np.asarray(parent_pixels(item)).astype(int)
        mask = masks.read(found.folder / item["mask"])
        changed = np.abs(after - before).max(2) > blend.VISIBLE
        assert item["parent"] == good.image_id and changed[mask].mean() > 0.5
        assert not changed[~ndimage.binary_dilation(mask, iterations=12)].any()
        assert item["boxes"] == [["bright", *b] for b in marks.components(mask)[0]] and item["boxes_from"] == "mask" and item["exact"]


@pytest.mark.parametrize("start", ["image", "noise", "inpaint"])
def test_a_killed_drawing_comes_to_the_same_set(boxed: snapshot.Snapshot, start: str) -> None:
    broken, whole = rundir.create("synthesize", {}), drawn(start, count=6, strength=0.9)

    def kill(step: int, **_: Any) -> None:
        if step >= 3:
            raise KeyboardInterrupt

    settings = config(dataset="with boxes", method="prior", start=start, prior="tiny", steps=2, strength=0.9, guidance=1.0, count=6)
    with pytest.raises(KeyboardInterrupt):
        synthesize.run(settings, broken, kill)
    assert not (broken / "synthetic").exists()
    assert content(drawn(start, broken, count=6, strength=0.9).folder) == content(whole.folder)


def test_what_a_person_should_know_of_a_drawn_set_is_said(boxed: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that may not fit, pictures larger than the prior draws, a prior of something else. In order, nothing said."""
    said = drawn("image", count=1, strength=0.9).result["warnings"]
    assert len(said) == 2 and "At a strength of 0.9 little of a parent is left: its boxes may not be where" in said[1]
    method = by_prior.ByPrior(config(dataset="with boxes", method="prior", prior="tiny"), boxed)
    method.open()
    method.found = replace(method.found, kind="adapter", head=dict(dataset="with boxes"))
    method.prior.classes_known = {"bright": "<bright>"}
    assert method.warnings() == []
    method.prior.head = method.prior.head | dict(side=32)
    assert method.warnings() == [f"{len(method._parents())} of {len(method._parents())} images are larger than the prior draws: what it "
                                 "drew for them was enlarged and is less sharp."]
    method.prior.classes_known, method.prior.head = {}, method.prior.head | dict(side=256)
    assert method.warnings() == ["The prior 'tiny' has not learned bright: these were drawn from plain words."]
    method.found.head["dataset"] = "plates"
    assert method.warnings() == ["The prior 'tiny' was adapted to 'plates', not to this dataset."]


def test_shapes_of_defects_are_worked_out_when_asked_for(boxed: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask for each of 100,000 pictures would not fit into memory."""
    asked = list[str]()
    monkeypatch.setattr(by_prior, "outline_of", lambda p, boxes: (asked.append(p.image_id), by_paste.outline_of(p, boxes))[1])
    parents = sources.of_class(boxed, "bright")
    shapes = by_prior.Outlines(parents, "bright")
    assert len(shapes) >= len(parents) > 1 and not asked
    box, shape = parents[1].boxes[0], shapes[[p.image_id for p, _ in shapes.clusters].index(parents[1].image_id)]
    assert asked == [parents[1].image_id] and shape.shape == (parents[1].height, parents[1].width)
    assert shape[int(box.y1 + box.y2) // 2, int(box.x1 + box.x2) // 2] and not shape.all()


def test_a_whole_image_label_stays_one(boxed: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = [replace(p, boxes=tuple(marks.Box(b.class_name, 0, 0, p.width, p.height, "image") for b in p.boxes)) for p in boxed.pictures]
    whole = snapshot.Snapshot(boxed.head, labelled, boxed.images, boxed.labels)
    monkeypatch.setattr(snapshot, "read", lambda run: whole)
    item = drawn("image", count=1).head["items"][0]
    assert item["boxes"] == [["bright", 0, 0, 60, 44]] and item["boxes_from"] == "whole"


def test_what_a_prior_cannot_do_is_said(boxed: snapshot.Snapshot, good: snapshot.Snapshot) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (dict(prior="none such"), NotFoundError, "none such"), (dict(class_name="dent"), ConfigError, "'dent'. It has bright"),
        (dict(dataset="good"), ConfigError, "carries a box")]
    for settings, kind, word in cases:
        with pytest.raises(kind, match=word):
            drawn("image", **settings)
    with pytest.raises(ConfigError, match="'inpaint' is for the method 'prior'"):
        synthesize.run(config(start="inpaint"), rundir.create("synthesize", {}), plates.silent)


def test_no_prior_draws_a_known_class_in_outlines_of_a_new_kind(boxed: snapshot.Snapshot) -> None:
    """Whatever class is asked for: its label would not be what the outlines are of."""
    for number, name in enumerate(("fibre", "bright")):
        run = rundir.create("collect-masks", {}, state="completed")
        (folder := run / ".masks").mkdir()
        masks.write(folder / "0.png", disc((60, 60), 12))
        rundir.keep_artifact(folder, run, "masks", dict(key=f"kind {number}", name=name, items=[dict(file="0.png")]))
    for class_name in ("", "bright"):
        with pytest.raises(ConfigError, match="of 'fibre', which no train image of 'with boxes' shows.*Fill them by the method 'perturb'"):
            drawn("inpaint", masks="fibre", class_name=class_name)
    found = drawn("inpaint", masks="bright", count=2, strength=1.0)
    assert found.result["classes"] == dict(bright=2) and found.head["shapes"] == "kind 1"


def test_what_is_drawn_again_has_its_parents_and_another_noise(boxed: snapshot.Snapshot) -> None:
    first = drawn("image", count=5)
    marked = [first.head["items"][i] for i in (3, 1)]
    told = json.dumps(dict(seed=0, attempts=dict(bright=[i["attempt"] for i in marked])))
    second = drawn("image", count=2, seed=5, again=told)
    assert second.result["images"] == 2 and [i["again"] for i in second.head["items"]] == [3, 1]
    for before, after in zip(marked, second.head["items"], strict=True):
        assert (after["parent"], after["seed"], after["attempt"] < 2) == (before["parent"], 5, True)
        assert (opened(first.folder / before["file"]) != opened(second.folder / after["file"])).any()
    with pytest.raises(ConfigError, match="nothing to make dent of again. Classes are: bright"):
        drawn("image", again='{"seed": 0, "attempts": {"dent": [1]}}')


def test_an_outline_of_what_was_drawn_anew_is_none_to_learn_pixels_by(boxed: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the parent's, and the defect has moved within its box."""
    method = by_prior.ByPrior(Synthesize(dataset="with boxes", method="prior", prior="tiny"), boxed)
    method.prior = SimpleNamespace(adapter_key="", adapter_hash="")                              # type: ignore[assignment]
    parent = replace(method.of_class["bright"].parents[0], mask="m")
    pixels = method.of_class["bright"][0]
    monkeypatch.setattr(by_prior.images, "load_mask", lambda name: np.ones(pixels.shape[:2], bool))
    made = method._of_parent(parent, pixels, pixels, "words")
    assert made.mask is not None and made.mask.all() and made.exact is False


def test_where_one_made_again_is_refused_it_is_tried_once_more_itself() -> None:
    again, some = methods.Again(3, dict(a=[4, 9], b=[2])), [methods.Task("a", n) for n in range(2)]
    assert [t.again for t in again.tasks([*some, methods.Task("b", 0)], [])] == [4, 9, 2]
    made = [dict(class_name="a", again=4), dict(class_name="b", again=2)]                   # 9 was refused
    tried = again.tasks([methods.Task("a", n) for n in (2, 3)], made)
    assert [(t.number, t.again) for t in tried] == [(2, 9), (3, 9)], "by other dice"
    many = methods.Again(3, dict(a=list(range(10))))                                       # and one that always is keeps none from its turn
    tried = [t.again for chunk in range(0, 12, 2) for t in many.tasks([methods.Task("a", chunk), methods.Task("a", chunk + 1)], [])]
    assert set(tried) == set(range(10))
    assert [t.again for t in methods.Again(3, dict(a=[4, 4, 9])).tasks(some, made)] == [4, 9], "one asked for twice is made twice"
    assert again.counts(["a", "b", "c"]) == dict(a=2, b=1, c=0)
    config = Synthesize(again='{"seed": 3, "attempts": {"a": [4]}}', seed=8)
    assert methods.chosen(config, methods.Task("a", 0, 4), 7) == methods.in_turn(3, 4, 7)
    assert methods.chosen(Synthesize(seed=8), methods.Task("a", 0), 7) == methods.in_turn(8, 0, 7)
    for text in ("no", "{}", '{"seed": 0, "attempts": [1]}', '{"seed": 0, "attempts": {"a": []}}', '{"seed": -1, "attempts": {"a": [1]}}'):
        with pytest.raises(ConfigError, match="Attempts to make again"):
            methods.Again.of(Synthesize(again=text))
    with pytest.raises(ConfigError, match="nothing to make b of again. Classes are: a."):
        again.counts(["a"])


def test_a_picture_of_several_classes_is_no_parent_of_one_while_there_are_others(boxed: snapshot.Snapshot,
                                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are of one class, and the other's boxes would stay round what these words drew."""
    name = "bright"
    config = Synthesize(dataset="with boxes", name="s", method="prior", prior="tiny", class_name=name)
    known = by_prior.ByPrior(config, boxed).of_class[name].parents
    mixed = replace(known[0], boxes=(*known[0].boxes, replace(known[0].boxes[0], class_name="other", x2=known[0].boxes[0].x1 + 1)))
    others = [mixed if p.image_id == mixed.image_id else p for p in boxed.pictures]
    kept = by_prior.ByPrior(config, replace(boxed, pictures=others))
    assert [p.image_id for p in kept.of_class[name].parents] == [p.image_id for p in known[1:]]
    assert "show other classes" not in kept._doubtful()
    left = [p for p in others if p.image_id not in {q.image_id for q in known[1:]}]
    alone = by_prior.ByPrior(config, replace(boxed, pictures=left))
    assert [p.image_id for p in alone.of_class[name].parents] == [mixed.image_id] and f"Of {name} there are only" in alone._doubtful()
    shapes = by_prior.ByPrior(replace(config, start="noise"), replace(boxed, pictures=others)).of_class[name].parents
    assert len(shapes) == len(known), "only its size is asked for"


def test_settings_of_other_methods_do_not_count() -> None:
    key = lambda **more: synthesize.key_of(config(**more), "s", {})  # noqa: E731
    assert key(method="paste", steps=9, depth=77, guidance=3.0) == key(method="paste") != key(method="paste", class_name="x")
    assert key(method="prior", depth=77, variance=2.0) == key(method="prior") != key(method="prior", guidance=3.0)
    assert key(strength=0.9, prompt="x") == key() != key(depth=77)
