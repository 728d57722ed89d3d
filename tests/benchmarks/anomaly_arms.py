"""The arms of the anomaly benchmark, as commands of the product or as scripts outside it. What several arms build on is made once.

Each learns from the good images of one part of the data (magnetic tiles, or one kind of paper), one configuration for all parts,
and leaves maps and scores.json for the published scorer.
"""

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.config import RECIPES, TrainAnomaly
from backend.data import snapshot
from backend.jobs import bench
from tests.benchmarks import arms
from tests.benchmarks.record import SHARED, product
from tests.benchmarks.sets import Dataset
from tests.benchmarks.settings import Settings, asked, differing, effective

PIPED = ("PA_BDP01_TL", "PA_BFT01_TL", "PA_BRG03_TL", "PA_BTN01_RL", "PA_FLR01_TL", "PA_ZPB01_RL")
PARTS = {"magnetic-tile": SHARED / "data" / "magnetic-tile", **{kind: SHARED / "data" / "PIPED" / kind for kind in PIPED}}
SETS = {"magnetic-tile": ("magnetic-tile",), "PIPED": PIPED}                       # what is averaged into one figure
ABLATED = {"magnetic-tile": ("magnetic-tile",), "two PIPED": ("PA_BFT01_TL", "PA_FLR01_TL")}
SOURCES, LOSSES = ("texture", "noise", "ddpm"), ("cosine", "segmentation", "both")
PEERS = ("draem", "stfpm", "padim")                                                # anomalib's, trained by anomaly_peers.py

# What `train-anomaly` is given beside the shape. "ours" is the default of the product; two arms of equal settings are one.
ARMS: dict[str, dict[str, Any]] = {
    "ours": {},
    **{f"{source}-{loss}": dict(source=source, loss=loss, memory=0) for source in SOURCES for loss in LOSSES},
    "ddpm-coupled": dict(source="ddpm", memory=0, coupled=True),
    "no-memory": dict(memory=0), "two-phases": dict(phases="two"), "coupled": dict(coupled=True), "l1": dict(overlap="l1"),
    "ddpm-teacher": dict(teacher="ddpm"),
}
# The last as near to the paper as we come; the default was shaped with the defects known. The two before it are one training
MAIN = ("anchor", "ours", "no-memory", "ddpm-both")
# Programs, as `code` calls them, that differ in what is named here alone.
ALIKE: tuple[dict[str, str], ...] = (
    {"d88572e8dc8e901e": "", "61f23bd16e08e792": "quick.py: words, threads that are not pinned to cores, and the log kept as it was"},
    {"e7f17780f6a41b2e": "", "b395a6602b1cc772": "train.py: cosine alone takes the student of both losses, which is the same",
     "925f9c5990d10300": "train.py: what such a run tells of itself, and what it does where weights are damaged"},
)
DENOISER = ("diffusion/*.py", "data/normals.py")                                   # the program that makes one
# The last has one gradient for both losses, as the paper words it; in the others the student learns from cosine alone
ABLATION = (*(f"{source}-{loss}" for source in SOURCES for loss in LOSSES), "ddpm-coupled")
OUTSIDE = ("anchor", *PEERS)                                                       # not ours: no run of the product


@dataclass(frozen=True)
class Lengths:
    """Optimiser steps of the anomaly model, of the diffusion model, and images that it makes beforehand."""

    steps: int
    denoiser: int
    perturbed: int

    def __str__(self) -> str:
        return f"{self.steps:,} steps, {self.perturbed:,} images perturbed by a diffusion model of {self.denoiser:,} steps"


@dataclass(frozen=True)
class Shape:
    """How long everything is. `folder` of results. Kinds of PIPED have few good images, and so lengths of their own."""

    folder: str
    many: Lengths                    # magnetic tiles: 714 good images
    few: Lengths                     # a kind of PIPED: 32, over which 400 steps pass some 240 times
    peer: int                        # optimiser steps of a peer
    main: bool = True                # whether it is asked for the main arms,
    ablation: bool = False           # for those of the ablation
    imgsz: int | None = None         # of the network's input; none: the product's own

    def lengths(self, part: str) -> Lengths:
        return self.few if part in PIPED else self.many


