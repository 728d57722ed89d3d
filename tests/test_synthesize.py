"""Sources, blending, what one sees of it, and the recipe: from good pictures to a labelled synthetic set."""

import io
import json
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
from backend.config import Import, Synthesize, TrainDiffusion
from backend.data import images, importer, marks, snapshot
from backend.diffusion import ddpm
from backend.errors import Canceled, ConfigError, NotFoundError
from backend.synthesis import blend, filling, keeping, masks, sources, synthesize
from backend.teacher.extractors import extractor
from tests import plates
from tests.squares import one_core

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
