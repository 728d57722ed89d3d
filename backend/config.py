"""One frozen config per recipe. The same class makes the form on a page, the command-line flags and `job.json`.

Field metadata: `help` (one plain sentence), `choices`, `low` / `high` (inclusive), `advanced` (hidden behind
"Advanced" on pages). Names of datasets and models are resolved by the recipe, from run directories.
Knows nothing of argparse or Streamlit; `__main__` and the pages read the metadata.
"""

import dataclasses
import json
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import ConfigError


def data_root() -> Path:
    """The data folder: `DIFFSPECT_DATA`, or `data` beside the code."""
    chosen = os.environ.get("DIFFSPECT_DATA")
    return Path(chosen).expanduser().resolve() if chosen else Path(__file__).resolve().parents[1] / "data"


def demo_assets() -> Path:
    """The committed demo files (model bundle, sample pictures), whatever the data folder is."""
    return Path(__file__).resolve().parents[1] / "data" / "demo"


def _f(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Config:
    """Base of recipe configs. Values are JSON scalars, lists or dicts; validated on creation."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            _check(f, hints[f.name], getattr(self, f.name))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> typing.Self:
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise ConfigError(f"Unknown setting: {', '.join(unknown)}.")
        return cls(**values)


def _check(f: "dataclasses.Field[Any]", hint: Any, value: Any) -> None:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(typing.get_origin(k) or k for k in kinds)
    fits = isinstance(value, plain) or (float in plain and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in plain):
        raise ConfigError(f"{f.name} must be {' or '.join(k.__name__ for k in plain)}, not {json.dumps(value, default=str)}.")
    if value is None:
        return
    if "choices" in f.metadata and value not in f.metadata["choices"]:
        raise ConfigError(f"{f.name} must be one of {', '.join(map(str, f.metadata['choices']))}, not {value}.")
    low, high = f.metadata.get("low"), f.metadata.get("high")
    if isinstance(value, (int, float)) and ((low is not None and not value >= low) or (high is not None and not value <= high)):
        raise ConfigError(f"{f.name} must be between {low} and {high}, not {value}.")


@dataclass(frozen=True)
class Import(Config):
    """Read a folder or zip of images and labels into an immutable snapshot."""

    path: str = _f("", "Folder or zip file to read.")
    name: str = _f("", "Name of the dataset.")
    splits: str | None = _f(None, "Folder with train.txt, val.txt and test.txt.", advanced=True)
    split_prefix: str = _f("", "Prefix of the list files, such as 'det-'.", advanced=True)
    layout: str = _f("auto", "Layout of the labels.", advanced=True,
                     choices=("auto", "voc", "yolo", "coco", "mvtec", "mask-beside", "images", "synthetic"))
    seed: int = _f(0, "Seed of the drawn splits, where no lists are given.", low=0, high=2**31 - 1, advanced=True)
    group_pattern: str | None = _f(None, "Regular expression whose groups name the lot or unit in a file name; "
                                         "pictures of one lot or unit stay in one split.", advanced=True)


@dataclass(frozen=True)
class TrainDetector(Config):
    """Train a YOLO detector on a snapshot and deploy it as ONNX + JSON."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the model.")
    epochs: int = _f(40, "Passes over the training images.", low=1, high=2000)
    imgsz: int = _f(224, "Side of the square network input, in pixels; a multiple of 32.", low=64, high=2048)
    seed: int = _f(0, "Seed of weights, order and augmentation.", low=0, high=2**31 - 1)
    batch: int = _f(16, "Images per optimiser step.", low=1, high=512, advanced=True)
    size: str = _f("n", "Size of the YOLO11 network.", choices=("n", "s", "m"), advanced=True)
    weights: str | None = _f(None, "Local weights to start from (.pt by Ultralytics); none: from scratch.", advanced=True)
    backbone: str = _f("", "Taught backbone to start from, by name or run; empty: none.", advanced=True)
    labels: int | None = _f(None, "Use only so many labelled train images, each shown more often, so that the steps stay the same; "
                                  "none: all.", low=1, high=10_000_000, advanced=True)
    optimizer: str = _f("SGD", "Optimiser of the detector.", choices=("SGD", "AdamW", "MuSGD"), advanced=True)
    learning_rate: float | None = _f(None, "Initial learning rate; none: the optimiser's own, 0.001 for AdamW, else 0.01.",
                                     low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the network's forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class TrainDiffusion(Config):
    """Train a denoising diffusion model on the train images of a dataset, without their labels."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the diffusion model.")
    preset: str = _f("tiny", "Size and length: tiny (minutes on a CPU), small (an hour on a CPU), base (for a GPU).",
                     choices=("tiny", "small", "base"))
    steps: int | None = _f(None, "Optimiser steps; none: the preset's. 0 leaves random weights, as a control.", low=0, high=5_000_000)
    seed: int = _f(0, "Seed of weights, crops and noise.", low=0, high=2**31 - 1)
    good: bool = _f(False, "Learn from good images only, and leave those out that an anomaly model sets its threshold by.", advanced=True)
    side: int = _f(256, "Larger pictures are scaled down to this longer side, in pixels.", low=32, high=2048, advanced=True)
    channels: str = _f("auto", "Grey (1) or colour (3); auto: grey where all pictures are.", choices=("auto", "1", "3"), advanced=True)
    schedule: str = _f("cosine", "How noise grows with the timestep.", choices=("cosine", "linear"), advanced=True)
    batch: int | None = _f(None, "Crops per optimiser step; none: the preset's.", low=1, high=4096, advanced=True)
    learning_rate: float = _f(3e-4, "Learning rate of AdamW.", low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class ProbeFeatures(Config):
    """Rank decoder blocks and timesteps of a diffusion model by how well a linear reader finds defects in them, on val."""

    dataset: str = _f("", "Name of the dataset, or a snapshot id.")
    denoiser: str = _f("", "Diffusion model, by name or run; empty: the newest of this dataset.")
    timesteps: str = _f("5 20 50 150 300", "Timesteps to try, of 1,000.")
    images: int = _f(400, "Train images to fit the reader on.", low=10, high=100_000, advanced=True)
    seed: int = _f(0, "Seed of the choice of images.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class BuildRepository(Config):
    """Keep what a diffusion model sees in each image of a dataset, compressed to at most 32 KiB an image."""

    dataset: str = _f("", "Name of the dataset, or a snapshot id.")
    name: str = _f("", "Name of the repository.")
    denoiser: str = _f("", "Diffusion model, by name or run; empty: the newest of this dataset.")
    timesteps: str = _f("20", "Timesteps of 1,000, separated by spaces.", advanced=True)
    blocks: str = _f("all", "Decoder blocks, counted from the innermost as 0, separated by spaces; or all.", advanced=True)
    steps: int = _f(1500, "Optimiser steps of the compressing network.", low=10, high=1_000_000, advanced=True)
    raw: bool = _f(False, "Keep the features uncompressed (a control; about 14 times the space).", advanced=True)
    seed: int = _f(0, "Seed of the compressing network.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class TeachBackbone(Config):
    """Teach a YOLO backbone, without labels, to see what the diffusion model sees."""

    dataset: str = _f("", "Name of the dataset, or a snapshot id.")
    name: str = _f("", "Name of the taught backbone.")
    repository: str = _f("", "Feature repository, by name or run; empty: the newest of this dataset.")
    steps: int = _f(1600, "Optimiser steps.", low=1, high=1_000_000)
    imgsz: int = _f(224, "Side of the square network input, in pixels; a multiple of 32.", low=64, high=2048)
    seed: int = _f(0, "Seed of weights, order and flips.", low=0, high=2**31 - 1)
    size: str = _f("n", "Size of the YOLO11 network.", choices=("n", "s", "m"), advanced=True)
    batch: int = _f(32, "Images per optimiser step.", low=1, high=512, advanced=True)
    learning_rate: float = _f(1e-3, "Learning rate of AdamW, decaying linearly.", low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class TrainFused(TrainDetector):
    """Train a detector that reads the diffusion model's features beside the image: the teacher of a distillation."""

    repository: str = _f("", "Feature repository, by name or run; empty: the newest of this dataset.")
    spectral_filter: bool = _f(True, "Filter the features by frequency.", advanced=True)
    dynamic: bool = _f(True, "Weigh the features image by image.", advanced=True)
    shuffled: bool = _f(False, "Give each image the features of another one (a control).", advanced=True)


@dataclass(frozen=True)
class Distill(TrainDetector):
    """Train a plain light detector that also learns from a teacher's neck."""

    teacher: str = _f("", "Fused or plain detector to learn from, by name or run; empty: the newest fused one of this dataset.")
    loss: str = _f("pkd", "How the two necks are compared.", choices=("pkd", "cwd", "mgd"), advanced=True)
    weight: float = _f(1.0, "Weight of the distillation term, where 1 makes it as large as the box loss.", low=0.0, high=100.0,
                       advanced=True)
    logit_weight: float = _f(0.0, "Weight of learning the teacher's class answers too.", low=0.0, high=100.0, advanced=True)


@dataclass(frozen=True)
class TrainDistilled(TrainDetector):
    """All stages in one: diffusion model, repository, taught backbone, fused teacher, distilled student. Finished stages are reused."""

    preset: str = _f("tiny", "Diffusion model: tiny (minutes on a CPU), small (an hour on a CPU), base (for a GPU).",
                     choices=("tiny", "small", "base"))
    teach: bool = _f(True, "First teach the student's backbone the diffusion model's features, without labels.")
    distill: bool = _f(True, "Distil the student from a fused teacher.")
    diffusion_steps: int | None = _f(None, "Optimiser steps of the diffusion model; none: the preset's.", low=1, high=5_000_000,
                                     advanced=True)
    repository_steps: int = _f(1500, "Optimiser steps of the compressing network.", low=10, high=1_000_000, advanced=True)
    teach_steps: int = _f(1600, "Optimiser steps of teaching the backbone.", low=1, high=1_000_000, advanced=True)


@dataclass(frozen=True)
class Synthesize(Config):
    """Make defects on good images: a masked part is replaced by what a diffusion model, a texture or noise puts there."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the synthetic set.")
    count: int = _f(100, "Images to make.", low=1, high=1_000_000)
    source: str = _f("ddpm", "What fills the mask: ddpm (perturbed by a diffusion model), texture (another surface), noise (Gaussian).",
                     choices=("ddpm", "texture", "noise"))
    masks: str = _f("", "Set of collected masks to draw shapes from, by name or run; empty: Perlin noise.")
    denoiser: str = _f("", "Diffusion model of this dataset, by name or run; empty: the newest, first one of good images only.",
                       advanced=True)
    start: str = _f("image", "Where the diffusion starts: from a partly noised good image, or from pure noise.",
                    choices=("image", "noise"), advanced=True)
    steps: int = _f(10, "Denoising steps.", low=2, high=250, advanced=True)
    depth: int = _f(500, "Timestep, of 1,000, up to which a good image is noised.", low=10, high=999, advanced=True)
    variance: float = _f(1.0, "By how much the variance of each reverse step is raised.", low=0.0, high=4.0, advanced=True)
    low_opacity: float = _f(0.5, "Lowest opacity of the change.", low=0.05, high=1.0, advanced=True)
    high_opacity: float = _f(1.0, "Highest opacity of the change.", low=0.05, high=1.0, advanced=True)
    low_area: float = _f(0.002, "Smallest share of the image that a mask covers.", low=1e-5, high=1.0, advanced=True)
    high_area: float = _f(0.2, "Largest share of the image that a mask covers.", low=1e-5, high=1.0, advanced=True)
    foreground: bool = _f(False, "Keep masks to the object, found by its brightness; off: the whole image is surface.", advanced=True)
    imgsz: int = _f(256, "Larger pictures are scaled down to this longer side, in pixels.", low=32, high=2048, advanced=True)
    seed: int = _f(0, "Seed of parents, masks and noise.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class CollectMasks(Config):
    """Keep the outlines of what an anomaly model found as a set of masks, of a new class, for synthesis to draw shapes from."""

    name: str = _f("", "Name of the new class, and of the set.")
    inspections: str = _f("", "Inspections to take outlines from: run/inspection, separated by spaces.")


@dataclass(frozen=True)
class TrainAnomaly(Config):
    """Train an anomaly model on the good images of a dataset. It needs no labelled defect."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the model.")
    steps: int = _f(2000, "Optimiser steps.", low=1, high=1_000_000)
    imgsz: int = _f(256, "Side of the square network input, in pixels; a multiple of 32.", low=64, high=1024)
    false_rejects: float = _f(0.01, "Share of good images that may be called unusual; it sets the threshold.", low=1e-5, high=0.5)
    seed: int = _f(0, "Seed of weights, order, masks and noise.", low=0, high=2**31 - 1)
    teacher: str = _f("efficientnet-lite0", "Frozen feature network: efficientnet-lite0, timm:NAME or torchvision:NAME where their "
                                            "weights are on disk, or ddpm (the dataset's own diffusion model).", advanced=True)
    source: str = _f("mixed", "What fills the masks: ddpm (perturbed by a diffusion model), texture (another surface), noise (Gaussian), "
                              "mixed (these in turn, and the surface itself, darker, brighter, blurred or moved).",
                     choices=("ddpm", "texture", "noise", "mixed"), advanced=True)
    loss: str = _f("both", "What is learned: both, or one alone.", choices=("both", "cosine", "segmentation"), advanced=True)
    phases: str = _f("joint", "Student and segmentation head together, or one after the other.", choices=("joint", "two"), advanced=True)
    overlap: str = _f("dice", "The term beside focal loss.", choices=("dice", "l1"), advanced=True)
    batch: int = _f(16, "Images per optimiser step.", low=2, high=512, advanced=True)
    flips: bool = _f(True, "Show images flipped too; off for objects that have a top and a bottom.", advanced=True)
    foreground: bool = _f(False, "Keep masks to the object, found by its brightness; off: the whole image is surface.", advanced=True)
    denoiser: str = _f("", "Diffusion model of this dataset, by name or run; empty: one of these settings, or a new one.", advanced=True)
    preset: str = _f("tiny", "Size and length of a new diffusion model.", choices=("tiny", "small", "base"), advanced=True)
    diffusion_steps: int | None = _f(None, "Optimiser steps of a new diffusion model; none: the preset's.", low=1, high=5_000_000,
                                     advanced=True)
    perturbed: int = _f(200, "Perturbed images that the diffusion model makes beforehand.", low=1, high=1_000_000, advanced=True)
    learning_rate: float = _f(2e-3, "Highest learning rate of AdamW.", low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class Inspect(Config):
    """Run a deployed model over images and log what it finds."""

    model: str = _f("", "Name of the model, or its id; empty: the promoted one.")
    anomaly: str = _f("", "Anomaly model to run beside it, by name or id; empty: the promoted one, if any; none: without.")
    images: str = _f("", "Folder, zip or image to inspect.")
    line: str = _f("", "Production line.")
    product: str = _f("", "Product.")
    lot: str = _f("", "Lot.")
    camera: str = _f("", "Camera.")
    captured_at: str | None = _f(None, "Time the images were taken (ISO 8601, plant time), where neither EXIF nor file name tells.")
    captured_pattern: str | None = _f(None, "Where the time stands in a file name, as strptime writes it, "
                                            "e.g. %Y%m%d_%H%M%S.", advanced=True)
    unit_pattern: str | None = _f(None, "Regular expression whose first group is the unit in a file name; "
                                        "none: one image is one unit.", advanced=True)
    count: str = _f("auto", "Count in plant trends; auto: when a line is given and the image is in no dataset.",
                    choices=("auto", "yes", "no"))
    plant: str = _f("real", "Which plant the images belong to.", choices=("real", "demo"), advanced=True)


@dataclass(frozen=True)
class Predict(Config):
    """Write what a model says of a list of images, for the scorers: every box, or an anomaly map and a score."""

    model: str = _f("", "Name of the model, or its id.")
    images: str = _f("", "Folder of images.")
    list: str | None = _f(None, "Text file: only these images, one stem, name or relative path a line.")
    out: str = _f("", "Folder to write predictions.json, or maps and scores.json, into.")


@dataclass(frozen=True)
class Demo(Config):
    """Build the demo plant: 90 days of inspections of a plant that does not exist."""

    seed: int = _f(0, "Seed of the demo plant.", low=0, high=2**31 - 1)
    days: int = _f(90, "Days of history.", low=7, high=366, advanced=True)
    inspections: int = _f(200_000, "About how many inspections.", low=1_000, high=20_000_000, advanced=True)


@dataclass(frozen=True)
class DemoModel(Config):
    """Make demo images, train a detector on them, and write the committed bundle."""

    images: int = _f(900, "Images to draw.", low=30, high=100_000)
    epochs: int = _f(40, "Passes over the training images.", low=1, high=2000)
    imgsz: int = _f(224, "Side of the network input.", low=64, high=1024)
    seed: int = _f(0, "Seed.", low=0, high=2**31 - 1)
    out: str = _f("", "Folder for the bundle; empty: the run's own.")


RECIPES: dict[str, type[Config]] = {
    "import": Import,
    "train-detector": TrainDetector,
    "train-diffusion": TrainDiffusion,
    "probe-features": ProbeFeatures,
    "build-repository": BuildRepository,
    "teach-backbone": TeachBackbone,
    "train-fused": TrainFused,
    "distill": Distill,
    "train-distilled": TrainDistilled,
    "synthesize": Synthesize,
    "collect-masks": CollectMasks,
    "train-anomaly": TrainAnomaly,
    "inspect": Inspect,
    "predict": Predict,
    "demo": Demo,
    "demo-model": DemoModel,
}
