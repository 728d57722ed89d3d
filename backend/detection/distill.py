"""The recipe `distill`: a plain light detector that, while it trains, also learns a teacher's neck. Start with `Student`.

The teacher is a fused detector (D3N, arXiv 2408.13845) or a plain one, of any size; it sees the very batch the student sees.
What is deployed is the student without anything of this: the same operators and shapes as a detector trained alone.
Knows nothing of how features came about.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from backend import rundir
from backend.config import Distill, TrainDetector
from backend.data.shares import Share
from backend.detection import fuse, train
from backend.detection.features import Recent
from backend.detection.losses import Balance, Kind, Neck, logits
from backend.detection.network import NECK, Detector, build
from backend.detection.trainer import Boxes, Course
from backend.detection.warp import Tracked
from backend.device import torch_device
from backend.errors import ConfigError


class Lesson(nn.Module):
    """What only distillation needs: the comparison of necks, with its own weights, and the balance of its terms."""

    def __init__(self, config: Distill, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.neck = Neck(cast(Kind, config.loss), student, teacher)
        self.neck_balance, self.logit_balance = Balance(), Balance()
        self.weight, self.logit_weight = config.weight, config.logit_weight
        self.names = [name for name, weight in (("distill_loss", self.weight), ("logit_loss", self.logit_weight)) if weight]
        if not self.names:
            raise ConfigError("Nothing is distilled with both weights at 0. Raise one, or train a plain detector.")


class Student(Detector):
    """A plain YOLO11 that, given a teacher's answers in the batch, adds what it has still to learn of them to its loss."""

    lesson: Lesson

    def loss(self, batch: dict[str, Any], preds: Any = None) -> Any:
        if preds is not None:                                               # on val: the detection loss alone
            loss, items = super().loss(batch, preds)
            return loss, items | {name: torch.zeros((), device=loss.device) for name in self.lesson.names}
        preds, neck = self.with_neck(batch["img"])
        loss, items = super().loss(batch, preds)
        with torch.autocast(loss.device.type, enabled=False):
            terms = self.terms(neck, preds["scores"], batch, items["box_loss"])
        return torch.cat([loss, torch.stack(list(terms.values())) * len(batch["img"])]), items | {k: v.detach() for k, v in terms.items()}

    def terms(self, neck: list[Tensor], scores: Tensor, batch: dict[str, Any], box: Tensor) -> dict[str, Tensor]:
        """What is still to learn of the teacher, on the scale that the box loss had at first."""
        lesson, found = self.lesson, {}
        if lesson.weight:
            far = lesson.neck(neck, batch["teacher_neck"])
            found["distill_loss"] = lesson.weight * lesson.neck_balance(far, box) * far
        if lesson.logit_weight:
            unsure = logits(scores, batch["teacher_scores"])
            found["logit_loss"] = lesson.logit_weight * lesson.logit_balance(unsure, box) * unsure
        return found


class Scores(nn.Module):
    """In place of a teacher's head: its class scores alone, or nothing. Nobody asks for its boxes."""

    def __init__(self, head: Any, asked: bool) -> None:
        super().__init__()
        self.f, self.i, self.type = head.f, head.i, head.type                # where it stands in the network
        self.levels = head.cv3 if asked else None

    def forward(self, neck: list[Tensor]) -> Tensor | None:
        """(B, classes, N), before the sigmoid."""
        return torch.cat([level(x).flatten(2) for level, x in zip(self.levels, neck, strict=True)], 2) if self.levels else None


