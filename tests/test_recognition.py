"""A classifier, from class folders to a scored bundle: classes of pictures, batches, training, resuming, thresholds, figures."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from backend import rundir
from backend.config import TrainClassifier
from backend.data import snapshot
from backend.data.marks import Box
from backend.data.snapshot import Picture, Snapshot
from backend.errors import Canceled, ConfigError
from backend.evaluation import classification as evaluation
from backend.inspection.classifier_engine import ClassifierEngine
from backend.inspection.runtimes import as_floats
from backend.recognition import batches, export, learn, material, networks, train
from tests import plates, small_classes
from tests.squares import one_core

SIDE = 32


class Tiny(nn.Module):
    """A few thousand parameters, with batch statistics and dropout, for what does not hang on the network."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32),
                                    nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "resnet18", Tiny)


class Killed(BaseException):
    """Stands for a kill where a process of its own would only cost time."""


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(learn, "cores", one_core)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot.read(small_classes.imported(small_classes.drawn(tmp_path_factory.mktemp("plates"))))


def config(**more: Any) -> TrainClassifier:
    return TrainClassifier(**{"dataset": "plates", "name": "c", "steps": 4, "imgsz": SIDE, "batch": 8, "precision": "f32", **more})


def made(data: Snapshot, report: Any = plates.silent, **more: Any) -> tuple[Path, dict[str, Any]]:
    run = rundir.create("train-classifier", {})
    return run, train.make(config(**more), data, run, report)


@pytest.fixture(scope="module")
def trained(data: Snapshot) -> tuple[Path, dict[str, Any]]:
    said: list[dict[str, Any]] = []
    run, result = made(data, lambda **k: said.append(k), steps=40, batch=8, learning_rate=2e-3)
    assert [s["step"] for s in said if "classification_loss" in s] == [20, 40]
    return run, result


def without(data: Snapshot, *splits: str) -> Snapshot:
    return replace(data, pictures=[p for p in data.pictures if p.split not in splits])


def picture(*boxes: Box, mask: str = "", **more: Any) -> Picture:
    return Picture(**{"image_id": "0", "file_name": "0.png", "width": 60, "height": 40, "phash": "", "split": "train", **more},
                   boxes=boxes, mask=mask)


# ---- what a picture is of, and what is refused

def test_the_class_of_a_picture() -> None:
    pit, small, again = Box("pit", 0, 0, 20, 20), Box("crack", 0, 0, 18, 18), Box("crack", 30, 0, 40, 10)
    assert material.class_of(picture(pit, small)) == "pit"
    assert material.class_of(picture(pit, small, again)) == "crack", "all boxes of a class together"
    assert material.class_of(picture(pit, Box("dust", 0, 0, 60, 40), Box("crack", 0, 0, 60, 40, "image"))) == "crack"
    assert material.class_of(picture()) == "good"
    assert material.class_of(picture(mask="m")) == "", "a defect of which nobody says the class is no good part"


def test_classes_are_those_that_train_shows(data: Snapshot) -> None:
    known = material.from_snapshot(data)
    assert known.classes == known.names == ["spot", "stripe", "good"] and known.defects == ["spot", "stripe"]
    assert {s: len(p) for s, p in known.pictures.items()} == {"train": 36, "val": 12, "test": 18} and not known.warnings
    for split, labels in known.labels.items():
        assert [known.names[k] in p.file_name for k, p in zip(labels, known.pictures[split], strict=True)] == [True] * len(labels)
    bare = replace(data, pictures=[p for p in data.pictures if p.split != "train" or p.boxes])
    known = material.from_snapshot(bare)
    assert known.classes == ["spot", "stripe"] and known.names == ["spot", "stripe", "good"]
    assert known.warnings == ["good (10): in val and test, but not in train. The model cannot tell it and is wrong on each."]


def test_one_content_in_train_and_test_is_learned_from_nowhere(data: Snapshot) -> None:
    tested = data.by_split("test")[0]
    known = material.from_snapshot(replace(data, pictures=[*data.pictures, replace(tested, split="train")]))
    assert tested.image_id not in {p.image_id for p in known.pictures["train"]} and len(known.pictures["test"]) == 18


