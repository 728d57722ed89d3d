"""What a training keeps of its look at the locked test set: records, parts, the count; and the same of a model trained before."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend import rundir
from backend.config import Score, TrainDetector
from backend.data import snapshot
from backend.data.marks import Box
from backend.errors import ConfigError
from backend.evaluation import detection, looks
from backend.evaluation.outcomes import Outcomes
from backend.evaluation.scored import Scored, average_precision
from tests import mixed, squares


def carried_out(recipe: str, config: Any) -> tuple[Path, dict[str, Any]]:
    from backend.jobs import recipes

    run_dir = rundir.create(recipe, config.to_json(), state="running")
    result = recipes.load(recipe)(config, run_dir, lambda **_: None)
    rundir.write_json(run_dir / "result.json", result)
    rundir.set_state(run_dir, "completed")
    return run_dir, result


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Two arms with equal steps on a dataset with synthetic images: two real labels alone, and all images."""
    from backend.detection import trainer

    root = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root / "data"))
        patch.setattr(trainer, "cores", squares.one_core)
        snapshot_run = mixed.imported(root / "in")
        arms = {}
        for name, more in (("tenth", dict(labels=2, origin="real")), ("both", dict())):
            config = TrainDetector(**{**squares.config(1, shown=9).to_json(), "dataset": "mixed", "name": name, **more})
            arms[name] = carried_out("train-detector", config)
        yield SimpleNamespace(root=root, snapshot_run=snapshot_run, runs={n: run for n, (run, _) in arms.items()},
                              results={n: result for n, (_, result) in arms.items()})


def test_an_import_then_a_model(plant: SimpleNamespace) -> None:
    """A folder becomes a snapshot, and the snapshot a model that `rundir.find_model` finds."""
    run, data = plant.runs["both"], snapshot.read(plant.snapshot_run)
    head = rundir.read_json(run / "model" / "model.json")
    assert rundir.find_model("both") == run / "model" and plant.results["both"]["dataset"] == "mixed"
    assert head["snapshot_id"] == data.snapshot_id and head["metrics"]["test"]["boxes"] == sum(len(p.boxes) for p in data.by_split("test"))
    longest = max(max(b.x2 - b.x1, b.y2 - b.y1) for p in data.by_split("train") for b in p.boxes)
    assert head["learned"]["side"] >= squares.SIDE * 0.5 and 0 < head["learned"]["object"] <= longest, "larger pictures are cut to it"


