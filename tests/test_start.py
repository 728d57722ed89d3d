"""What a training starts from: an earlier model of one's own goes on, and one that knows the judging pictures is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from backend import rundir
from backend.config import Experiment, TrainDetector, TrainDistilled
from backend.data import snapshot
from backend.detection import export, fuse, network, start, train
from backend.errors import ConfigError
from backend.jobs import plans
from tests import mixed, squares

CLASSES = ["blue", "red"]


@pytest.fixture
def data(data_folder: Path, tmp_path: Path) -> snapshot.Snapshot:
    return snapshot.read(mixed.imported(tmp_path / "squares"))


def trained(data: snapshot.Snapshot, name: str, **more: Any) -> Path:
    """A finished training whose network is one by chance: what it learnt from is what counts here."""
    torch.manual_seed(len(name))
    run = rundir.create("train-detector", TrainDetector(dataset=data.snapshot_id, name=name, **more).to_json(), state="running")
    made = DetectionModel("yolo11n.yaml", nc=len(CLASSES), verbose=False)
    head = dict(name=name, model_id=run.name[-6:], snapshot_id=data.snapshot_id, classes=CLASSES, imgsz=64, settings={"size": "n"})
    (run / "training").mkdir()
    export.write_weights(run / "training", run, made, head, {})
    rundir.set_state(run, "completed")
    return run


def moved(data: snapshot.Snapshot, name: str, old: str, new: str) -> snapshot.Snapshot:
    """The same pictures, one of split `old` in split `new`."""
    pictures = list(data.pictures)
    n = next(n for n, p in enumerate(pictures) if p.split == old and p.origin == "real" and p.boxes)
    pictures[n] = replace(pictures[n], split=new)
    run = rundir.create("import", {}, state="running")
    snapshot.write(run, [p for p in pictures if p.origin == "real"], data.classes, [], dict(name=name, layout="yolo", seed=0,
                                                                                             splits_from="lists"))
    rundir.set_state(run, "completed")
    return snapshot.read(run)


def settled(config: TrainDetector, data: snapshot.Snapshot) -> TrainDetector:
    found: TrainDetector = start.settle(config, data.snapshot_id, {p.image_id: p.split for p in data.pictures})
    return found


def test_a_training_goes_on_from_an_earlier_model(data: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, through the whole recipe: what the trainer gets is that network, and a later model of the same name changes nothing."""
    before = trained(data, "plates")
    asked: list[TrainDetector] = []

    def fit(config: TrainDetector, *_: Any) -> Any:
        asked.append(config)
        raise ConfigError("seen enough")

    monkeypatch.setattr(train.trainer, "fit", fit)
    run = rundir.create("train-detector", {}, state="running")
    with pytest.raises(ConfigError, match="seen enough"):
        train.run(replace(squares.config(1, weights="plates"), dataset=data.snapshot_id), run, lambda **_: None)
    trained(data, "plates")
    assert asked[0].weights == before.name
    built = network.build(asked[0], {0: "blue", 1: "red", 2: "green"})
    kept = start.from_model(before / "weights").state_dict()
    assert torch.equal(built.state_dict()["model.0.conv.weight"], kept["model.0.conv.weight"])
    last = "model.23.cv3.0.2.weight"
    assert torch.equal(built.state_dict()[last][:2], kept[last]), "classes of the same name keep what they learnt"


def test_a_start_that_knows_the_judging_pictures_is_refused(data: snapshot.Snapshot) -> None:
    """Also where it only began from one that does, and where nobody can tell."""
    run = trained(data, "plates")
    config = squares.config(1, weights="plates")
    assert settled(config, data).weights == run.name, "its own test pictures it has never seen"
    other = moved(data, "other", "train", "test")
    with pytest.raises(ConfigError, match="'plates'.* knows 1 of"):
        settled(config, other)
    clean = moved(data, "clean", "test", "test")
    trained(clean, "second", weights=run.name)
    with pytest.raises(ConfigError, match="'second'.* knows 1 of"):
        settled(squares.config(1, weights="second"), other)
    lost = trained(replace(data, head=data.head | dict(snapshot_id="gone")), "lost")
    with pytest.raises(ConfigError, match="is gone"):
        settled(squares.config(1, weights=lost.name), data)
    with pytest.raises(ConfigError, match="neither a model called 'nobody'"):
        network.build(squares.config(1, weights="nobody"), {0: "blue"})


def test_an_experiment_is_not_planned_from_a_start_that_knows_the_judging_pictures(data: snapshot.Snapshot) -> None:
    """Not one training is queued that would be refused; of some arms' own start neither."""
    run = trained(data, "plates")
    asked = dict(name="x", epochs=1, imgsz=64, batch=4, seeds=1)
    told = plans.outlook(Experiment(dataset="mixed", arms="real, both", weights="plates", **asked))
    assert {c["weights"] for arm in told["arms"].values() for c in arm["runs"]} == {run.name}, "its own test pictures it has never seen"
    other = moved(data, "other", "train", "test")
    for more in (dict(arms="labels", weights="plates"), dict(arms='{"a": {"weights": "plates"}, "b": {"labels": 2}}')):
        with pytest.raises(ConfigError, match="'plates'.* knows 1 of"):
            plans.outlook(Experiment(dataset=other.snapshot_id, **asked, **more))
    lost = trained(replace(data, head=data.head | dict(snapshot_id="gone")), "lost")
    with pytest.raises(ConfigError, match="is gone"):
        plans.outlook(Experiment(dataset=other.snapshot_id, arms="labels", weights=lost.name, **asked))


def test_a_teacher_follows_from_the_model_that_it_starts_from(data: snapshot.Snapshot) -> None:
    """So that a guided run of another start does not take over its teacher."""
    runs = [trained(data, name) for name in ("one", "another")]
    keys = {fuse.key(TrainDistilled(weights=w), data.snapshot_id, "r") for w in (None, *(r.name for r in runs))}  # type: ignore[arg-type]
    assert len(keys) == 3
    assert start.key("one") == start.key(runs[0].name) != ""
