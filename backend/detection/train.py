"""The recipe: a snapshot becomes a deployed detector. Start reading here.

`run` finds the snapshot and lays it out; `make` trains, exports, chooses thresholds on val, looks at test once, through the artifact
that will be deployed, and says whether bf16 may compute it. Killed and resumed, it goes on from the last finished epoch. Until it is
done, all it writes lies in `<run>/training`. Knows nothing of jobs or the store.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import TrainDetector
from backend.data import images, leaks, shares, snapshot
from backend.data.dataset import yolo_folder
from backend.data.shares import ALL, Share
from backend.data.splits import SPLITS
from backend.detection import export, start, trainer
from backend.detection.network import Detector, build
from backend.errors import Canceled, ConfigError
from backend.evaluation import detection as evaluation
from backend.evaluation import looks, precision
from backend.inspection import tiles

RULE = "the epoch whose averaged weights have the best mAP50-95 on val; thresholds with the best F1 at IoU 0.5 on val"


@dataclass(frozen=True)
class Material:
    """What a model is made from and judged by. Boxes of test are here to score with, and for nothing else."""

    dataset: str
    snapshot_id: str
    classes: list[str]
    data: Path                                   # data.yaml of a YOLO folder with train and val
    truth: dict[str, evaluation.Truth]           # per split
    load: Callable[[str], np.ndarray]            # by file name: (H, W, 3) RGB uint8
    keys: dict[str, str] = field(default_factory=dict)       # image id by file name, of a snapshot
    train: shares.Tally | None = None            # of the images that are learned from, where it is not simply all of train, once
    test_set_id: str = ""                        # of a snapshot
    scale: dict[str, int] = field(default_factory=dict)      # of the pictures that are learned from, see `tiles.learned`


def run(config: TrainDetector, run_dir: Path, report: Any) -> dict[str, Any]:
    check_settings(config)
    report(step=0, total=config.epochs, message="laying out the images")
    snapshot_run = rundir.taken_snapshot(run_dir, config.dataset)
    material = from_snapshot(snapshot_run, run_dir / "training" / "data", Share.of(config))
    return make(settled(config, material), material, run_dir, report)


def check_settings(config: TrainDetector) -> None:
    if not config.name:
        raise ConfigError("Give the model a name.")
    if config.imgsz % 32:
        raise ConfigError(f"The image size must be a multiple of 32: {config.imgsz // 32 * 32} or {config.imgsz // 32 * 32 + 32}, "
                          f"not {config.imgsz}.")


def from_snapshot(snapshot_run: Path, folder: Path, share: Share = ALL, follows: str = "") -> Material:
    """Lay a snapshot out for training, or a share of its train images. Raises ConfigError for one that cannot be trained on honestly.

    What an attempt left beside `folder` goes, if it was of another snapshot, or of another artifact that the training `follows` from."""
    data = snapshot.read(snapshot_run)
    leaks.refuse(data.pictures)
    refuse_few(data, share)
    rundir.bound(folder.parent, f"{data.snapshot_id} {follows}".rstrip())        # a dataset may have been imported anew meanwhile
    shutil.rmtree(folder, ignore_errors=True)
    ids = {p.file_name: p.image_id for p in data.pictures}
    truth, scale = {split: looks.truth(data, split) for split in SPLITS}, scale_of(data.by_split("train"))
    tell_of_large(data.by_split("train"), scale["side"])
    return Material(data.head["name"], data.snapshot_id, data.classes, yolo_folder(snapshot_run, folder, share), truth,
                    lambda name: np.asarray(images.load(ids[name])), ids, shares.tally(data.by_split("train"), share),
                    rundir.test_set_id(snapshot_run), scale)


def scale_of(train: Sequence[snapshot.Picture]) -> dict[str, int]:
    """Of which scale the pictures are that a model learns from: larger ones are inspected in tiles of it."""
    return tiles.learned([(p.width, p.height) for p in train], [max(b.x2 - b.x1, b.y2 - b.y1) for p in train for b in p.boxes])


def tell_of_large(train: Sequence[snapshot.Picture], side: int) -> None:
    """In the run's log: whole pictures of a line scan, say, among crops of such."""
    if large := sum(max(p.width, p.height) > tiles.LARGER * side for p in train):
        print(f"{large:,} of {len(train):,} train images are much larger than the rest, of {side:,} pixels at most. They are "
              "shrunk as a whole, so small defects in them may be too small to learn. Better cut them to that size.", flush=True)


def refuse_few(data: snapshot.Snapshot, share: Share) -> None:
    """Nothing to learn from or to choose by, or fewer images than asked for."""
    train = data.by_split("train")
    shares.refuse(train, share)
    refuse_unlabelled(data.head["name"], {"train": sum(1 for p in shares.laid(train, share) if p.boxes),
                                          "val": sum(1 for p in data.by_split("val") if p.boxes)})


def settled(config: Any, material: Material) -> Any:
    """The config with what it starts from named by run. Raises ConfigError where that would not be honest."""
    split_of = {material.keys[name]: split for split in SPLITS for name in material.truth[split] if name in material.keys}
    return start.settle(config, material.snapshot_id, split_of)


