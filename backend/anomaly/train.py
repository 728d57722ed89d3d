"""The recipe `train-anomaly`: good images become a deployed anomaly model. Start reading here.

    good train images ─┬─► denoiser ─► pool of perturbed images   (only where the source of defects asks for them)
                       ├─► training (`learn`): last step's weights, nothing is chosen; or those of an earlier run that ended with the same
                       ├─► memory of good patches
                       └─► held-out good images, with drawn defects ─► calibration ─► bundle ─► one look at test

Labelled defects are never learned from; test is scored once, through the artifact that will be deployed, and that look is counted.
Killed and resumed it goes on from the last checkpoint. Until it is done, what it writes lies in `<run>/training-anomaly`. Knows
nothing of jobs.
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from backend import rundir
from backend.anomaly import calibrate, export, learn, losses, stages
from backend.anomaly.corrupt import Surface, drawn
from backend.anomaly.memory import GRID
from backend.anomaly.networks import AnomalyNet
from backend.config import TrainAnomaly
from backend.data import images, snapshot
from backend.data.normals import divided, left_out
from backend.data.snapshot import Picture, Snapshot
from backend.errors import Canceled, ConfigError, ResourceError
from backend.evaluation import anomaly as evaluation
from backend.evaluation import looks
from backend.inspection.anomaly_engine import stretched
from backend.synthesis import pool
from backend.teacher.extractors import extractor

FORMAT = 3               # what a training does; part of its key
AFTER = ("name", "false_rejects", "memory")        # settings of what follows training: with others the same weights do
TOLD = ("steps", "losses", "defects", "seconds", "seconds_per_step")        # of a training, also by runs that take its weights
IMPLIED = ("dataset", "denoiser", "preset", "diffusion_steps")       # the snapshot and the keys of artifacts say it
DRAWN = 384              # drawn defects that calibration is chosen by, over all held-out images
SCORED = 150             # at most so many held-out images, and of drawn defects each second or third, are what the bundle is scored on
MOST_COMPARED = 2000 * 128**2        # patches of a picture times those remembered: 130 MB a picture while they are compared
RULE = "last step's weights; score and weights of the maps by held-out good images and drawn defects; threshold by held-out good images"


def run(config: TrainAnomaly, run_dir: Path, report: Any) -> dict[str, Any]:
    check_settings(config)
    found = rundir.find_snapshot(config.dataset)
    return make(config, snapshot.read(found), rundir.test_set_id(found), run_dir, report)


def check_settings(config: TrainAnomaly) -> None:
    if not config.name:
        raise ConfigError("Give the model a name.")
    if config.imgsz % 32:
        raise ConfigError(f"The image size must be a multiple of 32, not {config.imgsz}.")
    if config.phases == "two" and config.loss != "both":
        raise ConfigError("Two phases need both losses: the first trains the student by cosine, the second the head by segmentation.")
    if config.phases == "two" and config.steps < 2:
        raise ConfigError("Two phases need at least two steps.")
    if config.coupled and (config.phases == "two" or config.loss != "both"):
        raise ConfigError("Only where both losses are learned jointly is there anything to couple.")
    if config.overlap != "dice" and config.loss == "cosine":
        raise ConfigError("With cosine alone nothing is segmented: there is no term beside focal loss to choose.")
    if not stages.diffuses(config) and (config.denoiser or config.diffusion_steps is not None):
        raise ConfigError(f"Defects of {config.source} take no diffusion model: name none, and no steps of one.")
    if config.memory * (config.imgsz // GRID) ** 2 > MOST_COMPARED:
        raise ConfigError(f"A memory of {config.memory:,} patches is too large for images of {config.imgsz} px: at most "
                          f"{MOST_COMPARED // (config.imgsz // GRID) ** 2:,}.")
    if config.denoiser and config.diffusion_steps is not None:
        raise ConfigError("The diffusion model that is named is used as it is: give no steps of a new one.")


def make(config: TrainAnomaly, data: Snapshot, test_set_id: str, run_dir: Path, report: Any) -> dict[str, Any]:
    """Train, calibrate, deploy and score. Returns what the run's result says, also of a run that was killed with all of it done."""
    train, held = divided(data, config.near_duplicates)
    if near := left_out(data):
        print(f"{near} good images nearly equal one of val or test and are {'learned from' if config.near_duplicates else 'left out'}.",
              flush=True)
    scratch, reused = run_dir / "training-anomaly", dict[str, str]()
    try:
        # what the defects need: a denoiser and its perturbed images, unless they are there
        plan = stages.Plan(config, report)
        denoiser = stages.denoiser(config, data, run_dir, plan, reused)
        perturbed = stages.perturbed(config, data, train, denoiser, run_dir, plan, reused)
        key = key_of(config, data.snapshot_id, [f for f in (denoiser, perturbed) if f])
        if done := rundir.own_result(run_dir, "anomaly", key):
            shutil.rmtree(scratch, ignore_errors=True)
            return done
        rundir.bound(scratch, key)

        # the images, decoded once
        report = plan.last(config.steps)
        tell = lambda i: report(step=0, total=config.steps, message=f"reading image {i + 1} of {len(train) + len(held)}")  # noqa: E731
        known = decoded(train, scratch / "images.u8", config.imgsz, tell)
        normals = [opened(p, config.imgsz) for p in held]

        # training, from the checkpoint if there is one
        torch.manual_seed(config.seed)
        net = AnomalyNet(extractor(config.teacher, denoiser), config.loss, config.memory)
        surface = Surface(known, [p.image_id for p in train], config.source, pool.load(perturbed) if perturbed else None,
                          config.flips, config.foreground, stages.marked(config, train))
        lesson, *others = (key_of(c, data.snapshot_id, [f for f in (denoiser, perturbed) if f], AFTER) for c in same_lessons(config))
        training = learn.Training(config, net, surface, scratch)
        trained = _again(training, [lesson, *others], reused) if training.step == 0 else {}
        if not trained:
            learn.fit(training, run_dir, report)
            trained = told_of(training)

        # what good patches look like; then from maps to a score and a threshold
        report(step=config.steps, total=config.steps, message="calibrating")
        began = time.monotonic()
        training.remember()
        defects = made(normals, config.seed)
        found = calibrate.calibrate(net.eval(), normals, defects, config.false_rejects, parents(len(normals)))
        bundle = scratch / "model"
        head = export.write_bundle(bundle, net, found, name=config.name, snapshot_id=data.snapshot_id, dataset=data.head["name"],
                                   settings=config.to_json())
        alike = {p.group_id for p in train} & {p.group_id for p in held} - {""}
        head["chosen"] = dict(head["chosen"], rule=RULE, step=config.steps, like_learned=sum(p.group_id in alike for p in held))

        # one look at test, and at what was held out
        head["metrics"] = dict(val=_on_held_out(bundle, normals, defects), test=_on_test(bundle, data, config.steps, report))
        if head["metrics"]["test"]:
            looks.count(run_dir, 1, looks.described(head, test_set_id), {split: looks.truth(data, split) for split in looks.SPLITS})
        rundir.write_json(bundle / "model.json", head)
        result = dict(summary(config, data, head, len(train), len(held), reused), **trained,
                      scoring_seconds=round(time.monotonic() - began, 1))
        print(_seen(result["defects"]), flush=True)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory with {config.batch} images of {config.imgsz} px a step. "
                            "Choose a smaller batch or image size.") from problem
    except Canceled:
        shutil.rmtree(scratch, ignore_errors=True)
        raise

    # under its name, whole; the weights last, since with them all is done
    shutil.rmtree(run_dir / "model", ignore_errors=True)
    bundle.rename(run_dir / "model")
    rundir.write_model(run_dir, head)
    _keep_weights(scratch, run_dir, dict(key=key, training=lesson), net, head, result)
    shutil.rmtree(scratch)
    return result


