"""Figures of a synthetic set: their arithmetic against known answers, what is seen of pictures, which are compared, and the recipe."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import MeasureSynthesis, Synthesize
from backend.data import snapshot
from backend.errors import Canceled, InputError, NotFoundError
from backend.inspection.engine import Engine
from backend.synthesis import figures, labelled, looks, lots, measures, quality, synthesize
from backend.teacher.extractors import extractor
from tests import plates, surfaces, tiny_model
from tests.squares import one_core
from tests.tiny_prior import tiny_surface

Spots = Callable[[int], list[np.ndarray]]


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        for module in (quality, synthesize):
            patch.setattr(module, "cores", one_core)
        for name, value in (("SIDE", 64), ("SMALL", 64), ("CELLS", 4)):      # the pictures' own; a fourth of the work
            patch.setattr(looks, name, value)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return surfaces.imported(tmp_path_factory.mktemp("in") / "in", "surfaces")


@pytest.fixture(scope="module")
def eye() -> looks.Eye:
    return looks.Eye(extractor("efficientnet-lite0"))


def fresh(n: int, class_id: int = 0, of: int = 9) -> list[np.ndarray]:
    return [surfaces.surface(class_id, [of, class_id, i])[0] for i in range(n)]


def of_class(data: snapshot.Snapshot, name: str = "spots") -> list[str]:
    return [p.image_id for p in lots.real_of(data, name)]


# ---- distance

def slow(x: Any, y: Any, gx: Any, gy: Any) -> float:
    """The definition, pair by pair."""
    def k(a: Any, b: Any) -> float:
        return float((sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3)

    def within(v: Any, g: Any) -> float:
        pairs = [k(v[i], v[j]) for i in range(len(v)) for j in range(len(v)) if g[i] != g[j]]
        return sum(pairs) / len(pairs)

    return within(x, gx) + within(y, gy) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_distance_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.normal(0.3, 1, (5, 4))
    assert measures.kid(x, y).value == pytest.approx(slow(x, y, range(7), range(5)), abs=1e-12)
    together = ["a", "a", "b", "c", "c", "c", "d"]
    assert measures.kid(x, y, together, [1, 1, 2, 3, 4]).value == pytest.approx(slow(x, y, together, [1, 1, 2, 3, 4]), abs=1e-12)


def drawn(n: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Like features of one kind of surface: near each other, most of their spread along few directions."""
    x = 1 + 0.8 * 0.5 ** np.arange(12) * rng.normal(size=(n, 12)) + shift * np.array([1, 1, -1] + [0] * 9)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True) * 12**0.5)


@pytest.mark.parametrize("shift", [None, 0.15, 0.7])
@pytest.mark.parametrize("sizes", [(40, 40), (48, 12), (16, 8)])
def test_distance_is_unbiased_and_its_interval_holds(shift: float | None, sizes: tuple[int, int]) -> None:
    """Two finite populations, drawn from with replacement, have a distance that can be worked out; none where they are one."""
    rng = np.random.default_rng(1)
    real = drawn(300, rng)
    made = real if shift is None else drawn(200, rng, shift)
    truth = measures.kernel(made, made).mean() + measures.kernel(real, real).mean() - 2 * measures.kernel(made, real).mean()
    found = [measures.kid(*(v[rng.integers(len(v), size=n)] for v, n in zip((made, real), sizes, strict=True))) for _ in range(400)]
    values = np.array([f.value for f in found])
    assert abs(values.mean() - truth) < 4 * values.std() / 20
    assert (truth == pytest.approx(0, abs=1e-12)) == (shift is None)
    held = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.90 <= held <= 0.98, "of 100 intervals 95 should; 0.98 is three deviations of 400 draws"