class Distilling(Course):
    """The course of a student: every training batch is shown to the teacher first."""

    def __init__(self, config: Distill, teacher: Detector, features: "fuse.Features | None") -> None:
        self.config, self.features = config, features
        self.teacher = listened_to(teacher, bool(config.logit_weight)).to(torch_device(), memory_format=torch.channels_last)
        self.dataset: type[Boxes] = Tracked if features else Boxes
        self.widths = neck_channels(self.teacher)                            # now: later it holds the features of some batch
        self.recent = Recent(self._projected)                                # what a frozen teacher takes of a picture stays the same

    def begin(self) -> None:
        self.recent.forget()

    def network(self, config: TrainDetector, names: dict[int, str]) -> Student:
        network: Student = build(config, names, Student)
        network.lesson = Lesson(self.config, neck_channels(network), self.widths)
        return network

    @torch.no_grad()
    def add(self, batch: dict[str, Any]) -> None:
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)          # once for both
        if self.features:
            assert isinstance(self.teacher, fuse.FusedDetector)
            self.features.add(batch, batch["sources"], self.recent)
            self.teacher.place(batch["features"], batch)
        batch["teacher_scores"], batch["teacher_neck"] = self.teacher.with_neck(batch["img"])

    def _projected(self, keys: list[str]) -> Tensor:
        assert self.features is not None and isinstance(self.teacher, fuse.FusedDetector)
        return self.teacher.projected(self.features.hidden(keys), self.features.expansion)


def listened_to(teacher: Detector, scores: bool) -> Detector:
    """The teacher itself, frozen, its normalisation multiplied into the convolutions, and without what no loss looks at: on a
    core a fifth of its pass. From here on it can neither be trained nor deployed."""
    teacher = teacher.eval().requires_grad_(False)
    teacher.fuse(verbose=False)
    teacher.model[-1] = Scores(teacher.model[-1], scores)
    if teacher.bf16:
        teacher.model.to(torch.bfloat16)                                     # as autocast would at every step
    return teacher.requires_grad_(False)


def neck_channels(network: Detector) -> list[int]:
    """Channels of the three maps that the head takes."""
    device, training = next(network.parameters()).device, network.training
    with torch.no_grad():
        found = [m.shape[1] for m in network.eval().with_neck(torch.zeros(1, 3, 64, 64, device=device))[1]]
    network.train(training)
    assert len(found) == len(NECK)
    return found


# ---- the recipe

def run(config: Distill, run_dir: Path, report: Any) -> dict[str, Any]:
    train.check_settings(config)
    report(step=0, total=config.epochs, message="laying out the images")
    snapshot_run = rundir.taken_snapshot(run_dir, config.dataset)
    snapshot_id = rundir.snapshot_id(snapshot_run)
    teacher = rundir.taken(run_dir, "teacher", lambda: find_teacher(config.teacher, snapshot_id))
    follows = str(rundir.read_json(teacher / "head.json")["key"])
    material = train.from_snapshot(snapshot_run, run_dir / "training" / "data", Share.of(config), follows)
    return make(train.settled(config, material), material, teacher, run_dir, report)


def find_teacher(name: str, snapshot_id: str) -> Path:
    """A fused detector of this snapshot, or a plain one by name or run. Raises ConfigError."""
    folder = rundir.find_artifact("fused", name, snapshot_id=snapshot_id)
    if folder is None and name:
        folder = rundir.find_artifact("weights", name, snapshot_id=snapshot_id, kind=None)     # a detector's; an anomaly model's has a kind
    if folder is None:
        raise ConfigError(f"There is no teacher called {name!r} that was trained on this dataset." if name else
                          "There is no fused detector for this dataset. Run train-fused first.")
    return folder


def make(config: Distill, material: train.Material, teacher: Path, run_dir: Path, report: Any) -> dict[str, Any]:
    """Train the student and deploy it as any other detector."""
    head = rundir.read_json(teacher / "head.json")
    if head["classes"] != list(material.classes):
        raise ConfigError(f"The teacher {head['name']!r} knows other classes than this dataset has.")
    network, features = fuse.load(teacher) if teacher.name == "fused" else (plain_teacher(teacher, head, config.precision), None)
    result = train.make(config, material, run_dir, report, Distilling(config, network, features))
    return dict(result, teacher=head["name"], teacher_key=head["key"])


def plain_teacher(folder: Path, head: dict[str, Any], precision: str) -> Detector:
    config = TrainDetector(dataset="-", name=head["name"], size=head["size"], imgsz=head["imgsz"], precision=precision)
    network: Detector = build(config, dict(enumerate(head["classes"])))
    network.load_state_dict(load_file(folder / "network.safetensors"))
    return network
