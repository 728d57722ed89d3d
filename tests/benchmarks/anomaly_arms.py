"""The arms of the anomaly benchmark, as commands of the product or as scripts outside it. What several arms build on is made once.

Each learns from the good images of one part of the data (magnetic tiles, or one kind of paper), one configuration for all parts,
and leaves maps and scores.json for the published scorer.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.config import TrainAnomaly
from tests.benchmarks import arms
from tests.benchmarks.record import SHARED, product
from tests.benchmarks.sets import Dataset

PIPED = ("PA_BDP01_TL", "PA_BFT01_TL", "PA_BRG03_TL", "PA_BTN01_RL", "PA_FLR01_TL", "PA_ZPB01_RL")
PARTS = {"magnetic-tile": SHARED / "data" / "magnetic-tile", **{kind: SHARED / "data" / "PIPED" / kind for kind in PIPED}}
SETS = {"magnetic-tile": ("magnetic-tile",), "PIPED": PIPED}                       # what is averaged into one figure
ABLATED = {"magnetic-tile": ("magnetic-tile",), "two PIPED": ("PA_BFT01_TL", "PA_FLR01_TL")}
SOURCES, LOSSES = ("texture", "noise", "ddpm"), ("cosine", "segmentation", "both")
PEERS = ("draem", "stfpm", "padim")                                                # anomalib's, trained by anomaly_peers.py

# What `train-anomaly` is given beside the shape. "ours" is the default of the product; two arms of equal settings are one.
ARMS: dict[str, dict[str, Any]] = {
    "ours": {},
    **{f"{source}-{loss}": dict(source=source, loss=loss) for source in SOURCES for loss in LOSSES},
    "two-phases": dict(phases="two"), "l1": dict(overlap="l1"), "ddpm-teacher": dict(teacher="ddpm"),
}
ABLATION = tuple(f"{source}-{loss}" for source in SOURCES for loss in LOSSES)
OUTSIDE = ("anchor", *PEERS)                                                       # not ours: no run of the product


@dataclass(frozen=True)
class Shape:
    """How long everything is. `folder` of results; the network's input is the product's own."""

    folder: str
    steps: int                       # of the anomaly model
    denoiser: int                    # of the diffusion model
    perturbed: int                   # images that it makes beforehand
    peer: int                        # optimiser steps of a peer


SHAPES = {
    "cpu": Shape("anomaly", 2000, 1000, 200, 2000),
    "gpu": Shape("anomaly-gpu", 10_000, 8000, 2000, 20_000),
    "check": Shape("anomaly-check", 4, 4, 4, 2),
}


@dataclass(frozen=True)
class Lab(arms.Lab):
    """A data folder of the product, in which arms are made for one part of the data and one seed."""

    shape: Shape                     # type: ignore[assignment]
    python: str = sys.executable     # that runs the peers

    @classmethod
    def of(cls, data: Path, shape: Shape, part: str, seed: int, python: str) -> "Lab":
        root = PARTS[part]
        return cls(data, shape, Dataset(part, root, root, "", "", "", annotations=root / "splits"), seed, python)

    def ours(self, arm: str) -> Path:
        """Maps of a model of ours. One diffusion model (seed 0) serves all arms and seeds of a part."""
        self.imported()
        settings, data = settings_of(arm), self.dataset
        words = ["--steps", str(self.shape.steps), "--perturbed", str(self.shape.perturbed), "--seed", str(self.seed)]
        if settings.source in ("ddpm", "mixed") or settings.teacher == "ddpm":
            words += ["--denoiser", self.made("train-diffusion", f"{data.name}-ddpm", "--steps", str(self.shape.denoiser))]
        words += [word for key, value in ARMS[arm].items() for word in (f"--{key}", str(value))]
        name = self.made("train-anomaly", self.name(arm), *words)
        product(self.data, "predict", "--model", name, "--images", str(data.folder), "--list", str(data.test), "--out", str(self.maps(arm)))
        return self.maps(arm)

    def theirs(self, arm: str) -> Path:
        """Maps of the anchor or a peer, from the very lists; they need no val, so they learn from all of train."""
        data, here = self.dataset, Path(__file__).parent / "anomaly_peers.py"
        command = [sys.executable, SHARED / "score" / "patchcore_anchor.py"] if arm == "anchor" else [self.python, here]
        more = [] if arm == "anchor" else [arm, "--steps", self.shape.peer, "--seed", self.seed]
        self.maps(arm).mkdir(parents=True, exist_ok=True)
        subprocess.run([str(word) for word in (*command, data.folder, data.test.with_name("train.txt"), data.test, self.maps(arm), *more)],
                       check=True)
        return self.maps(arm)

    def told(self, arm: str) -> dict[str, Any]:
        """What a run says of itself."""
        if arm not in OUTSIDE:
            return self.result("train-anomaly", self.name(arm))
        about = self.maps(arm) / "about.json"
        return dict(json.loads(about.read_text())) if about.exists() else {}

    def maps(self, arm: str) -> Path:
        return self.data / "maps" / self.name(arm)

    def name(self, arm: str) -> str:
        return f"{self.dataset.name}-{arm}-{self.seed}"


def settings_of(arm: str) -> TrainAnomaly:
    return TrainAnomaly(**ARMS[arm])


def same_as(arm: str) -> str:
    """The name under which an arm is run: of arms with equal settings the first."""
    return arm if arm in OUTSIDE else next(a for a in ARMS if settings_of(a) == settings_of(arm))
