"""From pictures to a deployed detector: the recipe on squares, what it refuses, and that it stays in its place."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import DemoModel
from backend.device import cores
from backend.errors import Canceled, ConfigError, InputError, ResourceError
from backend.inspection.precision import said
from backend.inspection.runtimes import as_floats, faster
from backend.jobs.report import Reporter
from tests import squares


def new_run(folder: Path) -> Path:
    (folder / "parts").mkdir(parents=True)
    return folder


def silent(**progress: Any) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    from backend.detection import trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "cores", squares.one_core)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two epochs on squares, with no network."""
    from backend.detection import train

    folder = tmp_path_factory.mktemp("made")
    material, run_dir = squares.material(folder / "data"), new_run(folder / "run")
    said: list[dict[str, Any]] = []
    report = Reporter(run_dir)
    with pytest.MonkeyPatch.context() as patch:
        squares.forbid_network(patch.setattr)
        result = train.make(squares.config(2), material, run_dir, lambda **k: (said.append(k), report(**k)))
    head = rundir.read_json(run_dir / "model" / "model.json")
    return SimpleNamespace(material=material, run_dir=run_dir, result=result, said=said, head=head)


def test_bundle(made: SimpleNamespace) -> None:
    head = made.head
    measured = {"precision.json"} if faster() else set()
    assert {p.name for p in (made.run_dir / "model").iterdir()} - {"model-int8.onnx"} == {"model.onnx", "model.json"} | measured
    if measured:                                                     # on val, by the figures of its page
        record = said(made.run_dir / "model", head["model_id"])
        record = record if "points" in record else record["int8"]
        assert (record["on"], record["images"]) == ("val", 4)
        assert record["points"]["map50"][0] == pytest.approx(100 * head["metrics"]["val"]["map50"], abs=0.05)
    assert (head["name"], head["kind"], head["classes"], head["imgsz"]) == ("squares", "detector", squares.CLASSES, squares.SIDE)
    assert head["model_id"] == hashlib.sha256((made.run_dir / "model" / "model.onnx").read_bytes()).hexdigest()[:16]
    assert set(head["thresholds"]) == set(squares.CLASSES) and all(0.05 <= t < 1 for t in head["thresholds"].values())
    assert head["settings"]["epochs"] == 2 and 1 <= head["chosen"]["epoch"] <= 2
    for split in ("val", "test"):
        figures = head["metrics"][split]
        assert (figures["images"], figures["boxes"], figures["good_images"]) == (4, 3, 1)
        assert 0 <= figures["map50_95"] <= figures["map50"] <= 1
        assert set(figures["recall"]) == set(figures["missed"]) == set(figures["ap50"])


def test_the_run_is_left_tidy(made: SimpleNamespace) -> None:
    assert not (made.run_dir / "training").exists()
    model = rundir.rows(made.run_dir, "models").to_pylist()
    assert len(model) == 1 and json.loads(model[0]["metrics"]) == made.head["metrics"]
    thresholds = rundir.rows(made.run_dir, "model_thresholds").to_pylist()
    assert {t["class_name"]: t["threshold"] for t in thresholds} == pytest.approx(made.head["thresholds"], abs=1e-6)


def test_result_feeds_estimates(made: SimpleNamespace) -> None:
    result = made.result
    assert result["images"] == 10 and result["epochs"] == 2 and result["imgsz"] == squares.SIDE
    assert result["seconds"] > 0 and result["epoch_seconds"] == pytest.approx(result["seconds"] / 2, abs=0.1)
    assert result["seconds_per_image_epoch"] == pytest.approx(result["epoch_seconds"] / 10, rel=0.01)