def key_of(config: TrainAnomaly, snapshot_id: str, artifacts: Sequence[Path], but: Sequence[str] = ()) -> str:
    """What the model follows from; settings that nothing asks for, or that are named, do not count."""
    unused = {"overlap"} if config.loss == "cosine" else set[str]()
    settings = {k: v for k, v in config.to_json().items() if k not in {*IMPLIED, *unused, *but}}
    return rundir.key_of(kind="anomaly", format=FORMAT, snapshot_id=snapshot_id,
                         artifacts=[rundir.read_json(f / "head.json")["key"] for f in artifacts], **settings)


def same_lessons(config: TrainAnomaly) -> list[TrainAnomaly]:
    """Trainings that end with the same weights, as far as the model asks for them, this one first. Jointly and uncoupled the student
    learns from cosine alone, whatever the head learns beside it: so a model of cosine alone takes the student of one with both."""
    beside = [replace(config, loss="both", overlap=o) for o in sorted(losses.OVERLAPS)] if config.loss == "cosine" else []
    return [config, *beside]


# ---- images

def opened(picture: Picture, side: int) -> np.ndarray:
    """uint8 (S, S, 3), as the engine will prepare it."""
    image = images.decode(picture.path.read_bytes(), picture.file_name)
    return stretched(np.asarray(image.convert("RGB")), side)


def decoded(pictures: Sequence[Picture], file: Path, side: int, tell: Callable[[int], None]) -> np.ndarray:
    """uint8 (n, S, S, 3) of a file, so that memory does not grow with the dataset."""
    found = np.memmap(file, np.uint8, "w+", shape=(len(pictures), side, side, 3))
    for i, picture in enumerate(pictures):
        tell(i)
        found[i] = opened(picture, side)
    found.flush()
    return np.memmap(file, np.uint8, "r", shape=found.shape)


