"""From a denoiser to a distilled student: fused at gate zero is plain, stages are reused and resumed, the student is a plain YOLO11n."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import rundir
from backend.config import BuildRepository, Distill, Import, TeachBackbone, TrainDetector, TrainDiffusion, TrainDistilled, TrainFused
from backend.errors import Canceled, ConfigError, InputError
from tests import mixed, squares

SHAPE = dict(dataset="squares", imgsz=squares.SIDE, batch=4)
STUDENT = Distill(**SHAPE, name="s", epochs=2, teacher="f", loss="mgd")


def silent(**told: Any) -> None:
    """A report that nobody reads."""


def carried_out(recipe: str, config: Any, report: Any = silent) -> tuple[Path, dict[str, Any]]:
    """Run a recipe in a run directory of its own, here."""
    from backend.jobs import recipes

    run_dir = rundir.create(recipe, config.to_json(), state="running")
    result = recipes.load(recipe)(config, run_dir, report)
    rundir.set_state(run_dir, "completed")
    return run_dir, result


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A dataset of squares with a small denoiser, a repository, a taught backbone and a fused teacher."""
    from backend.detection import teach, trainer
    from backend.diffusion import ddpm
    from backend.teacher import repository

    root = tmp_path_factory.mktemp("distill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root / "data"))
        for module in (trainer, teach, ddpm, repository):
            patch.setattr(module, "cores", squares.one_core)
        patch.setattr(ddpm, "PREVIEW", 2)
        patch.setitem(ddpm.PRESETS, "tiny", ddpm.Preset((8, 16, 16, 16), 1, 32, 4, 4, 0.9))
        squares.draw(root / "pictures")
        made = {"import": carried_out("import", Import(path=str(root / "pictures"), name="squares"))}
        made["denoiser"] = carried_out("train-diffusion", TrainDiffusion(dataset="squares", name="d"))
        made["repository"] = carried_out("build-repository", BuildRepository(dataset="squares", name="r", steps=20))
        made["backbone"] = carried_out("teach-backbone", TeachBackbone(dataset="squares", name="b", steps=4, imgsz=squares.SIDE, batch=4))
        made["fused"] = carried_out("train-fused", TrainFused(**SHAPE, name="f", epochs=2))
        yield made


@pytest.fixture(scope="module")
def plain(plant: dict[str, Any]) -> Path:
    """A plain detector of one pass, called `plain`."""
    return carried_out("train-detector", TrainDetector(**SHAPE, name="plain", epochs=1))[0]


def batch_of(plant: dict[str, Any], course: Any, config: TrainDetector, augment: bool = True) -> dict[str, Any]:
    """One batch as the trainer makes it."""
    import torch

    from backend.detection import train, trainer

    scratch = plant["import"][0].parent / "scratch"
    scratch.mkdir(exist_ok=True)
    material = train.from_snapshot(rundir.find_snapshot("squares"), scratch / "data")
    one = trainer.DetectorTrainer(config, material.data, scratch, lambda *a: None, course)
    one.data = one.get_dataset()
    data = one.build_dataset(one.data["train" if augment else "val"], "train" if augment else "val", 4)
    batch = data.collate_fn([data[i] for i in range(4)])
    one.device = torch.device("cpu")
    return one.preprocess_batch(batch)


# ---- the fused detector

def test_at_gate_zero_the_fused_detector_is_the_plain_one(plant: dict[str, Any]) -> None:
    import torch

    from backend.detection import fuse, network

    config = TrainFused(**SHAPE, name="x", precision="f32")
    features = fuse.Features(rundir.find_artifact("repository"))
    torch.manual_seed(3)
    plain = network.build(config, {0: "red", 1: "blue"}).eval()
    torch.manual_seed(3)
    fused = fuse.fused(config, {0: "red", 1: "blue"}, features.repository.widths).eval()
    batch = batch_of(plant, fuse.Fusing(features), config)
    fused.read(batch)
    assert any(c.detach().abs().max() > 0 for c in fused.contexts)
    with torch.no_grad():
        assert torch.equal(plain(batch["img"])[0], fused(batch["img"])[0])
        for level in fused.fusion.levels:
            level.gate += 1
        assert not torch.equal(plain(batch["img"])[0], fused(batch["img"])[0]), "with open gates the features count"


def test_the_teacher_is_kept_with_scores_and_gates(plant: dict[str, Any]) -> None:
    run_dir, result = plant["fused"]
    head = rundir.read_json(run_dir / "fused" / "head.json")
    assert head["metrics"]["test"]["images"] == squares.COUNTS["test"] and result["map50"] == head["metrics"]["test"]["map50"]
    assert not (run_dir / "training-fused").exists()
    assert not (run_dir / "model").exists(), "a teacher is never deployed"
    looked = rundir.rows(run_dir, "looks").to_pylist()
    assert [(row["split"], row["model_id"]) for row in looked] == [("val", ""), ("test", "")], "its look at test counts all the same"


def test_gates_move_and_are_told(plant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And the weights of the taps beside them. What is remembered of pictures lasts an epoch, or resuming would change the result."""
    from backend.detection import fuse

    told: list[dict[str, Any]] = []
    held, forget = list[int](), fuse.Recent.forget
    monkeypatch.setattr(fuse.Recent, "forget", lambda recent: held.append(len(recent.rows)) or forget(recent))
    carried_out("train-fused", TrainFused(**SHAPE, name="g", epochs=2, seed=5), lambda **t: told.append(t))
    curves = [t for t in told if "gate_p3" in t]
    assert len(curves) == 2 and all(curves[0][f"gate_{p}"] > 0 for p in ("p3", "p4", "p5"))
    weights = [[c[f"tap_{name}"] for name in ("t20_b0", "t20_b1", "t20_b2", "t20_b3")] for c in curves]
    assert all(sum(w) == pytest.approx(1) and min(w) > 0.1 for w in weights) and weights[0] != weights[1]
    assert held[0] == 0 < held[1] and len(held) == 2, "forgotten where each epoch begins"


def test_a_picture_is_decoded_once_a_batch_and_not_widened(plant: dict[str, Any]) -> None:
    """What fusion reads of a batch with mosaics is what it would of whole features, decoded for every source."""
    import torch

    from backend.detection import fuse, warp

    config = TrainFused(**SHAPE, name="x", precision="f32")
    features = fuse.Features(rundir.find_artifact("repository"))
    batch = batch_of(plant, course := fuse.Fusing(features), config)
    pictures = len(set(batch["sources"].key))
    assert pictures == len(batch["features"]) == len(course.recent.rows) < len(batch["sources"])
    assert batch["features"].shape[1] == features.repository.latent_channels + 96 and batch["expansion"] is not None

    network = fuse.fused(config, {0: "red", 1: "blue"}, features.repository.widths)
    network.read(batch)
    keys = batch["sources"].key
    maps = network.projected(features.decoded(keys), None)
    whole = warp.warp(maps, batch["sources"], torch.from_numpy(features.repository.extents(keys)), 4, network.contexts[0].shape[2:])
    assert (network.contexts[0] - whole).abs().mean() < 0.02 * whole.abs().mean(), "but for bf16"


def test_recent_pictures_are_made_once_and_the_oldest_forgotten() -> None:
    import torch

    from backend.detection.features import Recent

    made: list[list[str]] = []

    def make(keys: list[str]) -> torch.Tensor:
        made.append(keys)
        return torch.tensor([[float(k)] * 2 for k in keys]).reshape(-1, 2)

    recent = Recent(make, room=3 * 8)                                        # bytes: three rows
    assert recent(["1", "2"])[:, 0].tolist() == [1, 2] and recent(["3", "1"])[:, 0].tolist() == [3, 1]
    assert recent(["4", "3"])[:, 0].tolist() == [4, 3] and recent(["2", "1"])[:, 0].tolist() == [2, 1]
    assert made == [["1", "2"], ["3"], ["4"], ["2"]], "2 was the longest unused when 4 came"
    assert recent(["5", "6", "7", "8"])[:, 0].tolist() == [5, 6, 7, 8] and len(recent.rows) == 3
    assert recent([]).shape == (0, 2)
    recent.forget()
    assert recent(["8"]).tolist() == [[8, 8]] and made[-1] == ["8"]


def test_scores_come_from_each_picture_s_own_features(plant: dict[str, Any]) -> None:
    """Letterboxed as deployed, the map of a picture lies where the picture lies."""
    import torch

    from backend.detection import fuse
    from backend.detection.warp import warp
    from backend.inspection.engine import Engine

    engine = Engine.of(dict(model_id="", name="-", classes=["a"], imgsz=64), lambda b: b)
    prepared = [engine.prepare(np.zeros((40, 80, 3), np.uint8))]
    sources = fuse.letterboxed(["k"], prepared, 64)
    shown = warp(torch.ones(1, 1, 8, 8), sources, torch.ones(1, 2), 1, (64, 64))[0, 0] > 0
    rows = torch.nonzero(shown.any(1)).flatten()
    assert (rows.min(), rows.max() + 1) == (16, 48) and shown[20].all(), "32 of 64 rows, in the middle"


def test_only_this_snapshot_s_repository(plant: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="build-repository"):
        carried_out("train-fused", TrainFused(**{**SHAPE, "name": "x", "repository": "another"}))


# ---- the taught backbone

def test_backbone_is_taken_up_whole(plant: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import load_file

    from backend.detection import network

    taught = load_file(plant["backbone"][0] / "backbone" / "backbone.safetensors")
    built = network.build(TrainDetector(**SHAPE, name="x", backbone="b"), {0: "red"}).state_dict()
    assert all(torch.equal(built[k], v) for k, v in taught.items())
    assert {k for k in built if int(k.split(".")[1]) <= 10} == set(taught)
    with pytest.raises(ConfigError, match="no taught backbone"):
        network.build(TrainDetector(**SHAPE, name="x", backbone="none"), {0: "red"})
    with pytest.raises(ConfigError, match="size n"):
        network.build(TrainDetector(**SHAPE, name="x", backbone="b", size="s"), {0: "red"})


def test_teaching_lowers_its_loss_and_resumes_bit_by_bit(plant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.detection import teach

    monkeypatch.setattr(teach, "SAVE_S", 0)
    config = TeachBackbone(dataset="squares", name="t", steps=21, imgsz=squares.SIDE, batch=4)
    told: list[dict[str, Any]] = []
    whole, _ = carried_out("teach-backbone", config, lambda **t: told.append(t))
    losses = [t["loss"] for t in told if "loss" in t]
    assert losses[-1] < losses[0]

    run_dir = rundir.create("teach-backbone", config.to_json(), state="running")
    for attempt in (7, 17, 99):
        def stop(step: int, attempt: int = attempt, **told: Any) -> None:
            if step == attempt:
                raise KeyboardInterrupt
        try:
            teach.run(config, run_dir, stop)
        except KeyboardInterrupt:
            continue
    one, two = (p / "backbone" / "backbone.safetensors" for p in (whole, run_dir))
    assert one.read_bytes() == two.read_bytes()


def test_a_kept_backbone_is_not_taught_again(plant: dict[str, Any]) -> None:
    """The power went between the artifact and the run's result. Made of other settings, it does not count."""
    from backend.detection import teach

    config = TeachBackbone(dataset="squares", name="t", steps=2, imgsz=squares.SIDE, batch=4)
    run_dir, first = carried_out("teach-backbone", config)
    (run_dir / "training-backbone").mkdir()
    told: list[dict[str, Any]] = []
    assert teach.run(config, run_dir, lambda **t: told.append(t)) == first and not told
    assert not (run_dir / "training-backbone").exists()
    assert teach.run(replace(config, steps=3), run_dir, silent)["steps"] == 3


def test_teaching_never_sees_val_or_test(plant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.data import images, snapshot
    from backend.detection import teach

    opened: list[str] = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda data, name: opened.append(Path(name).stem) or decode(data, name))
    carried_out("teach-backbone", TeachBackbone(dataset="squares", name="t", steps=1, imgsz=squares.SIDE, batch=4))
    data = snapshot.read(rundir.find_snapshot("squares"))
    assert set(opened) == {p.image_id for p in data.by_split("train")} and teach


def test_fewer_labels_take_equal_steps(plant: dict[str, Any]) -> None:
    last = -(-squares.COUNTS["train"] // 4)
    config = TrainDetector(**SHAPE, name="few", epochs=1, labels=2)

    def stop(message: str = "", **told: Any) -> None:
        if message == f"epoch 1, batch {last} of {last}":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carried_out("train-detector", config, stop)
    with pytest.raises(ConfigError, match="9 labelled train images, fewer than 10"):
        carried_out("train-detector", replace(config, labels=10))


# ---- the student

@pytest.fixture(scope="module")
def student(plant: dict[str, Any]) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """Of the loss that draws lots, so that it is what a resumed one must come to."""
    told: list[dict[str, Any]] = []
    run_dir, result = carried_out("distill", STUDENT, lambda **t: told.append(t))
    return run_dir, result, told


def test_the_student_s_graph_is_the_plain_one(plain: Path, student: Any) -> None:
    """Operators, their order, attributes and wiring, shapes and parameters: inference costs nothing more."""
    import onnx

    one, two = (onnx.load(run / "model" / "model.onnx").graph for run in (plain, student[0]))
    assert len(one.node) == len(two.node)
    for mine, theirs in zip(nodes(one), nodes(two), strict=True):
        assert mine == theirs
    assert [list(t.dims) for t in one.initializer] == [list(t.dims) for t in two.initializer]
    assert [str(o.type) for o in one.output] == [str(o.type) for o in two.output]
    assert (plain / "weights" / "network.safetensors").stat().st_size == (student[0] / "weights" / "network.safetensors").stat().st_size


def nodes(graph: Any) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Of each operator, and last of the outputs: what it is, its attributes, and where each of its inputs comes from: an input of the
    graph, an output of an earlier operator, or an initializer by its type and shape, and its values where it is not learned."""
    from onnx import helper, numpy_helper

    given = {t.name: ("input", i, str(t.type)) for i, t in enumerate(graph.input)}
    learned = {name for node in graph.node if node.op_type == "Conv" for name in node.input}
    for t in graph.initializer:
        given[t.name] = ("initializer", t.data_type, tuple(t.dims), None if t.name in learned else str(numpy_helper.to_array(t).tolist()))
    given[""] = ("nothing",)                                     # an optional input that is left out
    found = []
    for at, node in enumerate(graph.node):
        attributes = {a.name: str(helper.get_attribute_value(a)) for a in node.attribute}
        found.append((node.op_type, attributes, [given[name] for name in node.input]))
        given |= {name: ("operator", at, i) for i, name in enumerate(node.output)}
    return [*found, ("outputs", {}, [given[o.name] for o in graph.output])]


@pytest.mark.parametrize("change", ["strides", "wiring", "group"])
def test_another_graph_is_told_from_the_plain_one(plain: Path, change: str) -> None:
    """Of equal operators, shapes and outputs."""
    import onnx
    from onnx import helper

    one, two = (onnx.load(plain / "model" / "model.onnx").graph for _ in range(2))
    if change == "wiring":
        last = [node for node in two.node if len(node.input) == 2 and node.op_type == "Concat"][-1]
        last.input[:] = [last.input[1], last.input[0]]
    else:
        conv = next(node for node in two.node if node.op_type == "Conv")
        attribute = next(a for a in conv.attribute if a.name == change)
        attribute.CopyFrom(helper.make_attribute(change, [1, 1] if change == "strides" else 3))
    assert nodes(one) != nodes(two) and [n.op_type for n in one.node] == [n.op_type for n in two.node]


def test_the_distillation_term_is_as_large_as_the_box_loss(student: Any) -> None:
    curves = [t for t in student[2] if "distill_loss" in t]
    assert len(curves) == 2
    assert all(0.3 < c["distill_loss"] / c["box_loss"] < 3 for c in curves)
    assert student[1]["teacher"] == "f"


def test_a_student_learns_from_a_plain_teacher(plain: Path) -> None:
    _, result = carried_out("distill", Distill(**SHAPE, name="young", epochs=1, teacher="plain", logit_weight=0.5))
    assert result["teacher"] == "plain"
    with pytest.raises(ConfigError, match="no teacher"):
        carried_out("distill", Distill(**SHAPE, name="young", epochs=1, teacher="nobody"))


@pytest.mark.parametrize("optimizer", ["SGD", pytest.param("MuSGD", marks=pytest.mark.slow)])
def test_the_rival_of_the_benchmark_really_distils(plain: Path, optimizer: str) -> None:
    """Ultralytics' own distillation in our harness: its term is there, and a plain detector comes out. With the optimiser of all arms."""
    from tests.benchmarks import rival

    told: list[dict[str, Any]] = []
    config = rival.TrainRival(**SHAPE, name="rival", epochs=1, teacher="plain", optimizer=optimizer)
    run_dir, _ = carried_out("train-rival", config, lambda **t: told.append(t))
    assert [t["dis_loss"] > 0 for t in told if "dis_loss" in t] == [True]
    assert (run_dir / "model" / "model.onnx").exists()


@pytest.mark.parametrize("arm", ["plain", "self", "ultralytics"])
def test_no_arm_blends_or_pastes_pictures(plant: dict[str, Any], tmp_path: Path, arm: str) -> None:
    """Said by us, whatever a later library has by default; today it has the same. In the trainer that each arm's course gets."""
    from ultralytics.cfg import get_cfg

    from backend.detection import distill, network, trainer
    from tests.benchmarks import rival

    config = Distill(**SHAPE, name="x")
    courses = {"plain": trainer.Course, "ultralytics": lambda: rival.Rival(tmp_path / "teacher.pt"),
               "self": lambda: distill.Distilling(config, network.build(config, {0: "red", 1: "blue"}), None)}
    course, off = courses[arm](), dict.fromkeys(("mixup", "cutmix", "copy_paste"), 0.0)
    data = plant["import"][0].parent / "scratch" / "data"
    batch_of(plant, trainer.Course(), config)                                                    # lays the data out
    args = trainer.DetectorTrainer(config, data / "data.yaml", tmp_path, lambda *a: None, course).args
    assert {name: getattr(args, name) for name in off} == off == {name: getattr(get_cfg(), name) for name in off}
    assert off.items() <= (trainer.overrides(config, data, tmp_path) | dict(course.settings)).items(), "not left to the library"


@pytest.mark.parametrize("loss", ["cwd", "mgd"])
def test_only_the_student_learns(plant: dict[str, Any], loss: str) -> None:
    import torch
    from ultralytics.cfg import get_cfg

    from backend.detection import distill, fuse

    larger = {**SHAPE, "imgsz": 96}                      # not the side at which the networks are asked for their widths
    config = Distill(**larger, name="x", loss=loss, logit_weight=1.0, precision="f32")
    teacher, features = fuse.load(rundir.find_artifact("fused"))
    course = distill.Distilling(config, teacher, features)
    batch = batch_of(plant, course, config)
    torch.manual_seed(0)
    network = course.network(config, {0: "red", 1: "blue"}).train()
    network.args = get_cfg()
    loss_, items = network.loss(batch)
    loss_.sum().backward()
    assert items["distill_loss"] > 0 and items["logit_loss"] > 0 and len(loss_) == 5
    assert network.model[0].conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("asked", [True, False])
def test_the_teacher_s_neck_is_its_own_in_less_time(plant: dict[str, Any], asked: bool) -> None:
    """Without normalisation layers, boxes and, where nobody asks, scores."""
    import torch

    from backend.detection import distill, fuse

    (whole, features), (other, _) = (fuse.load(rundir.find_artifact("fused")) for _ in range(2))
    whole.bf16 = other.bf16 = False
    short = distill.listened_to(other, asked)
    batch = batch_of(plant, fuse.Fusing(features), TrainFused(**SHAPE, name="x", precision="f32"))
    for network in (whole, short):
        network.read(batch)
    with torch.no_grad():
        (_, raw), neck = whole.with_neck(batch["img"])
        scores, same = short.with_neck(batch["img"])
    assert all(torch.allclose(a, b, atol=1e-3, rtol=1e-3) and a.std() > 0.01 for a, b in zip(neck, same, strict=True))
    assert torch.allclose(scores, raw["scores"], atol=1e-3, rtol=1e-3) if asked else scores is None
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in short.modules())


def test_resumed_distillation_is_undisturbed(plant: dict[str, Any], student: Any) -> None:
    from backend.detection import distill

    run_dir = rundir.create("distill", STUDENT.to_json(), state="running")

    def stop(step: int, **told: Any) -> None:
        if step == 1 and "map50" in told:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill.run(STUDENT, run_dir, stop)
    distill.run(STUDENT, run_dir, silent)
    one, two = (p / "weights" / "network.safetensors" for p in (student[0], run_dir))
    assert one.read_bytes() == two.read_bytes()


def test_a_teacher_taken_up_again_reads_the_repository_it_began_with(plant: dict[str, Any]) -> None:
    """Though a newer one was built meanwhile; and by MuSGD, which keeps two memories of each weight."""
    config = TrainFused(**SHAPE, name="again", epochs=2, optimizer="MuSGD")
    whole, _ = carried_out("train-fused", config)
    run_dir = rundir.create("train-fused", config.to_json(), state="running")
    from backend.detection import fuse

    def stop(step: int, **told: Any) -> None:
        if step == 1 and "map50" in told:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fuse.run(config, run_dir, stop)
    newer, _ = carried_out("build-repository", BuildRepository(dataset="squares", name="newer", steps=10))
    try:
        assert rundir.find_artifact("repository") == newer / "repository"
        result = fuse.run(config, run_dir, silent)
    finally:
        shutil.rmtree(newer)
    one, two = (p / "fused" / "network.safetensors" for p in (whole, run_dir))
    assert one.read_bytes() == two.read_bytes()
    assert fuse.run(config, run_dir, silent) == result, "killed before it was told, it is not trained again"

    # a teacher of other images is none
    head = rundir.read_json(run_dir / "fused" / "head.json")
    assert rundir.own_result(run_dir, "fused", head["key"]) and not rundir.own_result(run_dir, "fused", "0" * 16)
    shutil.rmtree(whole), shutil.rmtree(run_dir)


def test_what_another_teacher_left_behind_is_thrown_away(plant: dict[str, Any], tmp_path: Path) -> None:
    from backend.detection import train

    snapshot_run = rundir.find_snapshot("squares")
    train.from_snapshot(snapshot_run, tmp_path / "training" / "data", follows="one")
    (tmp_path / "training" / "checkpoint.pt").write_text("of one")
    train.from_snapshot(snapshot_run, tmp_path / "training" / "data", follows="one")
    assert (tmp_path / "training" / "checkpoint.pt").exists()
    train.from_snapshot(snapshot_run, tmp_path / "training" / "data", follows="another")
    assert not (tmp_path / "training" / "checkpoint.pt").exists()


# ---- all stages in one

def test_a_backbone_is_not_replaced_without_a_word(plant: dict[str, Any], tmp_path: Path) -> None:
    from backend.detection import guided

    for given in (dict(backbone="b"), dict(weights="plain")):
        with pytest.raises(ConfigError, match="Switch teaching off"):
            guided.run(TrainDistilled(**SHAPE, name="x", **given), tmp_path, silent)


def test_guided(plant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages leave artifacts, are told apart in the curves, and are reused by the next run, which an estimate knows before.

    On a share of a mixed dataset: the repository answers for synthetic images too; teacher and student see as many images as was asked
    for, of those chosen.
    """
    from backend.data import snapshot
    from backend.detection import guided
    from backend.detection.features import Features
    from backend.jobs import pace, reuse

    monkeypatch.setitem(pace.PRESETS, "tiny", (4, 4, 0.09))              # as the plant's
    data = snapshot.read(mixed.add(snapshot.read(plant["import"][0]), "mixed"))
    config = TrainDistilled(**{**SHAPE, "dataset": "mixed"}, name="all", epochs=1, diffusion_steps=3, teach_steps=2, repository_steps=10,
                            labels=5, synthetic=2, shown=7, timesteps="20 50", blocks="0 1", dynamic=False, neck_loss="cwd",
                            logit_weight=0.5)
    told: list[dict[str, Any]] = []
    run_dir, result = carried_out("train-distilled", config, lambda **t: told.append(t))
    stages = rundir.read_json(run_dir / "stages.json")
    assert [s["name"] for s in stages] == ["diffusion", "repository", "backbone", "fused", "student"]
    assert {s["state"] for s in stages} == {"done"} and all(s["seconds"] is not None for s in stages)
    assert len(rundir.rows(run_dir, "looks")) == 4 and (run_dir / "scored" / "test.npz").exists(), "teacher and student look once each"
    assert rundir.find_model("all") == run_dir / "model"
    names = {k for t in told for k in t}
    assert {"diffusion_denoising_loss", "backbone_loss", "fused_gate_p3", "fused_map50", "student_distill_loss", "student_logit_loss",
            "student_step"} <= names
    assert [t["step"] for t in told] == sorted(t["step"] for t in told), "progress never goes back"
    fidelity = rundir.read_json(run_dir / "fidelity.json")
    assert fidelity["classes"] and all(-1 <= v <= 1 for row in fidelity["cosine"] for v in row if v is not None)

    assert (result["real_images"], result["synthetic_images"], result["images_seen"], result["steps"]) == (5, 2, 7, 2)
    assert sum("batch 2 of 2" in t.get("message", "") for t in told) == 2, "once the teacher, once the student"
    assert set(Features(run_dir / "repository").repository.image_ids) == {p.image_id for p in data.pictures}
    heads = {stage: rundir.read_json(run_dir / kind / "head.json") for stage, kind in reuse.KINDS.items()}
    assert (heads["repository"]["timesteps"], heads["repository"]["blocks"]) == ([20, 50], [0, 1])
    assert not heads["fused"]["settings"]["dynamic"] and rundir.read_json(run_dir / "model" / "model.json")["settings"]["loss"] == "cwd"
    made = {stage: head["key"] for stage, head in heads.items()}
    assert made == reuse.keys(config, pace.stages(config), result["snapshot_id"])
    assert made["fused"] != reuse.keys_of(c := replace(config, shown=8), pace.stages(c))["fused"], "another share is another teacher"

    another = replace(config, name="again", seed=1)
    takes = pace.estimate_stages(another)
    assert [stage for stage in takes if takes[stage] == 0] == ["diffusion", "repository", "backbone"]
    again = rundir.create("train-distilled", another.to_json(), state="running")
    with pytest.raises(KeyboardInterrupt):
        guided.run(another, again, stopped_at("fused teacher: epoch 1"))
    stages = {s["name"]: s for s in rundir.read_json(again / "stages.json")}
    assert [stages[n]["state"] for n in stages] == ["reused", "reused", "reused", "running", "waiting"]
    assert stages["diffusion"]["from_run"] == run_dir.name


def stopped_at(words: str, how: type[BaseException] = KeyboardInterrupt) -> Any:
    """A report that ends a run where it says this."""
    def report(message: str = "", **told: Any) -> None:
        if words in message:
            raise how

    return report


def test_guided_goes_on_where_it_was(plant: dict[str, Any]) -> None:
    """Canceled, a stage leaves no scratch; killed, it leaves what was made; killed while the fidelity is measured, the run keeps its
    student, and a fidelity that cannot be had costs nothing."""
    from backend.detection import fidelity, guided

    def unreadable(*_: Any) -> None:
        raise InputError("The feature repository is damaged.")

    config = TrainDistilled(**SHAPE, name="kept", epochs=1, diffusion_steps=2, teach_steps=3, repository_steps=10, distill=False)
    run_dir = rundir.create("train-distilled", config.to_json(), state="running")
    with pytest.raises(Canceled):
        guided.run(config, run_dir, stopped_at("teaching the backbone, step 1", Canceled))
    assert not list(run_dir.glob("training*")) and not list(run_dir.glob("building*"))
    assert not (run_dir / "backbone").exists() and (run_dir / "denoiser").exists()

    denoiser = (run_dir / "denoiser" / "denoiser.safetensors").stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        guided.run(config, run_dir, stopped_at("teaching the backbone, step 2"))
    with pytest.raises(KeyboardInterrupt):
        guided.run(config, run_dir, stopped_at("fidelity"))
    assert {s["state"] for s in rundir.read_json(run_dir / "stages.json")} == {"done"}

    student = (run_dir / "model" / "model.onnx").stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "write", unreadable)
        result = guided.run(config, run_dir, silent)
    assert (run_dir / "model" / "model.onnx").stat().st_mtime_ns == student and result["name"] == "kept"
    assert (run_dir / "denoiser" / "denoiser.safetensors").stat().st_mtime_ns == denoiser
    assert not (run_dir / "fidelity.json").exists() and not list(run_dir.glob("training*"))


def test_guided_builds_a_damaged_repository_anew(plant: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """One of another run, then the run's own, altered between two attempts; and though the newest of this key stays damaged, the teacher
    reads the one that is whole."""
    from backend.detection import fuse, guided

    config = TrainDistilled(**SHAPE, name="first", epochs=1, diffusion_steps=5, teach_steps=2, repository_steps=11)
    runs = [rundir.create("train-distilled", replace(config, name=name).to_json(), state="running") for name in ("first", "second")]
    first, second = runs
    with pytest.raises(KeyboardInterrupt):
        guided.run(config, second, stopped_at("teaching the backbone, step 1"))
    damaged = second / "repository" / "latents.f16"
    damaged.write_bytes(damaged.read_bytes()[:-2])

    def attempt(words: str) -> list[str]:
        with pytest.raises(KeyboardInterrupt):
            guided.run(config, first, stopped_at(words))
        return [line for line in capsys.readouterr().out.splitlines() if "nothing is taken over" in line]

    (told,) = attempt("fused teacher: epoch 1")
    assert second.name in told and "is damaged: latents.f16 has" in told and "Build it again" not in told
    stages = {s["name"]: (s["state"], s["from_run"]) for s in rundir.read_json(first / "stages.json")}
    assert stages["diffusion"] == ("reused", second.name) and stages["repository"] == stages["backbone"] == ("done", "")
    whole = (first / "repository" / "latents.f16").read_bytes()

    (first / "repository" / "latents.f16").write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert any(first.name in line and "is not what was written" in line for line in attempt("student: epoch 1, batch 1"))
    assert (first / "repository" / "latents.f16").read_bytes() == whole
    assert fuse.load(first / "fused")[1].repository.folder == first / "repository"
    assert damaged.stat().st_size == len(whole) - 2, "another run's artifact is not touched"
    damaged.write_bytes(whole)                                                                   # for whoever takes the newest


def test_what_cannot_be_is_said_before_the_work(plant: dict[str, Any]) -> None:
    told: list[str] = []
    for change, sentence in ((dict(labels=99), "fewer than 99"), (dict(teach=False, distill=False), "nothing of the diffusion model")):
        with pytest.raises(ConfigError, match=sentence):
            carried_out("train-distilled", TrainDistilled(**SHAPE, name="x", **change), lambda message="", **t: told.append(message))
    assert not told


def test_a_backbone_of_another_dataset_is_refused(plant: dict[str, Any], tmp_path: Path) -> None:
    """Its train images may be this one's test images."""
    squares.draw(tmp_path / "more")
    (tmp_path / "more" / "images" / "train" / "train-0.png").unlink()
    carried_out("import", Import(path=str(tmp_path / "more"), name="others"))
    with pytest.raises(ConfigError, match="taught on this dataset"):
        carried_out("train-detector", TrainDetector(**{**SHAPE, "dataset": "others", "name": "x", "backbone": "b"}))
