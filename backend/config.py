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
                     choices=("auto", "voc", "yolo", "coco", "mvtec", "mask-beside", "images"))
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
    learning_rate: float = _f(0.01, "Initial learning rate of the optimiser.", low=1e-6, high=1.0, advanced=True)
    precision: str = _f("auto", "Arithmetic of the network's forward pass; auto: bf16 where this machine computes it natively.",
                        choices=("auto", "f32", "bf16"), advanced=True)


@dataclass(frozen=True)
class Inspect(Config):
    """Run a deployed model over images and log what it finds."""

    model: str = _f("", "Name of the model, or its id; empty: the promoted one.")
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
    """Write every box of a model on a list of images, for the scorers."""

    model: str = _f("", "Name of the model, or its id.")
    images: str = _f("", "Folder of images.")
    list: str | None = _f(None, "Text file: only these images, one stem, name or relative path a line.")
    out: str = _f("", "Folder to write predictions.json into.")


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
    "inspect": Inspect,
    "predict": Predict,
    "demo": Demo,
    "demo-model": DemoModel,
}