def made(normals: Sequence[np.ndarray], seed: int) -> list[calibrate.Defect]:
    """Drawn defects on held-out images, evenly spread over them."""
    return [drawn(np.random.default_rng([seed, 2**32, row]), normals[i]) for row, i in enumerate(parents(len(normals)))]


def parents(held: int) -> list[int]:
    """Which of so many held-out images each drawn defect lies on."""
    return [int(i) for i in np.linspace(0, held, DRAWN, endpoint=False)]


# ---- figures

def _on_held_out(bundle: Path, normals: list[np.ndarray], defects: list[calibrate.Defect]) -> dict[str, Any]:
    """Held-out good images against drawn defects: how well it works on what it was calibrated by, and no more."""
    some = np.unique(np.linspace(0, len(normals) - 1, SCORED).round().astype(int))
    shown: dict[str, tuple[np.ndarray, evaluation.Truth]] = {f"good {i}": (normals[i], (None, False)) for i in some}
    every = max(1, math.ceil(len(defects) / SCORED))
    shown |= {f"defect {i}": (image, (mask, True)) for i, (image, mask) in enumerate(defects[::every])}
    return evaluation.score(bundle, list(shown), lambda n: shown[n][0], lambda n: shown[n][1], lambda i: None)


def _on_test(bundle: Path, data: Snapshot, steps: int, report: Any) -> dict[str, Any]:
    """The test split, once. Nothing where it is empty."""
    pictures = {p.file_name: p for p in data.by_split("test")}
    if not pictures:
        return {}
    load = lambda name: np.asarray(images.load(pictures[name].image_id).convert("RGB"))  # noqa: E731
    mask = lambda p: images.load_mask(p.mask) if p.mask else None  # noqa: E731
    return evaluation.score(bundle, list(pictures), load, lambda name: (mask(pictures[name]), not pictures[name].is_good), lambda i: report(
        step=steps, total=steps, message=f"scoring on test, image {i + 1} of {len(pictures)}"))


def told_of(training: learn.Training) -> dict[str, Any]:
    """What is said of a training, also by runs that take its weights."""
    return dict(steps=training.step, losses=training.recent(), defects=training.told_of_defects(), seconds=round(training.seconds, 1),
                seconds_per_step=round(training.seconds / training.step, 3))


def _again(training: learn.Training, lessons: Sequence[str], reused: dict[str, str]) -> dict[str, Any]:
    """Take the weights of an earlier run of one of these trainings: only what follows it is asked anew. Nothing where there is none.
    Seconds are told of the same training alone: one with both losses took longer than its student."""
    for lesson in lessons:
        before = rundir.find_artifact("anomaly", training=lesson)
        if before is None or not _taken(training, before):
            continue
        reused["training"] = before.parent.name
        print(f"The training of {before.parent.name} is used again: nothing that this model asks of it would differ.", flush=True)
        earlier: dict[str, Any] = rundir.read_json(before / "head.json")["result"]
        if lesson == lessons[0]:
            return {k: earlier[k] for k in TOLD if k in earlier}
        return {k: earlier[k] for k in ("steps", "defects")} | dict(losses=dict(cosine_loss=earlier["losses"]["cosine_loss"]))
    return {}


def _taken(training: learn.Training, before: Path) -> bool:
    try:
        training.take(load_file(before / "network.safetensors"))
    except (OSError, SafetensorError) as problem:
        print(f"The training of {before.parent.name} cannot be used again, its weights are damaged: {problem}", flush=True)
        return False
    return True


def summary(config: TrainAnomaly, data: Snapshot, head: dict[str, Any], train: int, held: int, reused: dict[str, str]) -> dict[str, Any]:
    test = {k: head["metrics"]["test"].get(k) for k in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")}
    return dict(name=config.name, model_id=head["model_id"], dataset=head["dataset"], snapshot_id=data.snapshot_id, images=train,
                held_out=held, **test, threshold=head["thresholds"].get("unusual"),
                threshold_refused=head.get("threshold_refused", ""), reused=reused, near_duplicates=left_out(data))


def _seen(defects: dict[str, Any]) -> str:
    """Of pixels: features are not asked (see `corrupt`)."""
    return (f"Of {defects['drawn']:,} made defects {defects['unseen']:.1%} could not be seen and were drawn again; "
            f"{defects['stayed_good']:.1%} of the images that were to have one stayed good.")


def _keep_weights(scratch: Path, run_dir: Path, keys: dict[str, str], net: AnomalyNet, head: dict[str, Any],
                  result: dict[str, Any]) -> None:
    folder = scratch / "anomaly"
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous().cpu() for k, v in learn.own(net).items()}, folder / "network.safetensors")
    kept = {k: head[k] for k in ("name", "model_id", "snapshot_id", "classes", "imgsz")}
    rundir.keep_artifact(folder, run_dir, "anomaly", dict(**keys, result=result, **kept))
