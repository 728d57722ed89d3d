"""The recipe `train-classifier`: a snapshot becomes a deployed classifier of whole images. Start reading here.

    train pictures, real and synthetic ─► training (`learn`): last step's weights, nothing is chosen
    ─► bundle ─► thresholds on val ─► one look at test

The recogniser of StableSDG (arXiv 2405.01872), with the optimiser step as the unit: arms with more pictures do not learn longer.
Killed and resumed it goes on from the last checkpoint. Until it is done, what it writes lies in `<run>/training-classifier`.
Knows nothing of jobs.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from backend import rundir
from backend.config import TrainClassifier
from backend.data import images, snapshot
from backend.data.snapshot import Picture, Snapshot
from backend.errors import Canceled, ConfigError, ResourceError
from backend.evaluation import classification as evaluation
from backend.evaluation import precision
from backend.inspection.anomaly_engine import stretched
from backend.recognition import export, learn, material, networks
from backend.recognition.batches import Order
from backend.recognition.material import Material

FORMAT = 1
RULE = "last step's weights; thresholds with the best F1 on val"


def run(config: TrainClassifier, run_dir: Path, report: Any) -> dict[str, Any]:
    check_settings(config)
    data = snapshot.read(rundir.taken_snapshot(run_dir, config.dataset))
    return make(config, data, run_dir, report)


def check_settings(config: TrainClassifier) -> None:
    if not config.name:
        raise ConfigError("Give the model a name.")
    if config.imgsz % 32:
        raise ConfigError(f"The image size must be a multiple of 32: {config.imgsz // 32 * 32 or 32} or {config.imgsz // 32 * 32 + 32}, "
                          f"not {config.imgsz}.")


def make(config: TrainClassifier, data: Snapshot, run_dir: Path, report: Any) -> dict[str, Any]:
    """Train, deploy and score. Returns what the run's result says, also of a run that was killed with all of it done."""
    scratch, key = run_dir / "training-classifier", key_of(config, data.snapshot_id)
    if done := rundir.own_result(run_dir, "classifier", key):
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    known = material.from_snapshot(data)
    rundir.bound(scratch, key)
    try:
        # the images, decoded once
        train = known.pictures["train"]
        shown = decoded(train, scratch / "images.u8", config.imgsz, lambda i: report(
            step=0, total=config.steps, message=f"reading image {i + 1} of {len(train)}"))

        # training, from the checkpoint if there is one
        net = networks.network(config.network, len(known.classes), config.seed)
        order = Order(known.synthetic, config.batch, config.real_share, config.seed)
        training = learn.Training(config, net, shown, known.labels["train"], order, scratch)
        learn.fit(training, known.classes, run_dir, report)

        # the artifact, in scratch; from here on only what it answers counts
        bundle = scratch / "model"
        head = export.write_bundle(bundle, training.net, name=config.name, snapshot_id=known.snapshot_id, dataset=known.dataset,
                                   all_classes=list(known.classes), imgsz=config.imgsz, settings=config.to_json(),
                                   chosen=dict(rule=RULE, step=training.step))

        # thresholds on val, then one look at test
        found = {split: _answers(bundle, known, split, config.steps, report) for split in ("val", "test")}
        head["thresholds"] = evaluation.choose_thresholds(found["val"], known.labels["val"], known.names)
        head["metrics"] = {split: score(found[split], known.labels[split], known.names, head["thresholds"]) for split in found}
        rundir.write_json(bundle / "model.json", head)
        named = {split: {f"{split} {i}": one for i, one in enumerate(known.pictures[split])} for split in ("val", "train")}
        every = named["val"] | named["train"]
        precision.after_training(bundle, precision.Pictures("val", list(named["val"]), lambda name: _opened(every[name]),
                                                            learned=list(named["train"])))
        result = summary(config, known, head, training)
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
    _keep_weights(scratch, run_dir, key, training.net, head, result)
    shutil.rmtree(scratch)
    return result


def key_of(config: TrainClassifier, snapshot_id: str) -> str:
    """What the model follows from."""
    settings = {k: v for k, v in config.to_json().items() if k != "dataset"}
    return rundir.key_of(kind="classifier", format=FORMAT, snapshot_id=snapshot_id, **settings)


def decoded(pictures: Sequence[Picture], file: Path, side: int, tell: Callable[[int], None]) -> np.ndarray:
    """uint8 (n, S, S, 3) of a file, each as the engine will prepare it, so that memory does not grow with the dataset."""
    found = np.memmap(file, np.uint8, "w+", shape=(len(pictures), side, side, 3))
    for i, picture in enumerate(pictures):
        tell(i)
        found[i] = stretched(_opened(picture), side)
    found.flush()
    return np.memmap(file, np.uint8, "r", shape=found.shape)


def _opened(picture: Picture) -> np.ndarray:
    """(H, W, 3) RGB uint8."""
    return np.asarray(images.decode(picture.path.read_bytes(), picture.file_name))


def _answers(bundle: Path, known: Material, split: str, steps: int, report: Any) -> np.ndarray:
    """(n, classes): what the artifact says of a split."""
    pictures = known.pictures[split]
    rows = [str(i) for i in range(len(pictures))]               # lists may hold one file name twice
    return evaluation.answers(bundle, rows, lambda row: _opened(pictures[int(row)]), lambda i: report(
        step=steps, total=steps, message=f"scoring on {split}, image {i + 1} of {len(pictures)}"))


def score(found: np.ndarray, truth: np.ndarray, names: Sequence[str], thresholds: dict[str, float]) -> dict[str, Any]:
    """All figures of one split; nothing where it is empty."""
    return {**evaluation.evaluate(found, truth, names), **evaluation.rates(found, truth, names, thresholds)} if len(truth) else {}


def summary(config: TrainClassifier, known: Material, head: dict[str, Any], training: learn.Training) -> dict[str, Any]:
    """`seconds_per_step` is what an estimate of a later run starts from."""
    made, (val, test) = int(known.synthetic.sum()), (head["metrics"][s] for s in ("val", "test"))
    warnings = list(known.warnings)
    if config.real_share is not None and training.order.share is None:
        warnings.append(f"The share of real images was not used: all train images are {'synthetic' if made else 'real'}.")
    return dict(name=config.name, model_id=head["model_id"], dataset=known.dataset, snapshot_id=known.snapshot_id, network=config.network,
                classes=list(known.classes), images=len(known.pictures["train"]), synthetic=made, steps=training.step,
                accuracy=test.get("accuracy"), balanced_accuracy=test.get("balanced_accuracy"), val_accuracy=val.get("accuracy"),
                missed_images=test.get("missed_images"), parameters=sum(p.numel() for p in training.net.parameters()),
                losses=training.recent(), warnings=warnings, seconds=round(training.seconds, 1),
                seconds_per_step=round(training.seconds / training.step, 4))


def _keep_weights(scratch: Path, run_dir: Path, key: str, net: nn.Module, head: dict[str, Any], result: dict[str, Any]) -> None:
    folder = scratch / "classifier"
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous().cpu() for k, v in net.state_dict().items()}, folder / "network.safetensors")
    kept = {k: head[k] for k in ("name", "model_id", "snapshot_id", "classes", "all_classes", "imgsz")}
    rundir.keep_artifact(folder, run_dir, "classifier", dict(key=key, network=head["settings"]["network"], result=result, **kept))