def test_too_few_classes_are_refused(data: Snapshot) -> None:
    def only(*classes: str) -> Snapshot:
        return replace(data, pictures=[p for p in data.pictures if material.class_of(p) in classes])

    with pytest.raises(ConfigError, match="at least two classes apart, and the train pictures of 'plates' show only 'spot'"):
        made(only("spot"))
    with pytest.raises(ConfigError, match="show no labelled defect, so there is nothing to tell apart"):
        made(only("good"))
    with pytest.raises(ConfigError, match="show nothing"):
        made(only())
    with pytest.raises(ConfigError, match="A class of this dataset is called 'good'"):
        material.from_snapshot(replace(data, head=data.head | {"classes": ["good", "spot"]}))


def test_settings_are_checked_before_any_work() -> None:
    with pytest.raises(ConfigError, match="32 or 64, not 40"):
        train.check_settings(config(imgsz=40))
    with pytest.raises(ConfigError, match="a name"):
        train.check_settings(config(name=""))


def test_leaks_are_refused(data: Snapshot) -> None:
    """What a leak is, `test_leaks` has."""
    made = replace(data.by_split("train")[0], origin="synthetic", donor=data.by_split("val")[0].image_id)
    with pytest.raises(ConfigError, match="1 synthetic images .* come from images of its val or test"):
        material.from_snapshot(replace(data, pictures=[*data.pictures[1:], replace(made, image_id="f" * 64)]))


# ---- batches

