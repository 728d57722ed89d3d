"""One frozen config per recipe. The same class makes the form on a page, the command-line flags and `job.json`.

Field metadata: `help` (one plain sentence), `choices`, `low` / `high` (inclusive), `advanced` (hidden behind
"Advanced" on pages), `flag` (on the command line, where the field's own name would not do). Names of datasets and models
are resolved by the recipe, from run directories.
Knows nothing of argparse or Streamlit; `__main__` and the pages read the metadata.
"""

import dataclasses
import json
import os
import types
import typing
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.errors import ConfigError

_BESIDE = Path(__file__).resolve().parents[1] / "data"


def data_root() -> Path:
    """The data folder: `DIFFSPECT_DATA`, or `data` beside the code."""
    chosen = os.environ.get("DIFFSPECT_DATA")
    if not chosen:
        return _BESIDE
    return _resolved(chosen) if os.path.isabs(chosen) else Path(chosen).expanduser().resolve()


@lru_cache(maxsize=8)
def _resolved(path: str) -> Path:
    """Once: a page asks a thousand times where its data lies."""
    return Path(path).resolve()


def demo_assets() -> Path:
    """The committed demo files (model bundle, sample pictures), whatever the data folder is."""
    return Path(__file__).resolve().parents[1] / "data" / "demo"


# Settings that came after the keys of artifacts: with these values a key does not name them, so that what was made before is found.
LATER = (("good", False), ("origin", "both"), ("synthetic", None), ("shown", None))


RUNTIMES = ("auto", "openvino", "openvino-f32", "openvino-bf16", "openvino-int8", "onnxruntime-cpu", "cuda", "cuda-f32",
            "onnxruntime-cuda")                 # see inspection.runtimes


MOST_TEXT = 100_000                  # characters of a setting
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "nothing", list: "a list",
         dict: "names with values"}


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
        if not isinstance(values, dict):
            raise ConfigError("The settings cannot be used: they are no names with values.")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(map(str, values.keys() - known))
        if unknown:
            raise ConfigError(f"Unknown setting: {', '.join(json.dumps(u)[1:-1][:60] for u in unknown[:5])}.")
        return cls(**values)


def _check(f: "dataclasses.Field[Any]", hint: Any, value: Any) -> None:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(typing.get_origin(k) or k for k in kinds)
    fits = isinstance(value, plain) or (float in plain and isinstance(value, int))
    if not fits or (isinstance(value, bool) and bool not in plain):
        raise ConfigError(f"{f.name} must be {' or '.join(WORDS.get(k, k.__name__) for k in plain)}, not {_short(value)}.")
    if value is None:
        return
    if not _usable(value, next((k for k in kinds if typing.get_args(k)), None)):
        raise ConfigError(f"{f.name} cannot be {_short(value)}: it holds something that cannot be used there.")
    if "choices" in f.metadata and value not in f.metadata["choices"]:
        raise ConfigError(f"{f.name} must be one of {', '.join(map(str, f.metadata['choices']))}, not {_short(value)}.")
    low, high = f.metadata.get("low"), f.metadata.get("high")
    if isinstance(value, (int, float)) and ((low is not None and not value >= low) or (high is not None and not value <= high)):
        raise ConfigError(f"{f.name} must be between {low} and {high}, not {_short(value)}.")


def _usable(value: Any, hint: Any) -> bool:
    """Whether numbers are finite, text is text that files and databases bear, and lists and dicts hold what `hint` says of them."""
    if isinstance(value, int | float):
        return abs(value) <= 1e300                               # neither endless nor none
    if isinstance(value, str):
        return "\0" not in value and not any(0xD800 <= ord(c) <= 0xDFFF for c in value) and len(value) <= MOST_TEXT
    of = typing.get_args(hint)
    if isinstance(value, list):
        return not of or of[0] is Any or all(_is(v, of[0]) and _usable(v, of[0]) for v in value)
    if isinstance(value, dict) and len(of) == 2 and Any not in of:
        return all(_is(k, of[0]) and _is(v, of[1]) and _usable(v, of[1]) for k, v in value.items())
    return True


def _is(value: Any, hint: Any) -> bool:
    return isinstance(value, typing.get_origin(hint) or hint)


def _short(value: Any) -> str:
    """A value for a sentence."""
    try:
        shown = json.dumps(value, default=str)
    except (ValueError, RecursionError):                         # a number of more digits than Python writes
        shown = "that"
    return shown if len(shown) <= 80 else f"{shown[:79]}…"


