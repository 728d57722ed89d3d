"""The arms of the distillation benchmark, as commands of the product. What several arms build on is made once and found by name.

Every training of a detector has the same snapshot, steps, batch, augmentation and seeds; what an arm does before is what it is about.
One denoiser and one repository (seed 0) serve all seeds; backbones, teachers and students are made anew for each.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.record import NEU, product

LABELS = 126                         # of 1,260 train images: the arms named -10


@dataclass(frozen=True)
class Shape:
    """How long everything is. `folder` of results; the network's input is 224 px and its arithmetic bf16 throughout."""

    folder: str
    epochs: int
    denoiser: int                    # steps of 32 crops
    repository: int                  # steps of the compressing network
    teach: int                       # steps of 32 images
    longer: int                      # epochs of plain-longer


SHAPES = {
    "cpu": Shape("distillation", 40, 1200, 1500, 1600, 160),
    "gpu": Shape("distillation-gpu", 100, 10_000, 3000, 4000, 300),
    "check": Shape("distillation-check", 1, 20, 20, 20, 2),
}


@dataclass(frozen=True)
class Lab:
    """A data folder of the product, in which arms are made for one seed."""

    data: Path
    shape: Shape
    seed: int = 0

    def made(self, recipe: str, name: str, *words: str) -> str:
        """The name, once a completed run of it is there: found, taken up where it was, or made. Others who need it wait meanwhile."""
        with open(self.data / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state, run = self._found(recipe, name)
            if state != "completed":
                os.environ["DIFFSPECT_RECIPES"] = "tests.benchmarks.rival"
                product(self.data, *(("resume", run) if run else (recipe, "--dataset", "neu-det", "--name", name, *words)))
        return name

    def result(self, recipe: str, name: str) -> dict[str, Any]:
        return dict(json.loads((self.data / "runs" / self._found(recipe, name)[1] / "result.json").read_text()))

    def folder(self, recipe: str, name: str) -> Path:
        return self.data / "runs" / self._found(recipe, name)[1]

    def _found(self, recipe: str, name: str) -> tuple[str, str]:
        """State and id of the newest run of this recipe and name; of a failed one its failure is a reason to begin anew."""
        for run in sorted((self.data / "runs").glob(f"*-{recipe}-*"), reverse=True):
            job, state = (json.loads((run / f).read_text()) for f in ("job.json", "state.json"))
            if job["recipe"] == recipe and job["config"].get("name") == name and state["state"] != "failed":
                return state["state"], run.name
        return "", ""

    # ---- what arms build on

    def imported(self) -> None:
        if not list((self.data / "runs").glob("*-import-*")):
            product(self.data, "import", str(NEU), "--name", "neu-det", "--splits", str(NEU / "splits"))

    def denoiser(self, name: str = "ddpm") -> str:
        steps = 0 if name == "random" else self.shape.denoiser
        return self.made("train-diffusion", name, "--steps", str(steps), "--precision", "bf16")

    def features(self, name: str = "features", denoiser: str = "ddpm", *words: str) -> str:
        if self._found("build-repository", name)[0] == "completed":
            return name
        return self.made("build-repository", name, "--denoiser", self.denoiser(denoiser), "--steps", str(self.shape.repository), *words)

    def backbone(self) -> str:
        return self.made("teach-backbone", f"backbone-{self.seed}", "--repository", self.features(), "--steps", str(self.shape.teach),
                         "--seed", str(self.seed), "--precision", "bf16")

    def detector(self, recipe: str, arm: str, *words: str, epochs: int | None = None) -> str:
        shape = ("--epochs", str(epochs or self.shape.epochs), "--imgsz", "224", "--precision", "bf16", "--seed", str(self.seed))
        return self.made(recipe, f"{arm}-{self.seed}", *shape, *words)

    def plain(self, arm: str = "plain", *words: str, epochs: int | None = None) -> str:
        return self.detector("train-detector", arm, *words, epochs=epochs)

    def fused(self, arm: str = "fused", *words: str, features: str = "features", denoiser: str = "ddpm", how: tuple[str, ...] = ()) -> str:
        return self.detector("train-fused", arm, "--repository", self.features(features, denoiser, *how), *words)

    def distilled(self, arm: str, teacher: str, *words: str) -> str:
        return self.detector("distill", arm, "--teacher", teacher, *words)


def few(*words: str) -> tuple[str, ...]:
    return ("--labels", str(LABELS), *words)


def taught(lab: Lab) -> tuple[str, str]:
    return "--backbone", lab.backbone()


# Each leaves a run named <arm>-<seed> of the recipe named first.
ARMS: dict[str, tuple[str, Callable[[Lab], str]]] = {
    "plain": ("train-detector", lambda lab: lab.plain()),
    "ddpm-taught": ("train-detector", lambda lab: lab.plain("ddpm-taught", *taught(lab))),
    "fused": ("train-fused", lambda lab: lab.fused()),
    "ddpm-distilled": ("distill", lambda lab: lab.distilled("ddpm-distilled", lab.fused())),
    "fused-taught": ("train-fused", lambda lab: lab.fused("fused-taught", *taught(lab))),
    "ddpm-taught-distilled": ("distill", lambda lab: lab.distilled(
        "ddpm-taught-distilled", lab.fused("fused-taught", *taught(lab)), *taught(lab))),
    "self": ("distill", lambda lab: lab.distilled("self", lab.plain())),
    "ultralytics": ("train-rival", lambda lab: lab.detector("train-rival", "ultralytics", "--teacher", lab.plain("larger", "--size", "s"))),
    "plain-longer": ("train-detector", lambda lab: lab.plain("plain-longer", epochs=lab.shape.longer)),
    "plain-10": ("train-detector", lambda lab: lab.plain("plain-10", *few())),
    "ddpm-taught-10": ("train-detector", lambda lab: lab.plain("ddpm-taught-10", *few(*taught(lab)))),
    "ddpm-distilled-10": ("distill", lambda lab: lab.distilled("ddpm-distilled-10", lab.fused("fused-10", *few()), *few())),
    "ddpm-taught-distilled-10": ("distill", lambda lab: lab.distilled(
        "ddpm-taught-distilled-10", lab.fused("fused-taught-10", *few(*taught(lab))), *few(*taught(lab)))),
    "no-resvae": ("distill", lambda lab: lab.distilled(
        "no-resvae", lab.fused("fused-no-resvae", features="features-raw", how=("--raw",)))),
    "no-filter": ("distill", lambda lab: lab.distilled("no-filter", lab.fused("fused-no-filter", "--no-spectral-filter"))),
    "no-dynamic": ("distill", lambda lab: lab.distilled("no-dynamic", lab.fused("fused-no-dynamic", "--no-dynamic"))),
    "random-ddpm": ("distill", lambda lab: lab.distilled(
        "random-ddpm", lab.fused("fused-random", features="features-random", denoiser="random"))),
    "shuffled-keys": ("distill", lambda lab: lab.distilled("shuffled-keys", lab.fused("fused-shuffled", "--shuffled"))),
}


def predictions(lab: Lab, arm: str) -> Path:
    """Make an arm and let it predict the locked test list; the file of its predictions."""
    recipe, make = ARMS[arm]
    name = make(lab)
    if recipe == "train-fused":                                  # never deployed: its run holds what it found
        return lab.folder(recipe, name) / "fused" / "predictions.json"
    out = lab.data / name
    which = ("--images", str(NEU / "IMAGES"), "--list", str(NEU / "splits" / "test.txt"))
    product(lab.data, "predict", "--model", name, *which, "--out", str(out))
    return out / "predictions.json"


def commit() -> str:
    """Of the code that runs. A machine without the repository is told."""
    told = os.environ.get("BENCHMARK_COMMIT")
    return told or subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                                  check=True).stdout.strip()