# On two cores without bf16 a step at 256 px takes 1.6 to 2.3 s: the 42 trainings of the ablation, beside 18 that take a student that is
# there, would need 40 to 50 h at full length.
SHAPES = {
    "cpu": Shape("anomaly", Lengths(2000, 1000, 200), Lengths(400, 150, 40), 2000),
    "short": Shape("anomaly-short", Lengths(500, 1000, 200), Lengths(400, 150, 40), 500, main=False, ablation=True, imgsz=128),
    "gpu": Shape("anomaly-gpu", Lengths(10_000, 8000, 2000), Lengths(10_000, 8000, 2000), 20_000, ablation=True),
    "check": Shape("anomaly-check", Lengths(4, 4, 4), Lengths(4, 4, 4), 2, ablation=True),
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
        name, data = self.trained(arm), self.dataset
        product(self.data, "predict", "--model", name, "--images", str(data.folder), "--list", str(data.test), "--out", str(self.maps(arm)))
        return self.maps(arm)

    def trained(self, arm: str) -> str:
        """Name of its model."""
        settings, data, long = settings_of(arm), self.dataset, self.shape.lengths(self.dataset.name)
        words = ["--steps", str(long.steps), "--perturbed", str(long.perturbed), "--seed", str(self.seed), "--near-duplicates"]
        words += ["--imgsz", str(self.shape.imgsz)] if self.shape.imgsz else []
        if settings.source in ("ddpm", "mixed") or settings.teacher == "ddpm":
            name = f"{data.name}-ddpm-{bench.code(DENOISER)[:8]}"
            words += ["--denoiser", self.made("train-diffusion", name, "--steps", str(long.denoiser), "--good")]
        for key, value in ARMS[arm].items():
            words += [f"--{key}"] if value is True else [f"--{key}", str(value)]
        return self.made("train-anomaly", self.name(arm), *words)

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

    def alike(self) -> dict[str, int]:
        """How many good train images are near-duplicates of a test image, by the product's rule. Nothing before the import."""
        run = self._found("import", self.dataset.name)
        if run[0] != "completed":
            return {}
        data = snapshot.read(self.data / "runs" / run[1])
        tested, train = {p.group_id for p in data.by_split("test")}, [p for p in data.by_split("train") if p.is_good]
        return dict(train=len(train), near_test=sum(bool(p.group_id) and p.group_id in tested for p in train))

    def groups(self) -> list[list[str]]:
        """Test images that belong together, near-duplicates by the product's rule, as the list names them. None before the import."""
        run = self._found("import", self.dataset.name)
        together: dict[str, list[str]] = defaultdict(list)
        for p in snapshot.read(self.data / "runs" / run[1]).by_split("test") if run[0] == "completed" else []:
            together[p.group_id].append(p.file_name)
        return [sorted(names) for group, names in sorted(together.items()) if group and len(names) > 1]

    def maps(self, arm: str) -> Path:
        return self.data / "maps" / self.name(arm)

    def name(self, arm: str) -> str:
        """Of ours it ends with the program's code, so that a model of an earlier one is not taken for it."""
        width = f"-{self.shape.imgsz}px" if self.shape.imgsz else ""               # shapes may share a folder, for its diffusion models
        return f"{self.dataset.name}-{arm}-{self.seed}{width}" + (f"-{code(arm)[:8]}" if code(arm) else "")


@dataclass(frozen=True)
class Plan(Lab):
    """Makes nothing: notes what would be made, by recipe."""

    noted: dict[str, Settings] = field(default_factory=dict)

    def made(self, recipe: str, name: str, *words: str) -> str:
        self.noted[recipe] = effective(asked(recipe, "--dataset", self.dataset.name, "--name", name, *words))
        return name


def planned(lab: Lab, arm: str) -> dict[str, Settings]:
    """Effective settings of an arm and of all that it builds on, by recipe; of a peer its steps, of the anchor nothing."""
    if arm in OUTSIDE:
        return {arm: dict(steps=lab.shape.peer)} if arm in PEERS else {}
    plan = Plan(lab.data, lab.shape, lab.dataset, lab.seed, lab.python)
    plan.trained(arm)
    return plan.noted


def stretched(settings: dict[str, Settings], long: Lengths) -> dict[str, Settings]:
    """Settings of an arm as they would be on a part of these lengths."""
    asked = {"train-anomaly": dict(steps=long.steps, perturbed=long.perturbed), "train-diffusion": dict(steps=long.denoiser)}
    return {run: told | asked.get(run, {}) for run, told in settings.items()}


def odd(before: dict[str, Settings], now: dict[str, Settings]) -> str:
    """'steps was 10, is 20', or ''. Parts and seeds may differ, and so may the names that follow from them."""
    told = []
    for run in sorted(before | now):
        a, b = ({**side.get(run, {}), **dict.fromkeys(("dataset", "name", "seed", "denoiser"))} for side in (before, now))
        if run not in before or run not in now:
            told.append(f"{run} was {'not made' if run not in before else 'made'}")
        elif run in RECIPES:
            told.append(differing(run, a, b))
        else:
            told += [f"{k} was {a.get(k)}, is {b.get(k)}" for k in sorted(a | b) if a.get(k) != b.get(k)]
    return "; ".join(filter(None, told))


def code(arm: str) -> str:
    """Of the program behind an arm's figures; '' of what is not ours."""
    return "" if arm in OUTSIDE else bench.code()


def same_code(a: str, b: str) -> bool:
    """Whether two programs differ in nothing that a figure could hang on."""
    return a == b or any({a, b} <= alike.keys() for alike in ALIKE)


def settings_of(arm: str) -> TrainAnomaly:
    return TrainAnomaly(**ARMS[arm])


def same_as(arm: str) -> str:
    """The name under which an arm is run: of arms with equal settings the first."""
    return arm if arm in OUTSIDE else next(a for a in ARMS if settings_of(a) == settings_of(arm))
