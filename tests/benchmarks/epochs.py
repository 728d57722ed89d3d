"""What a training step costs with features, against a plain one; and what the distilled student costs in inference: nothing more.

    python -m tests.benchmarks.epochs --data FOLDER [--rounds 15]

FOLDER is a data folder of the product with NEU-DET and a repository, as tests.benchmarks.distillation makes it. Each round takes one
step of every kind, one after another, loading included, so that a busy machine slows them alike; ratios are of medians.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg

from backend import rundir
from backend.config import Distill, TrainFused
from backend.data import images
from backend.detection import distill, export, fuse, train, trainer
from backend.detection.network import Detector
from backend.device import REFERENCE, cores, torch_device
from backend.diffusion import ddpm, features
from backend.inspection.engine import Engine
from tests.benchmarks.record import write

NAMES = dict(enumerate(("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")))


class Online(fuse.Features):
    """Features computed when they are asked for, as one would without a repository."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        head = self.repository.head
        found = rundir.find_artifact("denoiser", head["denoiser"])
        assert found is not None, "the repository's diffusion model is there"
        self.denoiser = ddpm.load(found).to(torch_device())
        self.taps = features.Taps(tuple(head["timesteps"]), tuple(head["blocks"]))

    @property
    def expansion(self) -> None:
        """They come whole."""

    def hidden(self, keys: list[str]) -> Tensor:
        squares = [features.prepared(self.denoiser, images.load(k), self.repository.head["side"])[0] for k in keys]
        return features.extract(self.denoiser, torch.stack(squares), self.taps, self.repository.grid).to(torch_device())


class Kind:
    """One way of training, step by step."""

    def __init__(self, config: Any, material: train.Material, course: trainer.Course, folder: Path) -> None:
        self.trainer = trainer.DetectorTrainer(config, material.data, folder, lambda *told: None, course)
        self.trainer.data, self.trainer.device = self.trainer.get_dataset(), torch.device(torch_device())
        self.data = self.trainer.build_dataset(self.trainer.data["train"], "train", config.batch)
        torch.manual_seed(0)
        self.network = self.trainer.get_model().to(self.trainer.device).train()
        self.network.args = get_cfg(overrides=vars(self.trainer.args))
        self.optimizer = torch.optim.SGD(self.network.parameters(), 1e-4, momentum=0.9)

    def step(self, number: int) -> float:
        began, size = time.perf_counter(), self.trainer.args.batch
        chosen = np.random.default_rng(number).choice(len(self.data), size, replace=False)
        batch = self.trainer.preprocess_batch(self.data.collate_fn([self.data[int(i)] for i in chosen]))
        loss, _ = self.network(batch)
        self.optimizer.zero_grad()
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def forgetting(course: fuse.Fusing) -> fuse.Fusing:
    """What is remembered between batches would be a repository, if a small one."""
    course.recent.room = 0
    return course


def kinds(material: train.Material, repository: Path, scratch: Path) -> dict[str, Kind]:
    shape: dict[str, Any] = dict(dataset="neu-det", name="-", imgsz=224, precision="bf16")
    fusing, student = TrainFused(**shape), Distill(**shape)
    known = fuse.Features(repository)
    teacher = fuse.fused(fusing, NAMES, known.repository.widths)
    made: dict[str, Callable[[], Kind]] = {
        "plain": lambda: Kind(fusing, material, trainer.Course(), scratch / "plain"),
        "fused": lambda: Kind(fusing, material, fuse.Fusing(known), scratch / "fused"),
        "distilled": lambda: Kind(student, material, distill.Distilling(student, teacher, known), scratch / "distilled"),
        "fused, features online": lambda: Kind(fusing, material, forgetting(fuse.Fusing(Online(repository))), scratch / "online"),
    }
    return {name: make() for name, make in made.items()}


def inference(networks: dict[str, Detector], scratch: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds for 16 images, network alone, alternating."""
    engines = {}
    for name, network in networks.items():
        about: dict[str, Any] = dict(classes=list(NAMES.values()), imgsz=224, snapshot_id="-", dataset="-", settings={})
        export.write_bundle(scratch / name, network, name=name, **about)
        engines[name] = Engine(scratch / name, REFERENCE)
    batch = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), np.uint8)
    found: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(4 * rounds):
        for name, engine in engines.items():
            began = time.perf_counter()
            list(engine.raw([batch]))
            found[name].append(time.perf_counter() - began)
    return found


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--rounds", type=int, default=15)
    a = ap.parse_args()
    os.environ["DIFFSPECT_DATA"] = str(a.data.resolve())
    torch.set_num_threads(cores())
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        material = train.from_snapshot(rundir.find_snapshot("neu-det"), scratch / "laid" / "data")
        found = kinds(material, fuse.find_repository("", material.snapshot_id), scratch)
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for number in range(a.rounds + 2):
            for name, kind in found.items():
                took = kind.step(number)
                if number >= 2:                              # the first two warm up
                    seconds[name].append(took)
        bare = {n: train.plain(TrainFused(dataset="-", name="-", imgsz=224), found[n].network) for n in ("plain", "distilled")}
        answers = inference(bare, scratch / "bundles", a.rounds)
    base, arms = median(seconds["plain"]), {}
    for name, took in seconds.items():
        arms[name] = {"step s, median": [round(median(took), 4)], "against plain": [round(median(took) / base, 3)]}
        if name in answers:
            arms[name]["inference against plain"] = [round(median(answers[name]) / median(answers["plain"]), 3)]
    command = f"python -m tests.benchmarks.epochs --data FOLDER --rounds {a.rounds}"
    notes = f"A step of 16 images at 224 px, loading in the same process, bf16, {cores()} cores; {a.rounds} rounds of all kinds in turn."
    name = "epochs" if torch_device() == "cpu" else "epochs-gpu"
    write(name, command, arms, [0], notes, ("torch", "ultralytics", "diffusers", "onnxruntime"))


if __name__ == "__main__":
    main()