def test_progress_and_curves(made: SimpleNamespace) -> None:
    steps = [s["step"] for s in made.said]
    assert steps == sorted(steps) and steps[-1] == 2 and {s["total"] for s in made.said} == {2}
    assert "epoch 2, batch 3 of 3" in [s["message"] for s in made.said]
    curves = [json.loads(line) for line in (made.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [c["step"] for c in curves] == [1, 2]
    assert {"box_loss", "cls_loss", "dfl_loss", "val_box_loss", "map50", "map50_95", "learning_rate"} <= set(curves[0])


def test_the_artifact_answers_as_the_figures_say(made: SimpleNamespace) -> None:
    """Through the engine once more, apart from the recipe."""
    from backend.evaluation import detection as evaluation

    truth = made.material.truth["test"]
    found = evaluation.predict(made.run_dir / "model", sorted(truth), made.material.load, lambda n: None)
    again = {**evaluation.evaluate(found, truth, squares.CLASSES), **evaluation.rates(found, truth, made.head["thresholds"])}
    assert again == made.head["metrics"]["test"]


def test_export_of_a_fresh_network(tmp_path: Path) -> None:
    """`write_bundle` compares the artifact with its network; here with one whose answers are not all near zero."""
    import torch

    from backend.detection import export, network
    from backend.evaluation import detection as evaluation

    torch.manual_seed(0)
    wild = network.build(squares.config(1), {0: "red", 1: "blue", 2: "green"}).train()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
    batch = as_floats(pixels)
    for module in wild.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        wild(torch.from_numpy(batch))       # normalises by this batch from here on; untouched, a fresh network hardly sees its input
    wild.eval()
    about = dict(name="fresh", classes=["red", "blue", "green"], imgsz=96, snapshot_id="", dataset="", settings={})
    head = export.write_bundle(tmp_path, wild, **about)
    with torch.inference_mode():
        expected = wild(torch.from_numpy(batch))[0].numpy()
    raw = evaluation.raw_output(tmp_path, pixels)
    assert raw.shape == (5, 4 + 3, 12 * 12 + 6 * 6 + 3 * 3) and np.ptp(expected[:, :4]) > 10
    assert np.abs(raw - expected).max() < 0.1              # px; 0.01 by rounding, which a network this wild amplifies
    with torch.no_grad():
        wild.model[0].conv.weight += 0.1
    with pytest.raises(AssertionError, match="off by"):
        export.check(tmp_path, wild, head["imgsz"])


def test_cancel_acts_within_an_epoch(tmp_path: Path) -> None:
    from backend.detection import train

    run_dir, heard = new_run(tmp_path / "run"), []

    def report(**progress: Any) -> None:
        heard.append(progress["message"])
        if progress["message"] == "epoch 1, batch 2 of 3":
            raise Canceled

    with pytest.raises(Canceled):
        train.make(squares.config(2), squares.material(tmp_path / "data"), run_dir, report)
    assert heard[-1] == "epoch 1, batch 2 of 3"
    assert not (run_dir / "training").exists() and not (run_dir / "model").exists()


def test_all_cores_and_pictures_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics by itself leaves a core idle, and rewrites a JPEG with bytes behind its end: these may be the kept originals."""
    import torch

    from backend.detection import trainer

    monkeypatch.setattr(trainer, "cores", cores)
    squares.draw(tmp_path / "data")
    for path in (tmp_path / "data" / "images" / "train").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.with_suffix(".jpg").write_bytes(path.with_suffix(".jpg").read_bytes() + b"behind the end")
        path.unlink()
    before = {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    torch.set_num_threads(1)
    trainer.fit(squares.config(1), tmp_path / "data" / "data.yaml", tmp_path, lambda *_: None)
    assert torch.get_num_threads() == cores()
    assert {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()} == before


def test_out_of_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from backend.detection import trainer

    def full(self: Any, batch: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    squares.draw(tmp_path / "data")
    monkeypatch.setattr(trainer.Detector, "loss", full)
    with pytest.raises(ResourceError, match="Out of memory with 4 images of 64 px"):
        trainer.fit(squares.config(1), tmp_path / "data" / "data.yaml", tmp_path, lambda *_: None)


def test_a_loss_that_is_no_number_is_named() -> None:
    import torch

    from backend.detection.trainer import DetectorTrainer

    with pytest.raises(ConfigError, match="epoch 3.*lower learning rate"):
        DetectorTrainer._handle_nan_recovery(SimpleNamespace(loss=torch.tensor(float("nan"))), 2)


# ---- weights from outside

class Trap:
    """Unpickled, it runs code: here it would only make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.mkdir, (self.path,)


def test_weights_run_no_code(tmp_path: Path) -> None:
    import torch

    from backend.detection import start

    sprung = tmp_path / "sprung"
    torch.save({"model": Trap(sprung)}, tmp_path / "trap.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"model": Trap(sprung)}))
    (tmp_path / "noise.pt").write_bytes(b"no weights at all")
    for name in ("trap.pt", "plain.pt", "noise.pt"):
        with pytest.raises(InputError, match=f"{name} cannot be used"):
            start.from_file(tmp_path / name)
    assert not sprung.exists()
    with pytest.raises(ConfigError, match="neither a model"):
        start.from_file(tmp_path / "absent.pt")


def test_weights_are_taken_up(tmp_path: Path) -> None:
    """As Ultralytics saves them: half precision, other classes. The trunk is theirs, the head fits ours."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from backend.detection import network

    given = DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    torch.save({"model": given.half(), "ema": None, "epoch": -1}, tmp_path / "given.pt")
    built = network.build(squares.config(1, weights=str(tmp_path / "given.pt")), {0: "red", 1: "blue"})
    assert torch.equal(built.model[0].conv.weight, given.float().model[0].conv.weight)
    assert built.model[-1].nc == 2
    with pytest.raises(ConfigError, match="another network"):
        network.build(squares.config(1, weights=str(tmp_path / "given.pt"), size="s"), {0: "red", 1: "blue"})


# ---- what is refused before any work

@pytest.mark.parametrize(("change", "word"), [(dict(imgsz=200), "192 or 224"), (dict(name=""), "name")])
def test_settings_that_do_not_fit(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    from backend.config import TrainDetector
    from backend.detection import train

    with pytest.raises(ConfigError, match=word):
        train.run(TrainDetector(**{**squares.config(1).to_json(), **change}), tmp_path, silent)


def test_nothing_labelled(tmp_path: Path) -> None:
    from backend.detection import train

    material = squares.material(tmp_path / "data")
    material.truth["val"] = {name: [] for name in material.truth["val"]}
    with pytest.raises(ConfigError, match="val split.*no labelled defect"):
        train.make(squares.config(1), material, tmp_path, silent)


def test_leaks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a leak is, `test_leaks` has."""
    from backend.data import snapshot
    from backend.detection import train
    from tests import plates

    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    run = plates.imported(tmp_path / "in", "plates")
    data = snapshot.read(run)
    first, *rest = data.pictures
    made = replace(first, image_id="f" * 64, split="train", origin="synthetic", parent="", donor=data.by_split("val")[0].image_id)
    monkeypatch.setattr(snapshot, "read", lambda _: replace(data, pictures=[made, *rest]))
    with pytest.raises(ConfigError, match="1 synthetic images .* come from images of its val or test"):
        train.from_snapshot(run, tmp_path / "work" / "yolo")


# ---- whole recipes

def test_demo_model(tmp_path: Path) -> None:
    from backend.detection import demo_model

    run_dir = new_run(tmp_path / "run")
    demo_model.run(DemoModel(images=30, epochs=1, imgsz=64, out=str(tmp_path / "out")), run_dir, silent)
    for name in ("model.onnx", "model.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run_dir / "model" / name).read_bytes()


def test_committed_demo_model() -> None:
    """What a newcomer's first upload meets: small enough to commit, whole, and decent."""
    from backend.config import demo_assets
    from backend.data import demo
    from backend.inspection.engine import Engine

    folder = demo_assets() / "model"
    if not folder.exists():
        pytest.skip("no demo model here: make demo-model")
    engine, head = Engine(folder), rundir.read_json(folder / "model.json")
    assert sum(p.stat().st_size for p in folder.iterdir()) < 12_000_000
    assert engine.classes == list(demo.CLASSES) and head["metrics"]["test"]["map50"] > 0.6