def refuse_unlabelled(dataset: str, counts: dict[str, int]) -> None:
    """`counts`: images with boxes, of train and val."""
    for split, n in counts.items():
        if not n:
            raise ConfigError(f"The {split} split of {dataset!r} has no labelled defect, so nothing can be learned or chosen.")


def make(config: TrainDetector, material: Material, run_dir: Path, report: Any, course: trainer.Course | None = None) -> dict[str, Any]:
    """Train, deploy and score. Returns what the run's result says, also of a run that was killed with all of it done."""
    kept = rundir.read_json(run_dir / "weights" / "head.json") if (run_dir / "weights" / "head.json").exists() else {}
    if kept.get("snapshot_id") == material.snapshot_id:
        shutil.rmtree(run_dir / "training", ignore_errors=True)
        return dict(kept["result"])
    refuse_unlabelled(material.dataset, {s: sum(map(bool, material.truth[s].values())) for s in ("train", "val")})
    scratch = run_dir / "training"
    scratch.mkdir(exist_ok=True)
    try:
        # the network, from the checkpoint if there is one
        network, progress = trainer.fit(config, material.data, scratch, telling(config, run_dir, report), course)
        network = plain(config, network)

        # the artifact, in scratch; from here on only what it answers counts
        bundle = scratch / "model"
        head = export.write_bundle(bundle, network, name=config.name, snapshot_id=material.snapshot_id, dataset=material.dataset,
                                   classes=list(material.classes), imgsz=config.imgsz, settings=config.to_json(), learned=material.scale,
                                   chosen=dict(rule=RULE, epoch=progress.best_epoch, epochs=progress.epoch))

        # thresholds on val, then one look at test
        report(step=config.epochs, total=config.epochs, message="scoring")
        found = {split: _predict(bundle, material, split, config.epochs, report) for split in looks.SPLITS}
        head["thresholds"] = evaluation.choose_thresholds(found["val"], material.truth["val"], material.classes)
        head["metrics"] = {split: looks.score(found[split], material.truth[split], head) for split in looks.SPLITS}
        rundir.write_json(bundle / "model.json", head)

        # whether a faster arithmetic than float32 may inspect with it
        report(step=config.epochs, total=config.epochs, message="comparing faster arithmetic with float32 on val")
        precision.after_training(bundle, precision.Pictures("val", list(material.truth["val"]), material.load, material.truth["val"],
                                                            list(material.truth["train"])))
    except Canceled:
        shutil.rmtree(scratch)
        raise

    # under its name, whole
    shutil.rmtree(run_dir / "model", ignore_errors=True)
    bundle.rename(run_dir / "model")
    rundir.write_model(run_dir, head)
    looks.keep(scratch, run_dir, looks.described(head, material.test_set_id), found, material.truth, material.keys)
    result = dict(figures(config, material, head, progress), chosen_epoch=progress.best_epoch)
    export.write_weights(scratch, run_dir, network, head, result)
    shutil.rmtree(scratch)
    return result


def plain(config: TrainDetector, network: Detector) -> Detector:
    """The bare detector in a trained network: what only training needed stays behind."""
    bare: Detector = build(replace(config, weights=None, backbone=""), network.names)
    state = network.state_dict()
    bare.load_state_dict({k: state[k] for k in bare.state_dict()})
    return bare.eval()


def figures(config: TrainDetector, material: Material, head: dict[str, Any], progress: trainer.Progress) -> dict[str, Any]:
    """What every training of a detector says in the end. `images` are those shown in a pass."""
    train = material.train or shares.Tally(n := len(material.truth["train"]), 0, n)
    seconds, about = sum(progress.seconds), {**head, "test_set_id": material.test_set_id}
    return dict(name=head["name"], **looks.said(about, head["metrics"]), images=train.shown, real_images=train.real,
                synthetic_images=train.synthetic, steps=progress.epoch * -(-train.shown // config.batch),
                images_seen=progress.epoch * train.shown, epochs=progress.epoch, imgsz=config.imgsz, seconds=round(seconds, 1),
                epoch_seconds=round(seconds / progress.epoch, 3),
                seconds_per_image_epoch=round(seconds / progress.epoch / train.shown, 6))


def _predict(bundle: Path, material: Material, split: str, epochs: int, report: Any) -> list[evaluation.Prediction]:
    names = sorted(material.truth[split])
    return evaluation.predict(bundle, names, material.load, lambda n: report(
        step=epochs, total=epochs, message=f"scoring on {split}, image {n + 1} of {len(names)}"))


def telling(config: TrainDetector, run_dir: Path, report: Any) -> trainer.Tell:
    """What the trainer says, as progress. An epoch's curve is told once, though a resumed run tells its last one again."""
    told = _told(run_dir / "metrics.jsonl")

    def tell(epoch: int, message: str, metrics: dict[str, float]) -> None:
        new = metrics if epoch not in told else {}
        if new:
            told.add(epoch)
            print(f"{message}: " + ", ".join(f"{k} {v:.4g}" for k, v in new.items()), flush=True)
        report(step=epoch, total=config.epochs, message=message, **new)

    return tell


def _told(path: Path) -> set[int]:
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {line["step"] for line in lines if "map50" in line}
