"""The arms of the distillation benchmark, as commands of the product. What several arms build on is made once and found by name.

Every training of a detector has the same snapshot, optimiser, steps, batch, augmentation and seeds; what an arm does before is what
it is about. One denoiser and one repository (seed 0) serve all seeds; backbones, teachers and students are made anew for each.
"""

import fcntl
import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.data import snapshot
from backend.device import REFERENCE
from backend.errors import ConfigError
from tests.benchmarks.record import product
from tests.benchmarks.sets import SETS, Dataset, write_truth
from tests.benchmarks.settings import OWN, Settings, asked, differing, here

LABELS = 126                         # of 1,260 train images: the arms named -10


@dataclass(frozen=True)
class Shape:
    """How long everything is. `suffix` of results; the network's input is 224 px, its arithmetic bf16 where the processor has it.

    The optimiser is that of every detector alike, teachers and rivals too, with its own learning rate.
    """

    suffix: str
    epochs: int
    denoiser: int                    # steps of 32 crops
    repository: int                  # steps of the compressing network
    teach: int                       # steps of 32 images
    longer: int                      # epochs of plain-longer
    optimizer: str = "MuSGD"         # chosen on val among SGD and MuSGD: results/tuning.json


# plain-longer gets the time that ours spent before the detector's own training, as epochs. Measured for `cpu` on one core, NEU-DET:
#     plain epoch 38.8 s; denoiser 1,200 steps × 2.3 s = 2,760 s; repository 11 min = 660 s; teaching 33 min = 1,980 s;
#     fused teacher 42 min = 2,520 s; a distilling epoch 1.64 times a plain one, so 40 of them 0.64 × 40 × 38.8 = 993 s more.
#     ddpm-taught:            2,760 + 660 + 1,980               = 5,400 s = 139 epochs: 40 + 139 = 179, which is set
#     ddpm-distilled:         2,760 + 660 + 2,520 + 993         = 6,933 s = 179 epochs: 219
#     ddpm-taught-distilled:  2,760 + 660 + 1,980 + 2,520 + 993 = 8,913 s = 230 epochs: 270
# So 180 are equal time for ddpm-taught; where one of the others is the best of ours, its own number belongs here.
SHAPES = {
    "cpu": Shape("", 40, 1200, 1500, 1600, 180),
    "gpu": Shape("-gpu", 100, 10_000, 3000, 4000, 300),
    "check": Shape("-check", 1, 20, 20, 20, 2),
}