def test_pictures_of_one_parent_are_not_independent() -> None:
    """Eight parents, six pictures of each: told so, the distance is unbiased and its interval holds; else neither."""
    rng, told = np.random.default_rng(2), dict[str, list[Any]](with_groups=[], without=[])
    groups = np.repeat(np.arange(8), 6)
    for _ in range(300):
        made = drawn(8, rng)[groups] + 0.02 * rng.normal(size=(48, 12))
        real = drawn(30, rng) + 0.02 * rng.normal(size=(30, 12))
        told["with_groups"].append(measures.kid(made, real, groups))
        told["without"].append(measures.kid(made, real))
    held = {k: np.mean([f.low <= 0 <= f.high for f in v]) for k, v in told.items()}
    means = {k: np.mean([f.value for f in v]) for k, v in told.items()}
    assert 0.90 <= held["with_groups"] <= 0.98 and held["without"] < 0.7
    assert abs(means["with_groups"]) < 0.03 < 0.06 < means["without"]


def test_a_shift_is_seen_and_grows() -> None:
    rng = np.random.default_rng(3)
    real = rng.normal(size=(40, 8))
    found = [measures.kid(rng.normal(shift, 1, (40, 8)), real) for shift in (0.5, 1.0, 1.5)]
    assert found[0].low > 0 and all(a.high < b.low for a, b in pairwise(found))


def test_chance_is_what_splits_of_real_pictures_reach() -> None:
    rng = np.random.default_rng(4)
    real = rng.normal(size=(200, 5))
    limit = measures.chance(real, 30, 20)
    above = np.mean([measures.kid(rng.normal(size=(30, 5)), rng.normal(size=(20, 5))).value > limit for _ in range(400)])
    assert 0.02 < above < 0.09
    assert measures.chance(real, 30, 20) == limit and measures.chance(real, 10, 8) > limit > measures.chance(real, 90, 90)


@pytest.mark.parametrize("size, other, n", [(60, 12, 28), (60, 8, 32), (60, 28, 40)])
def test_chance_from_few_pictures_is_that_of_the_sizes_asked_for(size: int, other: int, n: int) -> None:
    """As many as are made and compared with there are none to split: what smaller samples reach is brought to these sizes."""
    rng = np.random.default_rng(8)
    reached = np.array([measures.kid(drawn(size, rng), drawn(other, rng)).value for _ in range(400)])
    limits = [measures.chance(drawn(n, rng), size, other, i) for i in range(12)]
    above = np.mean([(reached > limit).mean() for limit in limits])
    assert 0.03 < above < 0.09 and 0.75 < np.mean(limits) / np.quantile(reached, measures.LEVEL) < 1.25


def test_a_mean_of_estimates_is_surer_than_each() -> None:
    found = measures.mean([measures.Estimate(1.0, 0.7, 1.4), measures.Estimate(2.0, 1.6, 2.3)])
    assert (found.value, found.low, found.high) == (1.5, pytest.approx(1.25), pytest.approx(1.75))
    rng, real = np.random.default_rng(6), drawn(300, np.random.default_rng(7))
    held = [(e := measures.mean([measures.kid(real[rng.integers(300, size=20)], real[rng.integers(300, size=20)]) for _ in range(6)])).low
            <= 0 <= e.high for _ in range(200)]
    assert 0.88 <= np.mean(held)


# ---- copies and variety

