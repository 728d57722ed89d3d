"""Ultralytics' training loop, made offline, silent and exactly resumable.

Stands between a YOLO folder and the chosen weights. Three things differ from the stock trainer. Every epoch's
randomness follows from (seed, epoch) alone. Our checkpoint keeps what the stock one rounds to fp16 or leaves out, and is
replaced in one step. Nothing but our own calls happens at Ultralytics' events: no trackers, no telemetry, no plots.
Together: a run killed at any moment and resumed reaches the weights of a run that was never disturbed, bit by bit on
the same machine with the same number of cores.

Which weights count: those of the epoch (exponential moving average) with the best mAP50-95 on val, as Ultralytics'
validator measures it each epoch; of equals the latest. Knows nothing of snapshots, runs or export.
"""

import io
import random
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import settings
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import img2label_paths
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import unwrap_model

from backend.config import TrainDetector
from backend.detection import muon, turns
from backend.detection.network import Detector, build, class_names
from backend.device import cores, torch_device
from backend.errors import ConfigError, ResourceError
from backend.rundir import write_bytes

# Called within an epoch (metrics empty) and after each: (epochs done, message, metrics). May raise Canceled.
Tell = Callable[[int, str, dict[str, float]], None]

LEARNING_RATES = {"SGD": 0.01, "AdamW": 0.001, "MuSGD": 0.01}
_TRACKERS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


@dataclass
class Progress:
    """What training has come to: the best weights so far and the curves. `epoch` counts finished epochs."""

    epoch: int = 0
    best_epoch: int = 0
    best_fitness: float = -1.0                               # mAP50-95 on val
    curves: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)       # of each epoch, validation included