def test_arms_of_equal_steps(plant: SimpleNamespace) -> None:
    told = plant.results
    assert {arm: (t["real_images"], t["synthetic_images"]) for arm, t in told.items()} == {"tenth": (2, 0), "both": (10, 6)}
    assert {(t["steps"], t["images_seen"], t["images"]) for t in told.values()} == {(3, 9, 9)}
    for result, run in zip(told.values(), plant.runs.values(), strict=True):
        test = rundir.read_json(run / "model" / "model.json")["metrics"]["test"]
        assert result["missed_images"] == test["missed_images"] and result["false_rejects"] == test["false_rejects"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_records_say_what_the_model_s_figures_say(plant: SimpleNamespace, split: str) -> None:
    run = plant.runs["both"]
    head, data = rundir.read_json(run / "model" / "model.json"), snapshot.read(plant.snapshot_run)
    scored, outcomes = Scored.load(run / "scored" / f"{split}.npz"), Outcomes.load(run / "scored" / f"{split}-images.npz")
    assert scored.images.tolist() == outcomes.images.tolist() == sorted(p.image_id for p in data.by_split(split))
    ap50, ap = average_precision(scored, np.ones(len(scored.images)))
    figures = head["metrics"][split]
    assert np.nanmean(ap50) == pytest.approx(figures["map50"], abs=1e-4) and np.nanmean(ap) == pytest.approx(figures["map50_95"], abs=1e-4)
    good, rejected = ~outcomes.defective, outcomes.rejects(head["thresholds"])
    assert figures["false_rejects"] == pytest.approx((good & rejected).sum() / good.sum(), abs=1e-4)
    assert figures["missed_images"] == pytest.approx((outcomes.defective & ~rejected).sum() / outcomes.defective.sum(), abs=1e-4)


def test_boxes_are_kept_with_what_they_hit(plant: SimpleNamespace) -> None:
    """As the engine answers, as `detection.match` judges at IoU 0.5."""
    from backend.data import images

    run, data = plant.runs["both"], snapshot.read(plant.snapshot_run)
    known = looks.truth(data, "test")
    ids = {p.file_name: p.image_id for p in data.pictures}
    found = detection.predict(run / "model", sorted(known), lambda n: np.asarray(images.load(ids[n])), lambda n: None)
    wanted = {(ids[p["file_name"]], p["category"], round(p["score"], 5)): hit for p, hit in detection.match(found, known)
              if p["score"] >= 0.05}
    rows = rundir.rows(run, "predictions").to_pylist()
    assert {(r["image_id"], r["class_name"], round(r["confidence"], 5)): r["hits"] & 1 == 1 for r in rows} == wanted
    assert all((r["hit_box"] >= 0) == (r["hits"] & 1 == 1) and r["x1"] < r["x2"] and r["split"] == "test" for r in rows)


def test_a_look_is_counted_once(plant: SimpleNamespace) -> None:
    for run in plant.runs.values():
        model_id = rundir.read_json(run / "model" / "model.json")["model_id"]
        val, test = rundir.rows(run, "looks").to_pylist()
        assert (val["split"], test["split"], test["model_id"], test["images"], test["good_images"], test["boxes"]) == (
            "val", "test", model_id, 4, 1, 3)
        assert val["test_set_id"] == test["test_set_id"] == rundir.test_set_id(plant.snapshot_run)
    known = {"val": {}, "test": {"a": []}}
    about = dict(model_id="m", snapshot_id="s", test_set_id="t", classes=["red"], thresholds={})
    (plant.root / "again" / "parts").mkdir(parents=True)
    assert looks.count(plant.root / "again", 1, about, known) == looks.count(plant.root / "again", 1, about, known), "a resumed run's"


def test_a_model_trained_before_is_scored_once_more(plant: SimpleNamespace) -> None:
    """The same records and rows; the training finds them where it has none of its own."""
    run = plant.runs["tenth"]
    (run / "scored").rename(plant.root / "aside")
    assert rundir.scored(run.name) is None
    try:
        again, result = carried_out("score", Score(model="tenth"))
        assert rundir.scored(run.name) == again / "scored" and not (again / "scoring").exists()
        for file in ("val.npz", "test.npz", "val-images.npz", "test-images.npz"):
            kind = Outcomes if "images" in file else Scored
            one, two = kind.load(plant.root / "aside" / file), kind.load(again / "scored" / file)
            assert all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
        assert rundir.rows(again, "predictions") == rundir.rows(run, "predictions")
        assert {k: result[k] for k in ("map50", "val_map50", "test_set_id")} == {k: plant.results["tenth"][k] for k in
                                                                                 ("map50", "val_map50", "test_set_id")}
        assert looks.run(Score(model="tenth"), again, lambda **_: pytest.fail("it looks again")) == result
    finally:
        (plant.root / "aside").rename(run / "scored")
    assert rundir.scored(run.name) == run / "scored"


def test_what_is_no_detector_is_not_scored(plant: SimpleNamespace) -> None:
    from tests import tiny_model

    run = rundir.create("train-classifier", {}, state="completed")
    tiny_model.bundle(run / "model", b"none", name="whole", model_id="c" * 16, kind="classifier")
    with pytest.raises(ConfigError, match="'whole' is a classifier"):
        looks.run(Score(model="whole"), run, lambda **_: None)


# ---- the test set

def test_snapshots_that_differ_in_train_share_a_test_set(plant: SimpleNamespace) -> None:
    real, both = rundir.find_snapshot("mixed real"), rundir.find_snapshot("mixed")
    assert rundir.test_set_id(real) == rundir.test_set_id(both) == snapshot.read(both).test_set_id
    assert rundir.read_json(real / "snapshot.json")["snapshot_id"] != rundir.read_json(both / "snapshot.json")["snapshot_id"]


def test_another_box_another_test_set(plant: SimpleNamespace) -> None:
    data = snapshot.read(plant.snapshot_run)
    bare = replace(data, head={k: v for k, v in data.head.items() if k != "test_set_id"})
    assert bare.test_set_id == data.test_set_id, "a snapshot of an older program does not say it"
    renamed = replace(bare, pictures=[replace(p, file_name=p.file_name + "x") for p in data.pictures][::-1])
    assert renamed.test_set_id == data.test_set_id
    test = data.by_split("test")[0]
    moved = replace(bare, pictures=[replace(p, boxes=(Box("red", 1, 2, 3, 4),)) if p is test else p for p in data.pictures])
    assert moved.test_set_id != data.test_set_id


def test_an_older_snapshot_s_test_set_follows_from_its_manifest(plant: SimpleNamespace, tmp_path: Path) -> None:
    head = rundir.read_json(plant.snapshot_run / "snapshot.json")
    said = head.pop("test_set_id")
    rundir.write_json(tmp_path / "snapshot.json", head)
    (tmp_path / "manifest.json").write_bytes((plant.snapshot_run / "manifest.json").read_bytes())
    assert rundir.test_set_id(tmp_path) == said


# ---- a second file of one content

def test_a_content_that_is_there_twice() -> None:
    assert looks.by_content({"b": [], "a": [], "c": []}, {"a": "1" * 64, "b": "1" * 64}) == {"a": "1" * 64, "b": "1" * 64 + "-2", "c": "c"}


def test_the_surer_box_takes_the_hit() -> None:
    def box(score: float, x: float, category: str = "red") -> dict[str, Any]:
        return dict(file_name="a", category=category, bbox=[x, 0.0, 10.0, 10.0], score=score)

    known = {"a": [("red", [50.0, 0.0, 10.0, 10.0]), ("red", [0.0, 0.0, 10.0, 10.0])]}
    found = [box(0.3, 0.0), box(0.9, 1.0), box(0.8, 50.0), box(0.04, 50.0), box(0.7, 90.0), box(0.6, 0.0, "blue")]
    rows = [(r["class_name"], round(r["confidence"], 2), r["hits"], r["hit_box"]) for r in looks.rows("m", found, known)]
    assert rows == [("blue", 0.6, 0, -1), ("red", 0.9, 0b1111111, 0), ("red", 0.8, 0b1111111111, 1), ("red", 0.7, 0, -1),
                    ("red", 0.3, 0b1110000000, -1)], "at IoU 0.82 the surest takes seven of ten; the less sure has the other three"
    json.dumps(rows)