def test_every_picture_comes_once_before_any_comes_again() -> None:
    order = batches.Order(np.zeros(10, bool), 4, None, seed=3)
    seen = np.concatenate([order.step(i) for i in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10].tolist() != seen[10:].tolist()
    assert (batches.Order(np.zeros(10, bool), 4, None, seed=3).step(2) == order.step(2)).all(), "it follows from seed and step"


def test_real_and_synthetic_share_the_steps() -> None:
    synthetic = np.arange(20) >= 6
    order = batches.Order(synthetic, 5, 0.3, seed=0)
    steps = [order.step(i) for i in range(8)]
    real = [int((~synthetic[s]).sum()) for s in steps]
    assert set(real) == {1, 2} and sum(real) == 12 and {len(s) for s in steps} == {5}
    seen = np.concatenate(steps)
    assert sorted(seen[~synthetic[seen]]) == sorted([*range(6)] * 2), "each real one as often as any other"
    assert len(set(seen[synthetic[seen]][:14])) == 14
    for share, rows in ((0.0, range(6, 20)), (1.0, range(6))):
        assert set(batches.Order(synthetic, 14, share, seed=0).step(0)) == set(rows)
    assert batches.Order(np.zeros(4, bool), 2, 0.3, seed=0).share is None, "nothing synthetic to balance with"


def test_real_share_reaches_the_training(data: Snapshot, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset with made pictures: steps see as many of them as asked for, whatever their number."""
    pictures = [replace(p, origin="synthetic") if p.split == "train" and i % 4 else p for i, p in enumerate(data.pictures)]
    mixed, seen = replace(data, pictures=pictures), list[float]()
    known = material.from_snapshot(mixed)
    assert 20 < known.synthetic.sum() < 36
    step = batches.Order.step
    monkeypatch.setattr(batches.Order, "step", lambda self, n: (rows := step(self, n), seen.append(known.synthetic[rows].mean()))[0])
    _, result = made(mixed, real_share=0.5, augment="none")
    assert set(seen) == {0.5} and result["synthetic"] == known.synthetic.sum() and not result["warnings"]
    _, result = made(data, real_share=0.5)
    assert result["warnings"] == ["The share of real images was not used: all train images are real."]


def test_augmentation_shows_each_picture_and_nothing_else() -> None:
    """A quarter of one brightness each: the corners name the symmetry, and the whole stays within what light may change."""
    picture = np.zeros((16, 16, 3), np.uint8)
    for k, (y, x) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        picture[y:y + 8, x:x + 8] = 60 + 40 * k
    images = batches.pixels(np.stack([picture] * 200))
    assert images.shape == (200, 3, 16, 16) and images.max() == 180 / 255
    found = batches.augmented(images, np.random.default_rng(0))
    assert (found[:, 0] == found[:, 1]).all() and (found[:, 0] == found[:, 2]).all(), "grey stays grey"
    corners = found[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].argsort(1)
    ways = {tuple(c.tolist()) for c in corners}
    assert len(ways) == 8, "the eight symmetries of the square, and no other order of the corners"
    means = found.mean((1, 2, 3)) - images.mean()
    assert 0.05 < float(means.abs().max()) < 0.25 and float(means.std()) > 0.02
    assert torch.equal(found, batches.augmented(images, np.random.default_rng(0)))


# ---- training

def test_it_learns(trained: tuple[Path, dict[str, Any]]) -> None:
    run, result = trained
    assert result["accuracy"] > 0.9 and result["balanced_accuracy"] > 0.9, result
    assert result["images"] == 36 and result["classes"] == ["spot", "stripe", "good"] and result["seconds_per_step"] > 0
    head = rundir.read_json(run / "model" / "model.json")
    assert head["kind"] == "classifier" and head["classes"] == ["spot", "stripe"] and head["all_classes"] == ["spot", "stripe", "good"]
    assert set(head["thresholds"]) == {"spot", "stripe"} and head["metrics"]["test"]["images"] == 18
    assert head["metrics"]["test"]["false_rejects"] < 0.2 and "missed_images" in head["metrics"]["val"]
    [row] = rundir.rows(run, "models").to_pylist()
    assert row["kind"] == "classifier" and row["model_id"] == result["model_id"] == head["model_id"] and row["classes"] == head["classes"]
    assert json.loads(row["metrics"]) == head["metrics"] and rundir.rows(run, "model_thresholds").num_rows == 2
    assert (run / "samples.png").read_bytes()[:4] == b"\x89PNG" and not (run / "training-classifier").exists()


def test_the_deployed_graph_is_the_network(trained: tuple[Path, dict[str, Any]]) -> None:
    run, _ = trained
    net = networks.network("resnet18", 3, seed=1)
    net.load_state_dict(load_file(run / "classifier" / "network.safetensors"))
    images = np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    with torch.inference_mode():
        expected = net.eval()(torch.from_numpy(as_floats(images))).softmax(1).numpy()
    found = next(ClassifierEngine(run / "model", "onnxruntime-cpu").raw([images]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with torch.no_grad():
        net.net.fc.bias[0] += 1
    with pytest.raises(AssertionError, match="the exported network is off by"):
        export.check(run / "model", export.Deployed(net).eval(), SIDE)


def test_lite0_starts_from_its_weights_and_all_of_it_learns(data: Snapshot) -> None:
    from backend.teacher.extractors import lite0

    start = lite0().state_dict()
    run, result = made(data, network="efficientnet-lite0", steps=2, batch=4, augment="none")
    learnt = load_file(run / "classifier" / "network.safetensors")
    for name in ("_conv_stem.weight", "_blocks.7._depthwise_conv.weight", "_conv_head.weight", "_bn0.running_mean"):
        now, before = learnt[f"net.{name}"], start[name]
        assert not torch.equal(now, before), name
        assert float((now - before).abs().mean()) < 0.5 * float(before.abs().mean()) + 0.1, "near where it started"
    assert result["parameters"] > 3e6 and not any(k.startswith("net._fc") for k in learnt)


def test_killed_and_resumed_is_undisturbed(data: Snapshot, monkeypatch: pytest.MonkeyPatch, tiny: None) -> None:
    whole, result = made(data, steps=5)
    monkeypatch.setattr(learn, "SAVE_S", 0)
    run = rundir.create("train-classifier", {})

    def deadly(at: str) -> Any:
        def report(message: str = "", **more: Any) -> None:
            if at in message:
                raise Killed
        return report

    said: list[str] = []
    for moment in ("step 1 of 5", "step 4 of 5", "scoring on val"):
        with pytest.raises(Killed):
            train.make(config(steps=5), data, run, deadly(moment))
        assert not (run / "model").exists()
    resumed = train.make(config(steps=5), data, run, lambda message="", **k: said.append(message))
    assert not [m for m in said if "step" in m], "training was done"
    a, b = (load_file(r / "classifier" / "network.safetensors") for r in (whole, run))
    assert all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()
    assert {k: v for k, v in resumed.items() if "seconds" not in k} == {k: v for k, v in result.items() if "seconds" not in k}

    # killed after all of it: the result is told again without work
    assert train.make(config(steps=5), data, run, deadly("")) == resumed


def test_another_seed_or_dataset_does_not_take_up_what_is_there(data: Snapshot) -> None:
    keys = {train.key_of(config(**more), data.snapshot_id) for more in ({}, {"seed": 1}, {"augment": "none"}, {"real_share": 0.5})}
    assert len({*keys, train.key_of(config(), "other")}) == 5
    assert train.key_of(config(dataset="plates"), "x") == train.key_of(config(dataset="x"), "x"), "its name does not count"


def test_cancel_leaves_nothing(data: Snapshot, tiny: None) -> None:
    run = rundir.create("train-classifier", {})

    def report(step: int = 0, **more: Any) -> None:
        if step == 2:
            raise Canceled
    with pytest.raises(Canceled):
        train.make(config(), data, run, report)
    assert sorted(p.name for p in run.iterdir()) == ["job.json", "parts", "samples.png", "state.json"]


def test_a_loss_that_is_no_number_ends_it(data: Snapshot, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "pixels", lambda images: torch.full((len(images), 3, SIDE, SIDE), float("nan")))
    with pytest.raises(ConfigError, match="came apart in step 1"):
        made(data, augment="none")


# ---- thresholds and figures

def test_thresholds_follow_from_val_alone(data: Snapshot, tiny: None) -> None:
    """Labels of test say nothing to the model or to its thresholds; those of val move thresholds and no weight."""
    def turned(split: str) -> Snapshot:
        other = {"spot": "stripe", "stripe": "spot"}
        return replace(data, pictures=[replace(p, boxes=tuple(replace(b, class_name=other[b.class_name]) for b in p.boxes))
                                       if p.split == split else p for p in data.pictures])

    heads = [rundir.read_json(made(d, steps=15, learning_rate=0.02)[0] / "model" / "model.json")
             for d in (data, turned("test"), turned("val"))]
    assert len({h["model_id"] for h in heads}) == 1
    assert heads[0]["thresholds"] == heads[1]["thresholds"] != heads[2]["thresholds"]
    assert heads[0]["metrics"]["val"] == heads[1]["metrics"]["val"]
    assert heads[0]["metrics"]["test"]["confusion"] != heads[1]["metrics"]["test"]["confusion"]


def test_without_val_thresholds_stand_at_a_half_and_it_is_said(data: Snapshot, tiny: None) -> None:
    run, result = made(without(data, "val"))
    head = rundir.read_json(run / "model" / "model.json")
    assert head["thresholds"] == {"spot": 0.5, "stripe": 0.5} and head["metrics"]["val"] == {} and head["metrics"]["test"]["images"] == 18
    assert result["warnings"] == ["The dataset has no val split, so no threshold could be chosen: each class counts from a probability "
                                  "of 50 %."]
    assert result["val_accuracy"] is None and result["accuracy"] is not None
    known = material.from_snapshot(replace(data, pictures=[p for p in data.pictures if p.split != "val" or "stripe" not in p.file_name]))
    assert known.warnings == ["The val split shows no picture of stripe, so these count from a probability of 50 %."]


def test_without_test_it_is_not_scored(data: Snapshot, tiny: None) -> None:
    run, result = made(without(data, "test"))
    assert result["accuracy"] is None and "no test split" in result["warnings"][0]
    assert rundir.read_json(run / "model" / "model.json")["metrics"]["test"] == {}


def test_figures_by_hand() -> None:
    names = ["pit", "good", "dust"]                                              # dust: only the truth knows it
    shown = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6], [0.55, 0.45], [0.7, 0.3]], np.float32)
    truth = np.array([0, 0, 0, 1, 1, 2])
    found = evaluation.evaluate(shown, truth, names)
    assert found["confusion"] == {"names": names, "counts": [[2, 1, 0], [1, 1, 0], [1, 0, 0]]}
    assert found["accuracy"] == 0.5 and found["class_accuracy"] == {"pit": 0.6667, "good": 0.5, "dust": 0.0}
    assert found["balanced_accuracy"] == round((2 / 3 + 1 / 2) / 3, 4) and found["images"] == 6
    rates = evaluation.rates(shown, truth, names, {"pit": 0.58})
    assert rates["missed"] == {"pit": 0.3333, "dust": 0.0} and rates["missed_images"] == 0.25 and rates["false_rejects"] == 0.0
    nothing = evaluation.evaluate(shown[:0], truth[:0], names)
    assert nothing["accuracy"] is None and nothing["balanced_accuracy"] is None and nothing["class_accuracy"] == {}


def test_thresholds_by_hand() -> None:
    """Pits at 0.9 and 0.6, others at 0.5 and 0.1: the best cut lies halfway between 0.6 and 0.5."""
    shown = np.array([[0.9, 0.05, 0.05], [0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    chosen = evaluation.choose_thresholds(shown, np.array([0, 0, 2, 2]), ["pit", "crack", "good"])
    assert chosen == {"pit": pytest.approx(0.55), "crack": 0.5}, "none of crack is here; good parts have no threshold"
