"""The arm `ultralytics`: the library's own distillation (`distill_model=`) from a larger YOLO, in our harness.

A recipe of the benchmark, added through `DIFFSPECT_RECIPES`, so that data, steps, seeds, augmentation, choice of weights, export and
scoring are those of every other arm. Its loss weight (`dis` = 6) is the library's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from backend import rundir
from backend.config import TrainDetector, _f
from backend.data.shares import Share
from backend.detection import distill, train
from backend.detection.network import NECK, Detector, build, full
from backend.detection.trainer import Course
from backend.jobs import recipes


@dataclass(frozen=True)
class TrainRival(TrainDetector):
    """Train a detector that Ultralytics distils from another one."""

    teacher: str = _f("", "Plain detector to learn from, by name or run.")


class Taught(Detector):
    """The wrapper calls the student with images, not with a batch: there its pass runs in bf16 as every arm's does."""

    def forward(self, x: Any, *more: Any, **named: Any) -> Any:
        if not (isinstance(x, Tensor) and self.training):
            return super().forward(x, *more, **named)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return full(super().forward(x.contiguous(memory_format=torch.channels_last), *more, **named))


def _full(layer: Any, given: Any, out: Tensor) -> Tensor:
    return out.float()


class Rival(Course):
    def __init__(self, teacher: Path) -> None:
        self.settings = {"distill_model": str(teacher)}

    def network(self, config: TrainDetector, names: dict[int, str]) -> Taught:
        network: Taught = build(config, names, Taught)
        for layer in NECK:                                   # the library compares these in float32; its own hooks come after this one
            network.model[layer].register_forward_hook(_full)
        return network

    def own(self, state: dict[str, Any]) -> dict[str, Any]:
        return {k.removeprefix("student_model."): v for k, v in state.items() if k.startswith("student_model.")}


def run(config: TrainRival, run_dir: Path, report: Any) -> dict[str, Any]:
    material = train.from_snapshot(rundir.find_snapshot(config.dataset), run_dir / "training" / "data", Share.of(config))
    teacher = as_ultralytics_saves(distill.find_teacher(config.teacher, material.snapshot_id), run_dir / "training" / "teacher.pt")
    return train.make(config, material, run_dir, report, Rival(teacher))


def as_ultralytics_saves(weights: Path, out: Path) -> Path:
    head = rundir.read_json(weights / "head.json")
    network = DetectionModel(f"yolo11{head['size']}.yaml", ch=3, nc=len(head["classes"]), verbose=False)
    network.names = dict(enumerate(head["classes"]))
    network.load_state_dict(load_file(weights / "network.safetensors"))
    torch.save({"model": network, "ema": None, "epoch": -1, "train_args": {}}, out)
    return out


recipes.add("train-rival", TrainRival, "tests.benchmarks.rival:run", heavy=True)