def overrides(config: TrainDetector, data: Path, folder: Path) -> dict[str, Any]:
    """Ultralytics' settings for this config; what is not named keeps its default."""
    device = torch_device()
    return dict(
        task="detect", model=f"yolo11{config.size}.yaml", data=str(data), save_dir=str(folder), epochs=config.epochs, imgsz=config.imgsz,
        batch=config.batch, nbs=config.batch,                      # no accumulation: an epoch ends with a step
        seed=config.seed, deterministic=True, device=device.removeprefix("cuda:"), workers=min(8, cores()),
        amp=False,                                                 # `Detector.loss` sees to it; fp16 would first download a network
        optimizer=config.optimizer, lr0=config.learning_rate or LEARNING_RATES[config.optimizer],
        warmup_bias_lr=0.1 if config.optimizer == "SGD" else 0.0,  # as the stock trainer warms each of them up
        patience=0,                                                # no early stop: equal settings mean equal steps
        close_mosaic=min(10, config.epochs // 4), flipud=0.5,      # a surface has no up and down
        mixup=0.0, cutmix=0.0, copy_paste=0.0,                     # as the library has them; no arm may come to blend or paste pictures
        pretrained=False, plots=False, verbose=False)


class Boxes(YOLODataset):
    """Images of a YOLO folder with their boxes, taken as they stand.

    The stock scan rewrites a JPEG with bytes behind its end in place, which would reach the kept originals through
    links, and leaves a pickled cache in the folder.
    """

    def get_labels(self) -> list[dict[str, Any]]:
        return [self._label(image, Path(label)) for image, label in zip(self.im_files, img2label_paths(self.im_files), strict=True)]

    def _label(self, image: str, path: Path) -> dict[str, Any]:
        lines = path.read_text().split("\n") if path.exists() else []
        rows = np.array([line.split() for line in lines if line], np.float32).reshape(-1, 5)      # class, x, y, w, h
        return dict(im_file=image, cls=rows[:, :1], bboxes=rows[:, 1:], segments=[], keypoints=None, normalized=True, bbox_format="xywh")

    def forget(self) -> None:
        """Empty the memory of images that mosaics draw from."""
        for i in self.buffer:
            self.ims[i] = self.im_hw0[i] = self.im_hw[i] = None
        self.buffer.clear()


class Course:
    """What one way of training differs in from another. This one: boxes and nothing else."""

    dataset: type[Boxes] = Boxes
    settings: Mapping[str, Any] = {}             # Ultralytics' own, beside those of `overrides`

    def network(self, config: TrainDetector, names: dict[int, str]) -> Detector:
        """The network that is trained. Random where nothing is taken over: seed first."""
        return build(config, names)

    def begin(self) -> None:
        """An epoch begins, in a resumed training as in one that was never disturbed."""

    def add(self, batch: dict[str, Any]) -> None:
        """Put into a batch for training what the loss wants beside images and boxes."""

    def show(self, batch: dict[str, Any], network: Detector) -> None:
        """Let the network have what it wants beside the images of a val batch, before it answers."""

    def own(self, state: dict[str, Any]) -> dict[str, Any]:
        """The network's part of what was trained."""
        return state

    def curves(self, network: Detector) -> dict[str, float]:
        """Further points for the epoch's curves."""
        return {}


class Validator(DetectionValidator):
    """Ultralytics' validator, which lets the course show the network what it reads beside the image."""

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess(batch)
        self.show(batch)
        return batch


class DetectorTrainer(DetectionTrainer):
    """`train()` goes on from the checkpoint in the folder, if there is one."""

    def __init__(self, config: TrainDetector, data: Path, folder: Path, tell: Tell, course: Course) -> None:
        settings.update({name: False for name in _TRACKERS})
        self.config, self.folder, self.tell, self.progress, self.course = config, folder, tell, Progress(), course
        super().__init__(overrides=overrides(config, data, folder) | dict(course.settings))
        torch.set_num_threads(cores())                             # Ultralytics leaves one core idle
        muon.fit_to_machine()
        self.callbacks: dict[str, list[Any]] = {}

    # ---- what goes in

    def get_dataset(self) -> dict[str, Any]:
        """The folder's own description; the stock check fetches a font."""
        data = YAML.load(self.args.data)
        root = Path(self.args.data).parent / data.get("path", "")
        names = class_names(Path(self.args.data))
        return dict(path=root, train=str(root / data["train"]), val=str(root / data["val"]), names=names, nc=len(names), channels=3)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Boxes:
        """Val is letterboxed to a square, as the deployed engine does it; the stock trainer's val is not."""
        return self.course.dataset(img_path=img_path, imgsz=self.args.imgsz, batch_size=batch, augment=mode == "train", hyp=self.args,
                                   rect=False, stride=32, pad=0.0 if mode == "train" else 0.5, task="detect", data=self.data)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The stock one shows every image once in a pass."""
        if mode == "val" or not self.config.shown:
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        due = turns.Turns(len(dataset), self.config.shown, self.args.seed)
        return turns.loader(dataset, due, batch_size, self.args.workers, self.device.type == "cuda")

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Detector:
        return self.course.network(self.config, self.data["names"]).to(memory_format=torch.channels_last)

    def get_validator(self) -> Validator:
        validator = Validator(self.test_loader, save_dir=self.save_dir, args=copy(self.args))
        validator.show = lambda batch: self.course.show(batch, self.ema.ema)
        validator.callbacks = {"on_val_batch_end": [lambda _: self._say("checking on val")]}
        return validator

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess_batch(batch)
        self.course.add(batch)
        return batch

    def _build_train_pipeline(self) -> None:
        """The stock loop halves the batch when memory runs out in the first epoch; a changed setting would go unsaid."""
        if self.optimizer is not None:
            raise ResourceError(f"Out of memory with {self.args.nbs} images of {self.args.imgsz} px a step. "
                                "Choose a smaller batch, image size or network.")
        super()._build_train_pipeline()

    # ---- an epoch

    def run_callbacks(self, event: str) -> None:
        if event == "on_train_epoch_start":
            self._begin_epoch()
        elif event == "on_train_batch_end":
            self.batches_done += 1
            self._say(f"batch {self.batches_done} of {len(self.train_loader)}")

    def _say(self, what: str) -> None:
        self.tell(self.epoch, f"epoch {self.epoch + 1}, {what}", {})

    def _begin_epoch(self) -> None:
        """Make all that is random from here on follow from (seed, epoch)."""
        seed = int(np.random.SeedSequence([self.args.seed, self.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.train_loader.reset()                                  # workers hold batches drawn ahead, and their own memory
        self.train_loader.generator.manual_seed(seed)
        self.train_loader.sampler.epoch = self.epoch               # of turns; the stock sampler draws from the generator
        self._fill_mosaic_memory()
        self.course.begin()
        self.batches_done, self.began = 0, time.monotonic()

    def _fill_mosaic_memory(self) -> None:
        """Mosaics draw their partners from images seen lately; without these the first would show one image four times."""
        dataset = self.train_loader.dataset
        dataset.forget()
        if self.epoch < self.epochs - self.args.close_mosaic:
            for i in random.sample(range(len(dataset)), min(len(dataset), self.batch_size)):
                dataset.load_image(i)

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if self.loss is not None and not self.loss.isfinite():
            raise ConfigError(f"Training came apart in epoch {epoch + 1}: the loss is no number. Choose a lower learning rate.")
        return False

    # ---- what stays of an epoch

    def save_model(self) -> bool:
        """After each epoch: best weights first, then the checkpoint that names them, then word of it."""
        progress = self.progress
        progress.epoch = self.epoch + 1
        progress.seconds.append(round(time.monotonic() - self.began, 3))
        progress.curves.append(self._curves())
        if self.fitness >= progress.best_fitness:
            progress.best_epoch, progress.best_fitness = progress.epoch, float(self.fitness)
            _save(self.folder / f"best-{progress.epoch}.pt", self.ema.ema.state_dict())
        _save(self.folder / "checkpoint.pt", dict(
            vars(progress), model=unwrap_model(self.model).state_dict(), ema=self.ema.ema.state_dict(), updates=self.ema.updates,
            optimizer=self.optimizer.state_dict(), scaler=self.scaler.state_dict()))
        for old in self.folder.glob("best-*.pt"):
            if old.name != f"best-{progress.best_epoch}.pt":
                old.unlink()
        self.tell(progress.epoch, f"epoch {progress.epoch} done", progress.curves[-1])
        return False

    def _curves(self) -> dict[str, float]:
        """Mean losses of the epoch, losses and mAP on val (Ultralytics' validator), learning rate."""
        return {**{name: float(v) for name, v in self.tloss.items()},
                **{k.replace("/", "_"): v for k, v in self.metrics.items() if k.startswith("val/")},
                "map50": self.metrics["metrics/mAP50(B)"], "map50_95": self.metrics["metrics/mAP50-95(B)"],
                "learning_rate": min(g["lr"] for g in self.optimizer.param_groups), **self.course.curves(unwrap_model(self.model))}

    def resume_training(self, ckpt: Any) -> None:
        """Take up the checkpoint. The stock loop does the rest from `start_epoch`: schedule, warm-up, mosaic's end."""
        saved = load_checkpoint(self.folder)
        if saved is None:
            return
        unwrap_model(self.model).load_state_dict(saved["model"])
        self.ema.ema.load_state_dict(saved["ema"])
        self.ema.updates = saved["updates"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.progress = progress_of(saved)
        self.start_epoch = self.progress.epoch

    def save_metrics(self, metrics: Any) -> None:
        """Curves go through `tell`."""

    def final_eval(self) -> None:
        """The deployed artifact is what gets scored, elsewhere."""


def _save(path: Path, value: Any) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    path = folder / "checkpoint.pt"
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def progress_of(saved: dict[str, Any]) -> Progress:
    return Progress(**{name: saved[name] for name in Progress.__dataclass_fields__})


def fit(config: TrainDetector, data: Path, folder: Path, tell: Tell, course: Course | None = None) -> tuple[Detector, Progress]:
    """Train on a YOLO folder, or go on where the checkpoint in `folder` stands. The chosen network, fp32 on the CPU."""
    course = course or Course()
    saved = load_checkpoint(folder)
    if saved is not None and saved["curves"]:
        tell(saved["epoch"], "taken up again", saved["curves"][-1])
    if saved is None or saved["epoch"] < config.epochs:
        _train(config, data, folder, tell, course)
        saved = load_checkpoint(folder)
    assert saved is not None, "training ends with a checkpoint"
    progress, network = progress_of(saved), course.network(config, class_names(data))
    best = torch.load(folder / f"best-{progress.best_epoch}.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(course.own(best))
    return network.eval(), progress


def _train(config: TrainDetector, data: Path, folder: Path, tell: Tell, course: Course) -> None:
    trainer = DetectorTrainer(config, data, folder, tell, course)
    try:
        trainer.train()
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory with {config.batch} images of {config.imgsz} px a step. "
                            "Choose a smaller batch, image size or network.") from problem
    finally:
        for loader in (getattr(trainer, "train_loader", None), getattr(trainer, "test_loader", None)):
            if loader is not None:
                loader.close()
