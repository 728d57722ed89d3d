"""The recipe `train-fused`: a detector that reads the diffusion model's features beside the image. Start with `FusedDetector`.

D3N (arXiv 2408.13845): the image is the key, the repository answers with what the denoiser saw in it, and cross-fusion brings
that into P3 to P5 of the backbone. It needs a repository entry for every image, so it is never deployed: it is a teacher.
Latents are decoded and filtered as they were stored, then carried along by the image's own augmentation (`detection.warp`).
Knows nothing of distillation.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend import rundir
from backend.config import LATER, TrainFused
from backend.data.shares import Share
from backend.detection import start, train, trainer
from backend.detection.features import Features, Recent
from backend.detection.network import BACKBONE, Detector, build
from backend.detection.trainer import Boxes, Course
from backend.detection.warp import Sources, Tracked, warp
from backend.device import torch_device
from backend.errors import Canceled, ConfigError
from backend.evaluation import detection as evaluation
from backend.evaluation import looks
from backend.inspection.engine import Engine
from backend.teacher.fusion import Expansion, Fusion
from backend.teacher.repository import whole

FORMAT = 2                           # of the teacher; part of its key
STRIDE = 8                           # of P3, the finest level that features are brought into


class FusedDetector(Detector):
    """YOLO11 with cross-fusion at the backbone's three outputs. Without contexts, and at the start of training, it is the plain one."""

    fusion: Fusion
    contexts: list[Tensor] | None = None                     # of the batch under way: per level (B, channels, H, W)

    def between(self, layer: int, x: Any) -> Any:
        if self.contexts is not None and layer in BACKBONE:
            x = self.fusion.fuse(BACKBONE.index(layer), x, self.contexts)
        return super().between(layer, x)

    def read(self, batch: dict[str, Any]) -> None:
        """Make contexts of the features in a batch: project, filter, carry along, pool."""
        self.place(self.projected(batch["features"], batch["expansion"]), batch)

    def projected(self, features: Tensor, expansion: Expansion) -> Tensor:
        """Features of pictures, up to an expansion (M, c, g, g) -> what fusion takes of them, filtered (M, D, g, g)."""
        with torch.autocast(features.device.type, torch.bfloat16, enabled=self.bf16):
            return self.fusion.project(features if self.bf16 else features.float(), expansion)

    def place(self, maps: Tensor, batch: dict[str, Any]) -> None:
        """Make contexts of what was projected, for the batch that shows the pictures."""
        n, _, height, width = batch["img"].shape
        context = warp(maps, batch["sources"], batch["extents"], n, (height // STRIDE, width // STRIDE), batch["picture"])
        self.contexts = self.fusion.contexts(context)

    def loss(self, batch: dict[str, Any], preds: Any = None) -> Any:
        if preds is not None:
            return super().loss(batch, preds)
        self.read(batch)
        try:
            return super().loss(batch)
        finally:
            self.contexts = None


def fused(config: TrainFused, names: dict[int, str], widths: Sequence[int]) -> FusedDetector:
    """The plain network, of the same weights for the same seed, with fusion added."""
    network: FusedDetector = build(config, names, FusedDetector)
    network.fusion = Fusion(list(widths), backbone_channels(network), dynamic=config.dynamic, spectral_filter=config.spectral_filter)
    return network


def backbone_channels(network: Detector) -> list[int]:
    """Channels of P3, P4, P5 where the neck takes them."""
    kept: dict[int, int] = {}
    hooks = [network.model[i].register_forward_hook(lambda m, a, out, i=i: kept.__setitem__(i, out.shape[1])) for i in BACKBONE]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 64, 64))
    network.train(training)
    for hook in hooks:
        hook.remove()
    return [kept[i] for i in BACKBONE]


class Fusing(Course):
    """The course of the fused detector."""

    dataset: type[Boxes] = Tracked

    def __init__(self, features: Features) -> None:
        self.features, self.recent = features, Recent(features.hidden)

    def begin(self) -> None:
        self.recent.forget()

    def network(self, config: Any, names: dict[int, str]) -> FusedDetector:
        return fused(config, names, self.features.repository.widths)

    def add(self, batch: dict[str, Any]) -> None:
        self.features.add(batch, batch["sources"], self.recent)

    def show(self, batch: dict[str, Any], network: Detector) -> None:
        assert isinstance(network, FusedDetector)
        self.features.add(batch, batch["sources"])
        network.read(batch)

    def curves(self, network: Detector) -> dict[str, float]:
        assert isinstance(network, FusedDetector)
        taps = zip(self.features.repository.taps, network.fusion.tap_weights(), strict=False)        # none where they are fixed
        return network.fusion.gates() | {f"tap_{name}": weight for name, weight in taps}


# ---- the recipe

def run(config: TrainFused, run_dir: Path, report: Any) -> dict[str, Any]:
    train.check_settings(config)
    report(step=0, total=config.epochs, message="laying out the images")
    snapshot_run = rundir.taken_snapshot(run_dir, config.dataset)
    snapshot_id = rundir.snapshot_id(snapshot_run)
    repository = rundir.taken(run_dir, "repository", lambda: find_repository(config.repository, snapshot_id))
    material = laid(config, snapshot_run, repository, run_dir)
    return make(train.settled(config, material), material, repository, run_dir, report)


def laid(config: TrainFused, snapshot_run: Path, repository: Path, run_dir: Path) -> train.Material:
    """The images in the scratch folder, where an attempt with another repository leaves nothing."""
    follows = str(rundir.read_json(repository / "head.json")["key"])
    return train.from_snapshot(snapshot_run, run_dir / "training-fused" / "data", Share.of(config), follows)