@dataclass(frozen=True)
class Lab:
    """A data folder of the product, in which arms of one dataset are made for one seed."""

    data: Path
    shape: Shape
    dataset: Dataset = SETS["neu-det"]
    seed: int = 0

    @property
    def results(self) -> str:
        """Name of the results' folder and table."""
        return f"distillation{self.dataset.suffix}{self.shape.suffix}"

    def made(self, recipe: str, name: str, *words: str) -> str:
        return self.done(recipe, name, "--dataset", self.dataset.name, *words)

    def done(self, recipe: str, name: str, *words: str) -> str:
        """The name, once a completed run of it is there: found, taken up where it was, or made. Others who need it wait meanwhile.

        Raises ConfigError where what is found was made with other settings.
        """
        words = ("--name", name, *words)
        with self._alone(name):
            state, run = self._found(recipe, name)
            if run and (odd := differing(recipe, self._settings(run), asked(recipe, *words))):
                if state != "canceled":                                # a canceled run has left nothing that could be taken up
                    raise ConfigError(f"{name} is there already, as the run {run}, but with other settings: {odd}. Take another --data "
                                      "folder, or remove that run and what was made from it.")
                state, run = "", ""
            if state != "completed":
                product(self.data, *(("resume", run) if run else (recipe, *words)), recipes=OWN)
        return name

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with open(self.data / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _settings(self, run: str) -> Settings:
        return dict(json.loads((self.data / "runs" / run / "job.json").read_text())["config"])

    def result(self, recipe: str, name: str) -> dict[str, Any]:
        return dict(json.loads((self.data / "runs" / self._found(recipe, name)[1] / "result.json").read_text()))

    def folder(self, recipe: str, name: str) -> Path:
        return self.data / "runs" / self._found(recipe, name)[1]

    def used(self, plan: dict[str, Settings]) -> dict[str, Settings]:
        """A plan with the arithmetic that each of its runs was asked for, where that was not left to the machine."""
        found = {run: self._found(*run.split(" ", 1))[1] for run, settings in plan.items() if "precision" in settings}
        return plan | {run: plan[run] | dict(precision=here(self._settings(at))["precision"]) for run, at in found.items() if at}

    def _found(self, recipe: str, name: str) -> tuple[str, str]:
        """State and id of the newest run of this recipe and name; of a failed one its failure is a reason to begin anew."""
        for run in sorted((self.data / "runs").glob(f"*-{recipe}-*"), reverse=True):
            job, state = (json.loads((run / f).read_text()) for f in ("job.json", "state.json"))
            if job["recipe"] == recipe and job["config"].get("name") == name and state["state"] != "failed":
                return state["state"], run.name
        return "", ""

    # ---- what arms build on

    def imported(self) -> None:
        with self._alone("import"):
            if self._found("import", self.dataset.name)[0] != "completed":
                product(self.data, "import", *self.dataset.words())
            if not self.annotations.exists():
                write_truth(self.folder("import", self.dataset.name), self.annotations)

    def groups(self) -> list[list[str]]:
        """Test images that belong together, near-duplicates by the product's rule, by the stems of their names."""
        together: dict[str, list[str]] = defaultdict(list)
        for p in snapshot.read(self.folder("import", self.dataset.name)).by_split("test"):
            together[p.group_id].append(Path(p.file_name).stem)
        return [names for group, names in sorted(together.items()) if group and len(names) > 1]

    @property
    def annotations(self) -> Path:
        """Folder of true boxes."""
        return self.dataset.annotations or self.data / f"{self.dataset.name}-truth"

    def denoiser(self, name: str = "ddpm") -> str:
        steps = 0 if name == "random" else self.shape.denoiser
        return self.made("train-diffusion", name, "--steps", str(steps))

    def features(self, name: str = "features", denoiser: str = "ddpm", *words: str) -> str:
        return self.made("build-repository", name, "--denoiser", self.denoiser(denoiser), "--steps", str(self.shape.repository), *words)

    def backbone(self) -> str:
        return self.made("teach-backbone", f"backbone-{self.seed}", "--repository", self.features(), "--steps", str(self.shape.teach),
                         "--seed", str(self.seed))

    def detector(self, recipe: str, arm: str, *words: str, epochs: int | None = None) -> str:
        shape = ("--epochs", str(epochs or self.shape.epochs), "--imgsz", "224", "--seed", str(self.seed), "--optimizer",
                 self.shape.optimizer)
        return self.made(recipe, f"{arm}-{self.seed}", *shape, *words)

    def plain(self, arm: str = "plain", *words: str, epochs: int | None = None) -> str:
        return self.detector("train-detector", arm, *words, epochs=epochs)

    def fused(self, arm: str = "fused", *words: str, features: str = "features", denoiser: str = "ddpm", how: tuple[str, ...] = ()) -> str:
        return self.detector("train-fused", arm, "--repository", self.features(features, denoiser, *how), *words)

    def distilled(self, arm: str, teacher: str, *words: str) -> str:
        return self.detector("distill", arm, "--teacher", teacher, *words)


@dataclass(frozen=True)
class Plan(Lab):
    """Makes nothing: notes what would be made, by recipe and name."""

    noted: dict[str, Settings] = field(default_factory=dict)

    def made(self, recipe: str, name: str, *words: str) -> str:
        self.noted[f"{recipe} {name}"] = here(asked(recipe, "--dataset", self.dataset.name, "--name", name, *words))
        return name


def planned(lab: Lab, arm: str) -> dict[str, Settings]:
    """Settings of an arm and of all that it builds on."""
    plan = Plan(lab.data, lab.shape, lab.dataset, lab.seed)
    ARMS[arm][1](plan)
    return plan.noted


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
    which = ("--images", str(lab.dataset.images), "--list", str(lab.dataset.test))
    product(lab.data, "predict", "--model", name, *which, "--runtime", REFERENCE, "--out", str(out))      # in float32, as all figures
    return out / "predictions.json"


def commit() -> str:
    """Of the code that runs. A machine without the repository is told."""
    told = os.environ.get("BENCHMARK_COMMIT")
    return told or subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True,
                                  check=True).stdout.strip()