@dataclass(frozen=True)
class Import(Config):
    """Read a folder or zip of images and labels into an immutable snapshot."""

    path: str = _f("", "Folder or zip file to read.")
    name: str = _f("", "Name of the dataset; prompts of a diffusion prior hold it, without what stands in brackets.")
    splits: str | None = _f(None, "Folder with train.txt, val.txt and test.txt.", advanced=True)
    split_prefix: str = _f("", "Prefix of the list files, such as 'det-'.", advanced=True)
    layout: str = _f("auto", "Layout of the labels.", advanced=True,
                     choices=("auto", "voc", "yolo", "coco", "mvtec", "mask-beside", "class-folders", "images", "synthetic"))
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
    weights: str | None = _f(None, "Start from an earlier model, by name or run, or from a local .pt by Ultralytics; none: from "
                                           "scratch.", advanced=True)
    backbone: str = _f("", "Taught backbone to start from, by name or run; empty: none.", advanced=True)
    labels: int | None = _f(None, "Use only so many labelled real train images, each shown more often, so that the steps stay the same; "
                                  "none: all.", low=1, high=10_000_000, advanced=True)
    origin: str = _f("both", "Which train images are shown, where the dataset holds synthetic ones too.",
                     choices=("both", "real", "synthetic"), advanced=True)
    synthetic: int | None = _f(None, "Use only so many synthetic train images; more hold the fewer. None: all.", low=0, high=10_000_000,
                               advanced=True)
    shown: int | None = _f(None, "Images shown in each pass, however many there are, each equally often: equal steps for datasets of any "
                                 "size. None: as many as there are.", low=1, high=100_000_000, advanced=True)
    optimizer: str = _f("SGD", "Optimiser of the detector.", choices=("SGD", "AdamW", "MuSGD"), advanced=True)
    learning_rate: float | None = _f(None, "Initial learning rate; none: the optimiser's own, 0.001 for AdamW, else 0.01.",
                                     low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the network's forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class TrainDiffusion(Config):
    """Train a denoising diffusion model on the train images of a dataset, without their labels, and on its unlabelled ones."""

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


LITERATURE = "50 150 250"            # timesteps of Baranchuk et al. 2022 (arXiv 2112.03126)


def _named_timesteps(config: Any) -> None:
    """A name becomes its numbers at once, so that keys, estimates and what is kept know one way to say it."""
    if config.timesteps.strip() == "literature":
        object.__setattr__(config, "timesteps", LITERATURE)


@dataclass(frozen=True)
class BuildRepository(Config):
    """Keep what a diffusion model sees in each image of a dataset, compressed to at most 32 KiB an image."""

    dataset: str = _f("", "Name of the dataset, or a snapshot id.")
    name: str = _f("", "Name of the repository.")
    denoiser: str = _f("", "Diffusion model, by name or run; empty: the newest of this dataset.")
    timesteps: str = _f("20", "Timesteps of 1,000, separated by spaces; or literature: 50 150 250.", advanced=True)
    blocks: str = _f("all", "Decoder blocks, counted from the innermost as 0, separated by spaces; or all.", advanced=True)
    steps: int = _f(1500, "Optimiser steps of the compressing network.", low=10, high=1_000_000, advanced=True)
    raw: bool = _f(False, "Keep the features uncompressed (a control; about 14 times the space).", advanced=True)
    seed: int = _f(0, "Seed of the compressing network.", low=0, high=2**31 - 1, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _named_timesteps(self)


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
    timesteps: str = _f("20", "Timesteps of 1,000 at which the diffusion model is read, separated by spaces; or literature: "
                              "50 150 250.", advanced=True)
    blocks: str = _f("all", "Its decoder blocks that are read, counted from the innermost as 0, separated by spaces; or all.",
                     advanced=True)
    spectral_filter: bool = _f(True, "The teacher filters the features by frequency.", advanced=True)
    dynamic: bool = _f(True, "The teacher weighs the features image by image.", advanced=True)
    neck_loss: str = _f("pkd", "How student's and teacher's necks are compared.", choices=("pkd", "cwd", "mgd"), advanced=True)
    distill_weight: float = _f(1.0, "Weight of the distillation term, where 1 makes it as large as the box loss.", low=0.0, high=100.0,
                       advanced=True)
    logit_weight: float = _f(0.0, "Weight of learning the teacher's class answers too.", low=0.0, high=100.0, advanced=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _named_timesteps(self)


@dataclass(frozen=True)
class TrainPrior(Config):
    """Train a surface prior: a small Stable Diffusion of our own, from drawn surfaces and from datasets other than the one it is for."""

    name: str = _f("", "Name of the prior.")
    datasets: str = _f("", "Datasets whose train images it learns from too, their names separated by commas; empty: drawn surfaces only.")
    preset: str = _f("small", "Size and length: tiny (minutes on a CPU, to try out), small (two hours on a CPU, less "
                                "where it has bf16 of its own), base (for a GPU).",
                     choices=("tiny", "small", "base"))
    drawn: int = _f(4000, "Surfaces to draw.", low=0, high=1_000_000, advanced=True)
    autoencoder_steps: int | None = _f(None, "Optimiser steps of the autoencoder; none: the preset's.", low=1, high=5_000_000,
                                       advanced=True)
    steps: int | None = _f(None, "Optimiser steps of the diffusion network; none: the preset's.", low=1, high=5_000_000, advanced=True)
    batch: int | None = _f(None, "Crops per optimiser step; none: the preset's.", low=1, high=4096, advanced=True)
    learning_rate: float = _f(3e-4, "Highest learning rate of AdamW.", low=1e-6, high=1.0, advanced=True)
    seed: int = _f(0, "Seed of weights, crops and noise.", low=0, high=2**31 - 1)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class AdaptPrior(Config):
    """Move a diffusion prior towards the defects of a dataset: tokens for its classes, then low-rank adapters."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the adapted prior.")
    prior: str = _f("", "Surface prior by name or run, folder of a Stable Diffusion checkpoint, or its name on the hub; "
                        "empty: the newest surface prior.")
    space: str = _f("both", "What is learned: words for the classes (tokens), low-rank changes of the network (lora), or first one, "
                                "then the other.",
                    choices=("both", "tokens", "lora"))
    classes: str = _f("", "Classes to learn, separated by commas; empty: all.", advanced=True)
    token_steps: int = _f(300, "Optimiser steps of the tokens.", low=1, high=1_000_000, advanced=True)
    lora_steps: int = _f(1000, "Optimiser steps of the low-rank adapters.", low=1, high=1_000_000, advanced=True)
    vectors: int = _f(4, "Vectors of a class's token.", low=1, high=32, advanced=True)
    rank: int = _f(8, "Rank of the adapters.", low=1, high=256, advanced=True)
    held_out: float = _f(0.2, "Share of each class's train images kept apart, to measure quality against.", low=0.0, high=0.9,
                         advanced=True)
    batch: int = _f(8, "Images per optimiser step.", low=1, high=512, advanced=True)
    token_rate: float = _f(5e-3, "Highest learning rate of the tokens.", low=1e-6, high=1.0, advanced=True)
    lora_rate: float | None = _f(None, "Highest learning rate of the adapters; none: 0.001 for a surface prior, else 0.0001.",
                                 low=1e-6, high=1.0, advanced=True)
    checkpointing: bool = _f(False, "Trade time for memory: compute activations twice.", advanced=True)
    seed: int = _f(0, "Seed of tokens, order and noise.", low=0, high=2**31 - 1)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16", "fp16"), advanced=True)


@dataclass(frozen=True)
class Synthesize(Config):
    """Make defects: by perturbation of good images, by a diffusion prior, or by pasting a real defect elsewhere."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the synthetic set.")
    count: int = _f(100, "Images to make.", low=1, high=1_000_000)
    method: str = _f("perturb", "perturb (a masked part of a good image is replaced), prior (a diffusion prior draws), paste (a real "
                                "defect is cut out and set in elsewhere).", choices=("perturb", "prior", "paste"))
    class_name: str = _f("", "Class of the defects; empty: all classes in turn (perturb: 'defect', or that of the masks).", flag="class")
    source: str = _f("ddpm", "What fills the mask: ddpm (perturbed by a diffusion model), texture (another surface), noise (Gaussian).",
                     choices=("ddpm", "texture", "noise"))
    masks: str = _f("", "Set of collected masks to draw shapes from, by name or run; empty: Perlin noise; of a prior the shapes of the "
                        "class's own defects.")
    prior: str = _f("", "Adapted prior, or surface prior, by name or run; or a Stable Diffusion checkpoint, by folder or hub name; empty: "
                        "the newest adapted to this dataset, else the newest surface prior.")
    strength: float = _f(0.5, "How far a picture is noised before the prior draws it again: 0 keeps it, 1 forgets it.", low=0.02, high=1.0)
    guidance: float = _f(2.0, "How strictly the prior keeps to the words; 1 is without guidance.", low=1.0, high=30.0)
    apart: str = _f("", "Adapted prior whose images held apart are no parents here either, by name or run, so that sets of several priors "
                        "have equal parents and are measured against equal images; empty: those of the prior that draws alone.",
                    advanced=True)
    same_class: bool = _f(False, "Paste into good images and images of the same class alone, so that each made one is of one class as a "
                                 "whole; off: into those of other classes too, where these have no room.", advanced=True)
    prompt: str = _f("", "Words for the prior; empty: those it knows the class by.", advanced=True)
    denoiser: str = _f("", "Diffusion model of this dataset, by name or run; empty: the newest, first one of good images only.",
                       advanced=True)
    start: str = _f("image", "Where the diffusion starts: from a partly noised image, from pure noise, or (inpaint, prior only) from a "
                             "masked part of a good image.", choices=("image", "noise", "inpaint"), advanced=True)
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
    again: str = _f("", "Attempts of an earlier set to make once more from the same pictures, in place of a count: JSON, its seed and "
                        'their numbers class by class, {"seed": 0, "attempts": {"scratch": [3, 7]}}; empty: none.', advanced=True)


@dataclass(frozen=True)
class MeasureSynthesis(Config):
    """Measure a synthetic set: distance from real pictures (KID), copies of what was learned from, variety, and what a detector sees."""

    name: str = _f("", "Name of the measurement; empty: that of the set.")
    synthetic: str = _f("", "Synthetic set, by name or run.")
    extractor: str = _f("efficientnet-lite0", "Feature network: efficientnet-lite0, ddpm (the dataset's own diffusion model), timm:NAME or "
                                              "torchvision:NAME (inception_v3, say) where their weights are on disk.", advanced=True)
    detector: str = _f("", "Detector that looks at the labels, by name or id; empty: none.", advanced=True)
    seed: int = _f(0, "Seed of the subsets.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class SearchSynthesis(Config):
    """Find strength, guidance and steps of a prior by the distance of small sets from held-out train images (KID)."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the search.")
    prior: str = _f("", "Adapted prior, by name or run; empty: the newest of this dataset.")
    class_name: str = _f("", "Class of the defects; empty: all.", flag="class")
    strengths: str = _f("0.3 0.5 0.7", "Strengths to try.")
    guidances: str = _f("1 2 4", "Guidances to try.")
    steps: str = _f("10 20", "Numbers of denoising steps to try.")
    images: int = _f(48, "Images to make for each setting and class.", low=8, high=10_000, advanced=True)
    seed: int = _f(0, "Seed of parents and noise.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class Combine(Config):
    """Add pictures to a dataset: accepted ones of synthetic sets to its train images, those of other datasets to learn from unlabelled. A
    new snapshot with the same val and test."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the new dataset.")
    sets: str = _f("", "Synthetic sets, by name or run, separated by commas.")
    which: str = _f("accepted", "Which of their pictures: accepted (by a person), or all that nobody rejected.",
                    choices=("accepted", "all"))
    unlabelled: str = _f("", "Datasets whose pictures join without labels, by name, separated by commas: what learns without labels learns "
                             "from them too.", advanced=True)
    limit: int | None = _f(None, "At most so many synthetic pictures, drawn by chance; none: no limit.", low=1, high=10_000_000,
                           advanced=True)
    seed: int = _f(0, "Seed of that choice.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class Relabel(Config):
    """Make a dataset of the boxes that people drew: pictures of a dataset corrected, new ones in train; test images stay test."""

    dataset: str = _f("", "Dataset to start from (its newest snapshot), or a snapshot id; empty: labelled pictures alone.")
    name: str = _f("", "Name of the new dataset.")
    new: bool = _f(True, "Add labelled pictures of inspections to train too; off: only the dataset's own pictures get their new labels.")
    plant: str = _f("real", "Whose labels: those that people of this plant drew.", choices=("real", "demo"), advanced=True)
    seed: int = _f(0, "Seed of the drawn splits, where there is no dataset to start from.", low=0, high=2**31 - 1, advanced=True)


@dataclass(frozen=True)
class TrainClassifier(Config):
    """Train a classifier of whole images on a snapshot and deploy it as ONNX + JSON."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the model.")
    network: str = _f("resnet18", "resnet18 (from scratch), or efficientnet-lite0 (starts from ImageNet weights).",
                      choices=("resnet18", "efficientnet-lite0"))
    steps: int = _f(1000, "Optimiser steps.", low=1, high=1_000_000)
    imgsz: int = _f(128, "Side of the square network input, in pixels; a multiple of 32.", low=32, high=1024)
    seed: int = _f(0, "Seed of weights, order and augmentation.", low=0, high=2**31 - 1)
    augment: str = _f("standard", "standard (flips, quarter turns, crops, light), or none.", choices=("standard", "none"), advanced=True)
    batch: int = _f(32, "Images per optimiser step.", low=2, high=4096, advanced=True)
    real_share: float | None = _f(None, "Share of real images in each step, where the dataset holds synthetic ones; none: as they come.",
                                  low=0.0, high=1.0, advanced=True)
    learning_rate: float = _f(1e-3, "Highest learning rate of AdamW.", low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


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
    false_rejects: float = _f(0.01, "Share of good images that may be called unusual; it sets the threshold. A share takes 3 / share good "
                                    "images kept from training to know, and 2,000 are kept at most: so 0.0015 at least.",
                              low=0.0015, high=0.5)
    seed: int = _f(0, "Seed of weights, order, masks and noise.", low=0, high=2**31 - 1)
    teacher: str = _f("efficientnet-lite0", "Frozen feature network: efficientnet-lite0, timm:NAME or torchvision:NAME where their "
                                            "weights are on disk, or ddpm (the dataset's own diffusion model).", advanced=True)
    source: str = _f("mixed", "What fills the masks: ddpm (perturbed by a diffusion model), texture (another surface), noise (Gaussian), "
                              "mixed (these in turn, and the surface itself, darker, brighter, blurred or moved).",
                     choices=("ddpm", "texture", "noise", "mixed"), advanced=True)
    loss: str = _f("both", "What is learned: both, or one alone.", choices=("both", "cosine", "segmentation"), advanced=True)
    memory: int = _f(2000, "Patches of good images that are remembered beside what is learned; 0: none.", low=0, high=20_000, advanced=True)
    phases: str = _f("joint", "Student and segmentation head together, or one after the other.", choices=("joint", "two"), advanced=True)
    overlap: str = _f("dice", "The term beside focal loss.", choices=("dice", "l1"), advanced=True)
    batch: int = _f(16, "Images per optimiser step.", low=2, high=512, advanced=True)
    flips: bool = _f(True, "Show images flipped too; off for objects that have a top and a bottom.", advanced=True)
    foreground: bool = _f(False, "Keep masks to the object, found by its brightness; off: the whole image is surface.", advanced=True)
    denoiser: str = _f("", "Diffusion model of this dataset, by name or run; empty: one of these settings, or a new one.", advanced=True)
    preset: str = _f("tiny", "Size and length of a new diffusion model.", choices=("tiny", "small", "base"), advanced=True)
    diffusion_steps: int | None = _f(None, "Optimiser steps of a new diffusion model; none: the preset's.", low=1, high=5_000_000,
                                     advanced=True)
    perturbed: int = _f(200, "Perturbed images that the diffusion model makes beforehand, and so on how many good images such defects lie. "
                             "Those of texture or noise alone lie on as many, so that sources can be compared.",
                        low=1, high=1_000_000, advanced=True)
    learning_rate: float = _f(2e-3, "Highest learning rate of AdamW.", low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)
    coupled: bool = _f(False, "Let the segmentation's gradient reach the student too, where both are learned jointly; off: the student "
                              "learns from cosine alone, while the head reads it.", advanced=True)
    near_duplicates: bool = _f(False, "Learn also from good images that nearly equal one of val or test; only to follow a published "
                                      "division as it is.", advanced=True)


@dataclass(frozen=True)
class Score(Config):
    """Score a detector once more on its own val and test images and keep its answers, so that it can be compared. It is one more look."""

    model: str = _f("", "Name of the model, or its id; empty: the promoted one.")
    name: str = _f("", "Name of the scoring; empty: that of the model.")


@dataclass(frozen=True)
class Experiment(Config):
    """Train matched arms with several seeds each, and say whether they really differ: with synthetic images and without, for instance."""

    dataset: str = _f("", "Name of the dataset (its newest snapshot), or a snapshot id.")
    name: str = _f("", "Name of the experiment.")
    arms: str = _f("real, both", "What is compared, separated by commas: real, both (real and synthetic), synthetic, distilled, "
                                 "both-distilled, dose (0 to 200 % synthetic), labels (25 to 100 % of them); or JSON of your own arms.")
    sets: str = _f("", "Synthetic sets that join the dataset first, by name or run, separated by commas; empty: what the dataset holds.")
    seeds: int = _f(5, "Trainings of each arm; fewer than 5 give a provisional answer.", low=1, high=100)
    epochs: int = _f(40, "Passes; each shows every arm the same number of images.", low=1, high=2000)
    imgsz: int = _f(224, "Side of the square network input, in pixels; a multiple of 32.", low=64, high=2048)
    baseline: str = _f("", "Arm that the others are compared with; empty: real, else the first.", advanced=True)
    metric: str = _f("map50", "What the verdict is about.", choices=("map50", "map50_95"), advanced=True)
    which: str = _f("accepted", "Which pictures of the sets: accepted (by a person), or all that nobody rejected.",
                    choices=("accepted", "all"), advanced=True)
    first_seed: int = _f(0, "Seed of the first training of each arm.", low=0, high=2**31 - 101, advanced=True)
    batch: int = _f(16, "Images per optimiser step.", low=1, high=512, advanced=True)
    size: str = _f("n", "Size of the YOLO11 network.", choices=("n", "s", "m"), advanced=True)
    weights: str | None = _f(None, "Start every arm from an earlier model, by name or run, or from a local .pt by Ultralytics; none: "
                                   "from scratch.", advanced=True)
    labels: int | None = _f(None, "Use only so many labelled real train images in every arm; none: all.", low=1, high=10_000_000,
                            advanced=True)
    shown: int | None = _f(None, "Images shown in each pass; none: as many as the dataset has real train images.", low=1,
                           high=100_000_000, advanced=True)
    optimizer: str = _f("SGD", "Optimiser of the detectors.", choices=("SGD", "AdamW", "MuSGD"), advanced=True)
    learning_rate: float | None = _f(None, "Initial learning rate; none: the optimiser's own, 0.001 for AdamW, else 0.01.",
                                     low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the network's forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)
    preset: str = _f("tiny", "Diffusion model of distilled arms: tiny (minutes on a CPU), small (an hour on a CPU), base (for a GPU).",
                     choices=("tiny", "small", "base"), advanced=True)


@dataclass(frozen=True)
class Compare(Config):
    """Say of finished trainings, grouped in arms, whether they really differ on their common test set."""

    name: str = _f("", "Name of the comparison; empty: the arms.")
    arms: dict[str, list[str]] = field(default_factory=dict, metadata={"help": "Runs of each arm, such as real=RUN,RUN;both=RUN,RUN."})
    baseline: str = _f("", "Arm that the others are compared with; empty: real, else the first.")
    metric: str = _f("map50", "What the verdict is about.", choices=("map50", "map50_95"))
    experiment: str = _f("", "Experiment that asks.", advanced=True)

    @property
    def against(self) -> str:
        """The baseline: the arm that was named, else real images alone, else the first."""
        return self.baseline or ("real" if "real" in self.arms else next(iter(self.arms), ""))

    def inputs(self) -> dict[str, Any]:
        """What the answer follows from: not names, nor the order of runs."""
        arms = {name: sorted(ids) for name, ids in self.arms.items()}
        return dict(kind="comparison", format=1, arms=arms, baseline=self.against, metric=self.metric)


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
    tile: int | None = _f(None, "Side of the tiles that larger pictures are cut into, in pixels; none: the scale that the model learned; "
                                "0: never.", low=0, high=8192, advanced=True)
    runtime: str = _f("auto", "What computes the detector, and in float32 an anomaly model beside it; auto: the fastest that this machine "
                              "has.", choices=RUNTIMES, advanced=True)
    master: bool = _f(False, "These show master parts: known pieces, photographed again each shift to watch the camera. They never count.")


@dataclass(frozen=True)
class Check(Config):
    """Software check: does the model in use still give stored pictures the stored scores? The first check of a model stores them."""

    model: str = _f("", "Name of the model, or its id; empty: the promoted one.")
    pictures: int = _f(12, "Pictures to store at the first check of a model.", low=1, high=1000, advanced=True)
    runtime: str = _f("auto", "What computes the model; auto: the fastest that this machine has.", choices=RUNTIMES, advanced=True)


@dataclass(frozen=True)
class Watch(Inspect):
    """Inspect what a camera drops into a folder, each picture once, until it is stopped."""

    images: str = _f("", "Folder to watch, with its subfolders.")
    done: str = _f("", "Folder to move inspected pictures into; empty: they stay where they are.")
    settle: float = _f(2.0, "Seconds that a file without a recognisable end must stand unchanged before it is taken.", low=0.1, high=600,
                       advanced=True)


@dataclass(frozen=True)
class Shadow(Config):
    """Look back: show the kept pictures of the last days to another model. It stands beside the trends and counts nothing."""

    model: str = _f("", "Model to look back with, by name or id; empty: the promoted one.")
    name: str = _f("", "Name of the look-back; empty: that of the model.")
    days: int = _f(14, "Days to look back, the plant's newest one included.", low=1, high=366)
    line: str = _f("", "Production line; empty: all.")
    product: str = _f("", "Product; empty: all.")
    pictures: int | None = _f(None, "At most so many pictures, spread evenly over lines and days; none: all that were kept.",
                              low=1, high=100_000_000)
    plant: str = _f("real", "Which plant to look back on.", choices=("real", "demo"), advanced=True)


@dataclass(frozen=True)
class Predict(Config):
    """Write what a model says of a list of images, for the scorers: boxes, probabilities of classes, or an anomaly map and a score."""

    model: str = _f("", "Name of the model, or its id.")
    images: str = _f("", "Folder of images.")
    list: str | None = _f(None, "Text file: only these images, one stem, name or relative path a line.")
    out: str = _f("", "Folder to write predictions.json, or maps and scores.json, into.")
    tile: int | None = _f(None, "Of a detector: side of the tiles that larger pictures are cut into, in pixels; none: the scale that it "
                                "learned; 0: never.", low=0, high=8192, advanced=True)
    runtime: str = _f("auto", "What computes the model; auto: the fastest that this machine has.", choices=RUNTIMES, advanced=True)


@dataclass(frozen=True)
class MeasurePrecision(Config):
    """Measure whether a faster arithmetic changes what a model finds: bf16, or int8 where a processor has none.

    Where it does, or nobody measured, the model is inspected with in float32.
    """

    model: str = _f("", "Name of the model, or its id; empty: the promoted one.")
    pictures: int = _f(300, "At most so many pictures.", low=10, high=10_000, advanced=True)
    arithmetic: str = _f("auto", "auto: the fastest first, until one changes nothing.", choices=("auto", "bf16", "int8"), advanced=True)


@dataclass(frozen=True)
class ExportModel(Config):
    """Write a deployed model as a folder that works without Diffspect: network, description, and a small program that uses them."""

    model: str = _f("", "Name of the model, or its id; empty: the promoted one.")
    out: str = _f("", "Folder to write into.")
    form: str = _f("onnx", "onnx (for ONNX Runtime and OpenVINO), or openvino (its own format).", choices=("onnx", "openvino"))


@dataclass(frozen=True)
class Demo(Config):
    """Build the demo plant: 90 days of inspections of a plant that does not exist."""

    seed: int = _f(0, "Seed of the demo plant.", low=0, high=2**31 - 1)
    days: int = _f(90, "Days of history.", low=7, high=366, advanced=True)
    inspections: int = _f(200_000, "About how many inspections.", low=1_000, high=20_000_000, advanced=True)


@dataclass(frozen=True)
class ShiftReport(Config):
    """Make the report of one shift: a single HTML file that prints on A4, reads on a phone and needs nothing else."""

    day: str = _f("", "Production day of the shift, such as 2026-11-29; a night shift belongs to the day on which it began.")
    shift: str = _f("", "Name of the shift, as in the plant's calendar. Without day and shift: the last one that has ended.")
    plant: str = _f("real", "Which plant.", choices=("real", "demo"))
    out: str = _f("", "Folder, or a file ending in .html, to write a copy to; empty: it stays with its run.")

    def __post_init__(self) -> None:
        """What is no day never becomes a run. Years as counts of 28 days before and databases bear them."""
        super().__post_init__()
        try:
            known = not self.day or 1970 <= date.fromisoformat(self.day).year <= 9000
        except ValueError:
            raise ConfigError(f"{self.day!r} is no day; write it as 2026-11-29.") from None
        if not known:
            raise ConfigError(f"The plant has no shifts on {self.day}; name a day from 1970 to 9000.")


@dataclass(frozen=True)
class DrawPlates(Config):
    """Draw a dataset of plates that do not exist, to try things out on; no picture takes space."""

    name: str = _f("", "Name of the dataset.")
    train: int = _f(40, "Train images.", low=4, high=100_000)
    val: int = _f(40, "Val images.", low=4, high=100_000)
    test: int = _f(80, "Test images.", low=4, high=100_000)
    good: float = _f(0.25, "Share of good plates among the train images; of val and test it is a quarter.", low=0.0, high=0.9)
    classes: str = _f("", "Kinds of defects, separated by commas; empty: all six.")
    seed: int = _f(0, "Seed of the plates.", low=0, high=2**31 - 1)


@dataclass(frozen=True)
class DemoModel(Config):
    """Make demo images, train a detector on them, and write the committed bundle."""

    images: int = _f(900, "Images to draw.", low=30, high=100_000)
    epochs: int = _f(40, "Passes over the training images.", low=1, high=2000)
    imgsz: int = _f(224, "Side of the network input.", low=64, high=1024)
    seed: int = _f(0, "Seed.", low=0, high=2**31 - 1)
    out: str = _f("", "Folder for the bundle; empty: the run's own.")


@dataclass(frozen=True)
class DemoExperiment(Config):
    """Make the demo plant's experiment, real against real and synthetic, on drawn plates, and write its runs for the program to keep."""

    images: int = _f(40, "Real train images: three in four are good, since good plates are easily had.", low=4, high=10_000)
    synthetic: int = _f(80, "Synthetic images: defects pasted into good plates.", low=1, high=10_000)
    val: int = _f(24, "Val images.", low=4, high=10_000)
    test: int = _f(80, "Test images.", low=4, high=10_000)
    classes: str = _f("dent, stain", "Kinds of defects.")
    seeds: int = _f(5, "Trainings of each arm.", low=1, high=100)
    epochs: int = _f(20, "Passes.", low=1, high=2000)
    shown: int = _f(240, "Images shown in each pass.", low=1, high=100_000)
    imgsz: int = _f(96, "Side of the network input.", low=64, high=1024)
    seed: int = _f(0, "Seed of the plates and of what is pasted.", low=0, high=2**31 - 1)
    out: str = _f("", "Folder for the runs; empty: they stay where they are.")


@dataclass(frozen=True)
class Backup(Config):
    """Copy the data folder while the program goes on: to a folder, where later backups add what is new, or to one zip file."""

    to: str = _f("", "Folder for backups, or a file that ends in .zip; outside the data folder.")


@dataclass(frozen=True)
class Restore(Config):
    """Put a backup into an empty folder, each file checked, and make its database."""

    file: str = _f("", "The backup: a zip file, a folder of backups (its newest), or the .json of one of them.")
    into: str = _f("", "An empty folder, or a new one.")


@dataclass(frozen=True)
class Retention(Config):
    """Let old things go, as many days after they came about; what anything refers to stays. Without `apply` it only says what would go."""

    pictures: int | None = _f(None, "Days after which kept pictures of inspections go; none: never.", low=7, high=36_500)
    logs: int | None = _f(None, "Days after which the logs of ended runs go; none: never.", low=7, high=36_500)
    leftovers: int | None = _f(None, "Days after which go uploads and checkpoints that ended runs left to go on from; none: never.",
                               low=7, high=36_500)
    synthetic: int | None = _f(None, "Days after which synthetic sets go that nobody accepted a picture of; none: never.",
                               low=7, high=36_500)
    apply: bool = _f(False, "Let go indeed.")


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
    "train-prior": TrainPrior,
    "adapt-prior": AdaptPrior,
    "synthesize": Synthesize,
    "measure-synthesis": MeasureSynthesis,
    "search-synthesis": SearchSynthesis,
    "combine": Combine,
    "relabel": Relabel,
    "train-classifier": TrainClassifier,
    "collect-masks": CollectMasks,
    "train-anomaly": TrainAnomaly,
    "score": Score,
    "experiment": Experiment,
    "compare": Compare,
    "inspect": Inspect,
    "watch": Watch,
    "predict": Predict,
    "measure-precision": MeasurePrecision,
    "export-model": ExportModel,
    "shadow": Shadow,
    "shift-report": ShiftReport,
    "check": Check,
    "draw-plates": DrawPlates,
    "demo": Demo,
    "demo-model": DemoModel,
    "demo-experiment": DemoExperiment,
    "backup": Backup,
    "restore": Restore,
    "retention": Retention,
}