def find_repository(name: str, snapshot_id: str) -> Path:
    """A repository of exactly this snapshot. Raises ConfigError."""
    folder = rundir.find_artifact("repository", name, snapshot_id=snapshot_id)
    if folder is None:
        called = f" called {name!r}" if name else ""
        raise ConfigError(f"There is no feature repository{called} for this dataset. Run build-repository first.")
    return folder


def key(config: TrainFused, snapshot_id: str, repository_key: str) -> str:
    """What a teacher follows from; names do not count."""
    pointers = ("name", "dataset", "repository", "backbone", "weights")
    settings = {k: v for k, v in config.to_json().items() if k not in pointers and (k, v) not in LATER}
    made_of = dict(repository=repository_key, backbone=_backbone_key(config.backbone), weights=start.key(config.weights))
    return rundir.key_of(kind="fused", format=FORMAT, snapshot_id=snapshot_id, **made_of, **settings)


def _backbone_key(name: str) -> str:
    folder = rundir.find_artifact("backbone", name) if name else None
    return str(rundir.read_json(folder / "head.json")["key"]) if folder else ""


def make(config: TrainFused, material: train.Material, repository: Path, run_dir: Path, report: Any) -> dict[str, Any]:
    """Train, choose the epoch on val, score once; the teacher is kept in `<run>/fused`."""
    scratch, read = run_dir / "training-fused", rundir.read_json(repository / "head.json")
    made_of = key(config, material.snapshot_id, read["key"])
    if done := rundir.own_result(run_dir, "fused", made_of):
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    scratch.mkdir(exist_ok=True)
    try:
        # the network, from the checkpoint if there is one
        features = Features(repository, config.shuffled)
        network, progress = trainer.fit(config, material.data, scratch, train.telling(config, run_dir, report), Fusing(features))
        assert isinstance(network, FusedDetector)

        # scores, as of a deployed one: val, and one look at test
        report(step=config.epochs, total=config.epochs, message="scoring")
        head = dict(key=made_of, name=config.name, model_id="", kind="fused",
                    dataset=material.dataset, snapshot_id=material.snapshot_id, classes=list(material.classes), imgsz=config.imgsz,
                    size=config.size, repository=read["key"], settings=config.to_json(), epoch=progress.best_epoch,
                    epochs=progress.epoch, control=config.shuffled or bool(read.get("control")))
        found = {s: predict(network, features, head, material, s, config.epochs, report) for s in ("val", "test")}
        head["metrics"] = {s: evaluation.evaluate(found[s], material.truth[s], material.classes) for s in ("val", "test")}
        looked = head | dict(test_set_id=material.test_set_id, thresholds={})
        looks.count(run_dir, 2, looked, material.truth)                      # in a guided run, 1 is the student's

        # the artifact
        folder = scratch / "fused"
        folder.mkdir(exist_ok=True)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "network.safetensors")
        rundir.write_json(folder / "predictions.json", found["test"])
        head["result"] = train.figures(config, material, head, progress)
        rundir.keep_artifact(folder, run_dir, "fused", head)
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return dict(head["result"])


def predict(network: FusedDetector, features: Features, head: dict[str, Any], material: train.Material, split: str, epochs: int,
            report: Any) -> list[evaluation.Prediction]:
    """All boxes of the fused detector on a split; each image is letterboxed as the deployed engine does it."""
    device = torch_device()
    network = network.to(device).eval()

    def answer(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch).to(device))[0].float().cpu().numpy()

    def see(names: Sequence[str], prepared: Sequence[Any]) -> None:
        side = head["imgsz"]
        batch: dict[str, Any] = {"img": torch.zeros(len(names), 3, side, side, device=device)}
        features.add(batch, letterboxed([material.keys[n] for n in names], prepared, side))
        with torch.inference_mode():
            network.read(batch)

    try:
        names = sorted(material.truth[split])
        return evaluation.answers(Engine.of(head, answer), names, material.load, lambda n: report(
            step=epochs, total=epochs, message=f"scoring on {split}, image {n + 1} of {len(names)}"), see)
    finally:
        network.contexts = None


def letterboxed(keys: list[str], prepared: Sequence[Any], side: int) -> Sources:
    """Sources of images that `Engine.prepare` fitted into a square of this side."""
    matrices = [[[side / (p.width * p.gain[0]), 0, -p.offset[0] / (p.width * p.gain[0])],
                 [0, side / (p.height * p.gain[1]), -p.offset[1] / (p.height * p.gain[1])], [0, 0, 1]] for p in prepared]
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(keys), 1)
    return Sources(torch.arange(len(keys)), keys, torch.tensor(matrices, dtype=torch.float32), whole)


def load(folder: Path) -> tuple[FusedDetector, Features]:
    """A kept teacher and the features it reads, float32 on the CPU. Raises ConfigError where its repository is gone."""
    head = rundir.read_json(folder / "head.json")
    repository = whole(head["repository"])
    if repository is None:
        raise ConfigError(f"The feature repository that the teacher {head['name']!r} reads is gone or damaged. Build it again.")
    config = TrainFused(**{**head["settings"], "weights": None, "backbone": ""})
    features = Features(repository, config.shuffled)
    network = fused(config, dict(enumerate(head["classes"])), features.repository.widths)
    network.load_state_dict(load_file(folder / "network.safetensors"))
    return network.eval(), features
