"""The network before training: YOLO11 from its description, random, with a taught backbone, or from an earlier network (`start`).

Nothing is ever fetched. Knows nothing of data or of how the network is trained.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import intersect_dicts

from backend import rundir
from backend.config import TrainDetector
from backend.detection import start
from backend.device import in_bf16
from backend.errors import ConfigError

BACKBONE = (4, 6, 10)          # layers of YOLO11 whose outputs the neck takes: strides 8, 16, 32
NECK = (16, 19, 22)            # layers whose outputs the head takes, same strides


class Detector(DetectionModel):
    """YOLO11 whose training pass may run in bfloat16, on the CPU too; the loss itself is always float32.

    Ultralytics refuses autocast on CPUs, where it halves a step (see `device.in_bf16`).
    """

    bf16 = False
    noted: dict[int, Tensor] | None = None       # layer -> its output, of the pass under way, where somebody wants them

    def _predict_once(self, x: Any, profile: bool = False, embed: Any = None) -> Any:
        kept: list[Any] = []
        for layer in self.model:
            if layer.f != -1:
                x = kept[layer.f] if isinstance(layer.f, int) else [x if j == -1 else kept[j] for j in layer.f]
            x = self.between(layer.i, layer(x))
            kept.append(x if layer.i in self.save else None)
        return x

    def between(self, layer: int, x: Any) -> Any:
        """Called with every layer's output; what is returned goes on."""
        if self.noted is not None and layer in NECK:
            self.noted[layer] = x
        return x

    def with_neck(self, images: Tensor) -> tuple[Any, list[Tensor]]:
        """Raw predictions and the neck's three maps (B, C, H, W), float32."""
        self.noted = {}
        try:
            told = self.answer(images)
            return told, [self.noted[i].float() for i in NECK]
        finally:
            self.noted = None

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


def class_names(data: Path) -> dict[int, str]:
    """Of a YOLO folder's data.yaml, whose names are a list or a mapping."""
    names = YAML.load(data)["names"]
    return names if isinstance(names, dict) else dict(enumerate(names))


def build(config: TrainDetector, names: dict[int, str], kind: type[Any] = Detector) -> Any:
    """A `kind` of Detector, with the weights it starts from, if any. Random where there are none: seed first."""
    model = kind(f"yolo11{config.size}.yaml", ch=3, nc=len(names), verbose=False)
    model.names, model.bf16 = names, in_bf16(config.precision)
    if config.weights:
        weights = start.given(config.weights)
        fits = len(intersect_dicts(weights.state_dict(), model.state_dict())) / len(model.state_dict())
        if fits < 0.5:
            raise ConfigError(f"The weights to start from are of another network: only {fits:.0%} of their parts fit.")
        model.load(weights, verbose=False)       # also fits the head to their width, and its rows to classes of the same name
    if config.backbone:
        take_backbone(model, config)
    return model


def take_backbone(model: Detector, config: TrainDetector) -> None:
    """Put a taught backbone (layers 0 to 10) into the network."""
    folder = rundir.find_artifact("backbone", config.backbone)
    if folder is None:
        raise ConfigError(f"There is no taught backbone called {config.backbone!r}.")
    head = rundir.read_json(folder / "head.json")
    if head["size"] != config.size:
        raise ConfigError(f"The backbone {head['name']!r} is of size {head['size']}, the network of size {config.size}.")
    taught = load_file(folder / "backbone.safetensors")
    assert {k.split(".")[1] for k in taught} == {str(i) for i in range(BACKBONE[-1] + 1)}, "layers 0 to 10, whole"
    model.load_state_dict(taught, strict=False)
