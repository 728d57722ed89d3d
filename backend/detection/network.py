"""The network before training: YOLO11 from its description, random or from a local weights file. Nothing is ever fetched."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, torch_safe_load
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import intersect_dicts

from backend.config import TrainDetector
from backend.device import computes_bf16
from backend.errors import ConfigError, InputError


class Detector(DetectionModel):
    """YOLO11 whose training pass may run in bfloat16, on the CPU too; the loss itself is always float32.

    Ultralytics refuses autocast on CPUs, where it halves a step (see `device.computes_bf16`).
    """

    bf16 = False

    def loss(self, batch: dict[str, Any], preds: Any = None) -> Any:
        if preds is None:
            preds = self.answer(batch["img"])
        with torch.autocast(batch["img"].device.type, enabled=False):
            return super().loss(batch, preds)

    def answer(self, images: Tensor) -> Any:
        """Raw predictions of a batch (B, 3, S, S), float32, however they were computed."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return full(self.forward(images.contiguous(memory_format=torch.channels_last)))


def full(value: Any) -> Any:
    """The same nest of tensors in float32."""
    if isinstance(value, Tensor):
        return value.float()
    if isinstance(value, dict):
        return {k: full(v) for k, v in value.items()}
    return type(value)(map(full, value)) if isinstance(value, (list, tuple)) else value


def in_bf16(precision: str) -> bool:
    return precision == "bf16" or (precision == "auto" and computes_bf16())


def class_names(data: Path) -> dict[int, str]:
    """Of a YOLO folder's data.yaml, whose names are a list or a mapping."""
    names = YAML.load(data)["names"]
    return names if isinstance(names, dict) else dict(enumerate(names))


def build(config: TrainDetector, names: dict[int, str]) -> Detector:
    """The network, with the weights it starts from, if any. Random where there are none: seed first."""
    model = Detector(f"yolo11{config.size}.yaml", ch=3, nc=len(names), verbose=False)
    model.names, model.bf16 = names, in_bf16(config.precision)
    if config.weights:
        weights = load_weights(Path(config.weights))
        fits = len(intersect_dicts(weights.state_dict(), model.state_dict())) / len(model.state_dict())
        if fits < 0.5:
            raise ConfigError(f"The weights to start from are of another network: only {fits:.0%} of their parts fit.")
        model.load(weights, verbose=False)       # also fits the head to their width, and its rows to classes of the same name
    return model


def load_weights(path: Path) -> nn.Module:
    """A network from a local .pt, through Ultralytics' safe-only load: known classes, no code from the file."""
    if not path.is_file():
        raise ConfigError(f"There is no file {path} to start from.")
    try:
        saved, _ = torch_safe_load(path, safe_only=True)
        network = saved.get("ema") or saved["model"]
    except Exception as problem:      # many kinds: TypeError, KeyError, ModuleNotFoundError, RuntimeError, …
        raise InputError(f"{path.name} cannot be used: it is no plain Ultralytics weights file.") from problem
    if not isinstance(network, DetectionModel):
        raise InputError(f"{path.name} cannot be used: it holds no Ultralytics detector.")
    return network.float()