def altered(image: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return {"same": image, "flipped": image[:, ::-1], "turned": np.rot90(image), "mirrored and turned": np.rot90(image[::-1]),
            "noisy": np.clip(image + rng.normal(0, 4, image.shape[:2])[..., None], 0, 255).astype(np.uint8),
            "darker": (image * 0.85).astype(np.uint8), "blurred": cv2.GaussianBlur(image, (0, 0), 0.7)}[how]


@pytest.fixture(scope="module")
def learned(eye: looks.Eye, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    images, scratch = fresh(40), tmp_path_factory.mktemp("learned")
    found = eye.gather(40, lambda some: [images[i] for i in some], scratch / "real", lambda i: None)
    return SimpleNamespace(images=images, looks=found, turned=eye.turned(40, lambda some: [images[i] for i in some], scratch / "known",
                                                                         lambda i: None))


@pytest.mark.parametrize("how", ["same", "flipped", "turned", "mirrored and turned", "noisy", "darker", "blurred"])
def test_planted_copies_are_found(how: str, eye: looks.Eye, learned: SimpleNamespace, tmp_path: Path) -> None:
    """Whatever was done to them, and nothing else is."""
    made = [altered(i, how) for i in learned.images[:6]] + fresh(6, of=77)
    seen = eye.gather(12, lambda some: [made[i] for i in some], tmp_path / "made", lambda i: None)
    found = measures.copies(seen.layout, learned.turned, learned.looks.layout, range(40), range(40))
    assert found.copied.tolist() == [True] * 6 + [False] * 6
    assert found.which[:6].tolist() == list(range(6)) and len(found.real) == 40


@pytest.mark.parametrize("real", [8, 24, 40, 150])
def test_so_many_count_as_copies_where_none_is_one(real: int) -> None:
    """Distances of real pictures and of new ones from one distribution: the share below the limit is the one told; the test holds."""
    rng, found = np.random.default_rng(real), list[measures.Counted]()
    for _ in range(1500):
        distances = rng.normal(size=real + 48)
        told = measures.Copies(distances[real:], np.zeros(48), distances[:real], float(np.quantile(distances[:real], measures.COPIED)))
        found.append(told.counted)
    share = np.mean([c.share for c in found])
    assert abs(share - found[0].chance) < 5 * np.std([c.share for c in found]) / 1500**0.5
    assert found[0].chance == pytest.approx({8: 0.119, 24: 0.049, 40: 0.034, 150: 0.016}[real], abs=0.001)
    assert np.mean([measures.copying([c]) for c in found]) < 0.06
    assert np.mean([measures.copying(found[i:i + 6]) for i in range(0, 1500, 6)]) < 0.09


def test_copies_are_too_many_where_chance_makes_fewer() -> None:
    assert not measures.copying([measures.Counted(12, 48, 8)]) and measures.copying([measures.Counted(12, 48, 400)])
    assert measures.copying([measures.Counted(44, 48, 8)]) and not measures.copying([measures.Counted(20, 1000, 1000)])
    assert measures.copying([measures.Counted(14, 48, 40)] * 6) and not measures.copying([measures.Counted(14, 48, 40), *[
        measures.Counted(0, 48, 40)] * 5]), "all classes together"
    assert not measures.copying([])


def test_near_duplicates_among_real_pictures_do_not_hide_copies(learned: SimpleNamespace) -> None:
    layout, turned = (np.concatenate([v, v[:1]]) for v in (learned.looks.layout, learned.turned))
    groups = [*range(40), 0]
    alone = measures.copies(layout, turned, layout, range(41), range(41))
    together = measures.copies(layout, turned, layout, groups, groups)
    assert alone.limit < 0.01 < together.limit < together.real.min() * 1.1 and together.copied.all()
    assert not len(measures.copies(layout, turned[:1], layout[:1], [0], [0]).real)


def test_nearest_is_the_smallest_of_all_distances() -> None:
    rng = np.random.default_rng(5)
    of, among = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (rng.normal(size=(5, 7)), rng.normal(size=(300, 3, 7))))
    distance, which = measures.nearest(of, among)
    direct = np.linalg.norm(of[:, None, None] - among[None], axis=3).min(2)                   # (5, 300)
    assert np.allclose(distance, direct.min(1), atol=1e-3) and (which == direct.argmin(1)).all()


def test_variety_is_the_mean_distance_and_falls_for_near_copies(learned: SimpleNamespace) -> None:
    x = learned.looks.kind
    direct = [np.linalg.norm(x[i] - x[j]) for i in range(40) for j in range(40) if i != j]
    assert measures.spread(x) == pytest.approx(np.mean(direct), rel=1e-5)
    nearly = looks.Looks(x[:1] + np.random.default_rng(0).normal(0, 0.02, (20, x.shape[1])), learned.looks.layout[:20])
    share, other = figures.diversity(nearly, learned.looks), figures.diversity(learned.looks[:20], learned.looks[20:])
    assert share is not None and other is not None and share < 0.3 and 0.8 < other < 1.25
    assert figures.diversity(nearly[:1], learned.looks) is None


# ---- what is seen of pictures

def test_looking_goes_on_where_it_was_left(eye: looks.Eye, learned: SimpleNamespace, tmp_path: Path) -> None:
    loaded = list[range]()

    def load(some: range) -> list[np.ndarray]:
        loaded.append(some)
        return [learned.images[i] for i in some]

    def stopped(i: int) -> None:
        if i >= 16:
            raise Canceled

    with pytest.raises(Canceled):
        eye.gather(40, load, tmp_path / "a", stopped)
    found = eye.gather(40, load, tmp_path / "a", lambda i: None)
    assert loaded == [range(16), range(16, 32), range(32, 40)]
    assert np.array_equal(found.kind, learned.looks.kind) and np.array_equal(found.layout, learned.looks.layout)
    assert len(eye.gather(0, load, tmp_path / "b", lambda i: None)) == 0


def test_looks_have_the_lengths_they_promise(learned: SimpleNamespace) -> None:
    kind, layout = learned.looks.kind, learned.looks.layout
    assert np.allclose([(level**2).mean(1) for level in np.split(kind, (24, 64), axis=1)], 1, atol=1e-4)
    assert np.allclose(np.linalg.norm(layout, axis=1), 1, atol=1e-4)
    assert learned.turned.shape == (40, looks.TURNS, layout.shape[1]) and np.allclose(learned.turned[:, 0], layout, atol=1e-3)
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert len({t.tobytes() for t in looks.turns(image)}) == 8


# ---- labels

def test_labels_are_found_by_a_half_and_by_their_middle() -> None:
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert labelled.iou([0, 0, 10, 10], others).tolist() == [1, pytest.approx(1 / 3), 0]
    tally = labelled.Tally()
    for told in ([[0, 0, 10, 9]], [[4, 4, 6, 6]], [[9, 9, 30, 30]], []):
        tally.add(["pits", 0, 0, 10, 10], np.array(told, float).reshape(-1, 4))
    assert tally.shares() == dict(labels=4, found=0.25, centred=0.5)
    assert labelled.Tally().shares() == dict(labels=0, found=None, centred=None)


def test_a_class_counts_by_its_own_threshold() -> None:
    """An engine around a network that always says one crack, 0.4 sure, over the left half."""
    raw = np.zeros((1, 4 + 2, 1), np.float32)
    raw[0, :, 0] = (16, 32, 32, 64, 0.4, 0.0)
    head = dict(name="n", model_id="m", classes=["crack", "pits"], imgsz=64, thresholds=dict(crack=0.3, pits=0.3))
    pictures = [(np.zeros((64, 64, 3), np.uint8), [["crack", 0, 0, 30, 60], ["pits", 0, 0, 30, 60]])]
    engine = Engine.of(head, lambda batch: raw)
    crack, pits = (labelled.checked(engine, pictures, name) for name in ("crack", "pits"))
    assert (crack.pictures, pits.pictures, crack.shares()["found"]) == ([[True]], [[False]], 1)
    assert labelled.checked(engine, pictures, "dent").labels == 0
    strict = Engine.of(head | dict(thresholds=dict(crack=0.5)), lambda batch: raw)
    assert labelled.checked(strict, pictures, "crack").found == 0


# ---- the recipe

def measured(folder: Path, **more: Any) -> tuple[Path, dict[str, Any]]:
    run = rundir.create("measure-synthesis", {})
    return run, quality.run(MeasureSynthesis(synthetic=folder.parent.name, **more), run, plates.silent)


def item(parent: str = "", class_name: str = "spots", **more: Any) -> dict[str, Any]:
    return dict(class_name=class_name, parent=parent, donor="", boxes=[[class_name, 5, 5, 30, 30]]) | more


def adapter(data: snapshot.Snapshot, learned: list[str]) -> str:
    """An adapter as far as a measurement reads it: what it learned from."""
    def write(run: Path) -> dict[str, Any]:
        (scratch := run / "scratch").mkdir()
        head = dict(key=rundir.key_of(run=run.name), name="adapted", snapshot_id=data.snapshot_id, learned=learned, held=[],
                    base=dict(where="nowhere", name="base"))
        rundir.keep_artifact(scratch, run, "adapter", head)
        return {}

    return str(rundir.read_json(plates.run_of("adapt-prior", write) / "adapter" / "head.json")["key"])


def test_new_pictures_of_a_class_are_near_and_no_copies(data: snapshot.Snapshot) -> None:
    """Another class under its name is far; copies of what was learned from are both near and told."""
    ids = of_class(data)
    about = dict(prior=dict(name="base", adapter=adapter(data, ids[:12]), base=""))
    good, wrong = fresh(16), fresh(16, class_id=1)
    copied = [quality.pixels(p)[:, ::-1] for p in lots.real_of(data, "spots")[:12]]
    rows = {}
    for name, images in (("good", good), ("wrong", wrong), ("copied", copied)):
        run, result = measured(surfaces.kept(images, [item() for _ in images], data, **about))
        rows[name] = result["classes"][0]
        assert result["measured"] == 1 and result["kid"] == rows[name]["kid"] and (run / "samples.png").exists()
    assert rows["good"]["reference"] == 12 and rows["good"]["known"] == 12 and rows["good"]["real"] == 24 and not rows["good"]["why"]
    assert rows["good"]["low"] < rows["good"]["chance"] and rows["good"]["copied"] < 0.2 and 0.7 < rows["good"]["diversity"] < 1.4
    assert rows["wrong"]["low"] > max(rows["good"]["high"], 5 * rows["good"]["chance"])
    assert rows["copied"]["copied"] == 1 and rows["copied"]["low"] < rows["copied"]["chance"]
    assert rows["good"]["floor_low"] < 0 < rows["good"]["floor_high"], "real pictures are as near as can be"


def test_nothing_that_made_a_set_is_its_reference(data: snapshot.Snapshot) -> None:
    """Not what the adapter learned from, no parent, no donor, and no near-duplicate of these."""
    ids = of_class(data)
    group = {p.image_id: lots.group(p) for p in data.pictures}
    head = dict(classes=["spots"], items=[item(ids[0], file="0.png"), item("", donor=ids[1], file="1.png")])
    known = lots.Learned(frozenset(ids[2:5]))
    lot = lots.lots(head, data, known, 0)[0]
    assert {p.image_id for p in lot.reference} == set(ids[5:]) and {p.image_id for p in lot.others} == set(ids[:5])
    assert {p.image_id for p in lot.known} == set(ids[:5]) and lot.groups == [group[i] for i in ids[:2]]
    twins = [p if p.image_id not in (ids[0], ids[9]) else snapshot.Picture(**vars(p) | dict(group_id="g")) for p in data.pictures]
    lot = lots.lots(head, snapshot.Snapshot(data.head, twins, data.images, data.labels), known, 0)[0]
    assert {p.image_id for p in lot.reference} == set(ids[5:9] + ids[10:]) and lot.groups == ["g", group[ids[1]]]
    assert not {p.image_id for p in lot.real + lot.known} & {p.image_id for p in data.pictures if p.split != "train"}


def test_what_the_base_prior_learned_is_found_wherever_it_is(data: snapshot.Snapshot, tmp_path: Path) -> None:
    """By its key, whatever else has its name by now; by its folder, where a person named that."""
    ids = of_class(data)
    prior = tiny_surface("twice", learned=(*ids[:3], "of another dataset"))
    tiny_surface("twice", seed=1)
    key = rundir.read_json(prior / "head.json")["key"]
    copied = shutil.copytree(prior, tmp_path / "copied")
    for where in (key, str(copied)):
        known = lots.learned(dict(prior=dict(name="twice", key=where, adapter="", base="")), data)
        assert known.base == set(ids[:3]) and "itself learned from 3 of this dataset's train images" in known.warnings[0]
    assert lots.learned(dict(prior=dict(name="somebody/steel", key="somebody/steel", adapter="", base="")), data) == lots.Learned()


def test_what_cannot_be_measured_is_said_and_the_rest_is_measured(data: snapshot.Snapshot) -> None:
    spots, scratches = of_class(data), of_class(data, "scratch")
    items = [item(i) for i in spots] + [item(scratches[i % 2], "scratch") for i in range(9)]
    gone = dict(name="gone", adapter="feedfeedfeedfeed", base="")
    _, result = measured(surfaces.kept(fresh(24) + fresh(9, 1), items, data, prior=gone))
    first, second = result["classes"]
    assert first["kid"] is None and "Too few of the 24 train images of the class are left" in first["why"]
    assert second["kid"] is None and "stem from too few real ones: 2" in second["why"] and second["copied"] is not None
    assert result["kid"] is None and result["measured"] == 0 and "'gone', is not there any more" in result["warnings"][0]
    assert result["warnings"][-1].startswith("No class has a distance. spots: Too few of the 24")
    few = lots.lots(dict(classes=["spots"], items=[item(file="0")]), data, lots.Learned(), 0)[0]
    assert "The set holds too few images of the class: 1" in few.why


def test_a_perturbed_set_stays_near_its_parents(data: snapshot.Snapshot) -> None:
    """Its class is none of the dataset's: it is compared with all defects. Items from before there were boxes say the same."""
    run = plates.run_of("synthesize", lambda run: synthesize.run(
        Synthesize(dataset="surfaces", name="p", count=8, source="noise", low_area=0.05), run, plates.silent))
    result = measured(run / "synthetic")[1]
    row = result["classes"][0]
    assert row["class_name"] == "defect" and row["reference"] == 48 and row["made"] == 8 and row["of_parent"] == 1
    assert row["kid"] > row["chance"] and result["pairs"][0]["parent"]
    head = rundir.read_json(run / "synthetic" / "head.json")
    boxes = [quality.labels(run / "synthetic", i, "defect") for i in head["items"]]
    old = [{k: v for k, v in i.items() if k not in ("boxes", "class_name", "boxes_from")} for i in head["items"]]
    assert boxes == [quality.labels(run / "synthetic", i, "defect") for i in old] and all(boxes)
    rundir.write_json(run / "synthetic" / "head.json", head | dict(items=old))
    again = measured(run / "synthetic")[1]
    assert [r | dict(class_name="") for r in again["classes"]] == [r | dict(class_name="") for r in result["classes"]]


def test_pairs_are_shown_nearest_first(data: snapshot.Snapshot) -> None:
    ids = of_class(data)
    copy = quality.pixels(lots.real_of(data, "spots")[3])
    folder = surfaces.kept([*fresh(9), copy], [item(ids[i]) for i in range(10)], data)
    run, result = measured(folder, name="called")
    first = result["pairs"][0]
    assert first | dict(distance=0, ratio=0) == dict(file="pair_000.png", class_name="spots", made="000009.png", real=ids[3], distance=0,
                                                     ratio=0, parent=False) and first["distance"] < 0.05
    assert [p["ratio"] for p in result["pairs"]] == sorted(p["ratio"] for p in result["pairs"]) and len(result["pairs"]) == 10
    with Image.open(run / "quality" / "pair_000.png") as shown:
        left, right = np.split(np.asarray(shown.convert("RGB")).astype(int), 2, axis=1)
    assert np.abs(left - right).max() == 0
    head = rundir.read_json(run / "quality" / "head.json")
    assert head["nearest"]["000009.png"][0] == ids[3] and head["result"] == result and result["name"] == "called"


def test_a_killed_measurement_goes_on_to_the_same(data: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = surfaces.kept(fresh(18), [item() for _ in range(18)], data)
    _, whole = measured(folder)
    config, run, told = MeasureSynthesis(synthetic=folder.parent.name), rundir.create("measure-synthesis", {}), list[dict[str, Any]]()

    def killed(**said: Any) -> None:
        told.append(said)
        if said["step"] >= 40:
            raise SystemExit

    with pytest.raises(SystemExit):
        quality.run(config, run, killed)
    looked = list[int]()
    load = quality.picture
    monkeypatch.setattr(quality, "pixels", lambda p: pytest.fail("looked at again"))
    monkeypatch.setattr(quality, "_pairs", lambda *rest: ([], []))
    monkeypatch.setattr(quality, "picture", lambda f, i: looked.append(1) or load(f, i))
    result = quality.run(config, run, plates.silent)
    assert result["classes"] == whole["classes"] and len(looked) == 2, "16 of 18 were on disk"
    monkeypatch.setattr(looks.Eye, "gather", lambda *rest: pytest.fail("measured again"))
    assert quality.run(config, run, plates.silent) == result and not (run / "measuring").exists()
    assert all(0 <= t["step"] <= t["total"] for t in told)


def test_canceling_leaves_nothing(data: snapshot.Snapshot) -> None:
    folder, run = surfaces.kept(fresh(8), [item() for _ in range(8)], data), rundir.create("measure-synthesis", {})

    def canceled(**said: Any) -> None:
        raise Canceled

    with pytest.raises(Canceled):
        quality.run(MeasureSynthesis(synthetic=folder.parent.name), run, canceled)
    assert not (run / "measuring").exists() and not (run / "quality").exists()


def test_a_detector_looks_at_labels_of_made_and_real_pictures(data: snapshot.Snapshot) -> None:
    detector = plates.run_of("train-detector", lambda run: dict(made=str(tiny_model.bundle(
        run / "model", classes=["spots", "scratch", "dent"], thresholds={}))))
    folder = surfaces.kept(fresh(8), [item() for _ in range(8)], data)
    run, result = measured(folder, detector="tiny")
    row = result["classes"][0]
    assert row["labels"] == 8 and row["real_labels"] == 2 and 0 <= row["found"] <= row["centred"] <= 1
    assert result["detector"] == "tiny" and result["found"] == row["found"] and "trained on another dataset" in result["warnings"][0]
    answers = rundir.read_json(run / "quality" / "head.json")["labels"]
    assert sorted(answers) == [f"{i:06d}.png" for i in range(8)] and row["found"] == np.mean([a for [a] in answers.values()])
    assert (detector / "model").exists()


def test_a_detector_is_tried_on_real_pictures_that_it_has_not_learned_from(data: snapshot.Snapshot) -> None:
    """Its own train images it knows by heart, and made ones would look wrong beside them."""
    lot = lots.lots(dict(classes=["spots"], items=[item(file="0.png")]), data, lots.Learned(), 0)[0]
    of_val = [p.image_id for p in data.by_split("val") if "spots" in p.classes]
    def tried(snapshot_id: str, made_by: str = "r") -> tuple[list[str], list[str]]:
        [real], warnings = lots.beside(dict(name="d", snapshot_id=snapshot_id), [lot], data, made_by)
        assert not {p.image_id for p in real} & {p.image_id for p in data.by_split("test")}
        return sorted(p.image_id for p in real), warnings

    assert tried(data.snapshot_id) == (sorted(of_val), [])
    assert tried("gone")[0] == sorted(of_val), "nobody knows what it learned from: the rest may be that"
    half = [p for i, p in enumerate(data.pictures) if p.split != "train" or i % 2]
    joined = [*half, replace(half[0], image_id="m" * 64, split="train", origin="synthetic", generator_run="r")]
    run = plates.run_of("import", lambda run: snapshot.write(run, joined, data.classes, [], dict(name="half", layout="yolo", seed=0,
                                                                                                   splits_from="folders")))
    own = snapshot.read(run)
    known = {p.image_id for p in half if p.split == "train"}
    found, warnings = tried(own.snapshot_id)
    assert found == sorted([*of_val, *(p.image_id for p in lot.reference if p.image_id not in known)]) and len(found) > len(of_val)
    assert "on another state of this one" in warnings[0] and "has learned from pictures of this very set" in warnings[1]
    assert len(tried(own.snapshot_id, made_by="another")[1]) == 1


def test_what_is_missing_is_said(data: snapshot.Snapshot) -> None:
    run = rundir.create("measure-synthesis", {})
    for name, words in (("", "Name the synthetic set"), ("nobody", "no synthetic set called 'nobody'")):
        with pytest.raises(NotFoundError, match=words):
            quality.run(MeasureSynthesis(synthetic=name), run, plates.silent)
    folder = surfaces.kept(fresh(8), [item() for _ in range(8)], data)
    (folder / "000003.png").unlink()
    with pytest.raises(InputError, match="000003.png of the synthetic set is missing"):
        measured(folder)
