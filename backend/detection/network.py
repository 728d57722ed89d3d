"""The network before training: YOLO11 from its description, random or from a local weights file. Nothing is ever fetched."""

from pathlib import Path

from torch import nn
from ultralytics.nn.tasks import DetectionModel, torch_safe_load
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import intersect_dicts

from backend.config import TrainDetector
from backend.errors import ConfigError, InputError


def class_names(data: Path) -> dict[int, str]:
    """Of a YOLO folder's data.yaml, whose names are a list or a mapping."""
    names = YAML.load(data)["names"]
    return names if isinstance(names, dict) else dict(enumerate(names))


def build(config: TrainDetector, names: dict[int, str]) -> DetectionModel:
    """The network, with the weights it starts from, if any. Random where there are none: seed first."""
    model = DetectionModel(f"yolo11{config.size}.yaml", ch=3, nc=len(names), verbose=False)
    model.names = names
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
