"""What a detector starts from where that is not chance: an earlier model of one's own, a weights file, a taught backbone.

    from_model    an earlier model, by name or run: its network as it was trained, and which pictures it has seen
    from_file     a local .pt by Ultralytics, through its safe-only load; what it has seen nobody knows
    settle        the settings with what they start from named by run, once it is sure that it may be the start

A start that knows the pictures which are to judge is refused (`data.seen`). Knows nothing of how a network is trained.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from backend import rundir
from backend.data import seen
from backend.errors import ConfigError, InputError


def given(weights: str) -> nn.Module:
    """The network to start from, float32. Raises ConfigError, InputError."""
    folder = seen.start_of(weights)
    return from_file(Path(weights)) if folder is None else from_model(folder)


def from_model(folder: Path) -> DetectionModel:
    """A `weights` artifact: the bare network, its classes with it."""
    head = rundir.read_json(folder / "head.json")
    network = DetectionModel(f"yolo11{head['size']}.yaml", nc=len(head["classes"]), verbose=False)
    network.load_state_dict(load_file(folder / "network.safetensors"))
    network.names = dict(enumerate(head["classes"]))
    return network.float()


def from_file(path: Path) -> nn.Module:
    """A network from a local .pt: known classes, no code from the file."""
    if not path.is_file():
        raise ConfigError(f"There is neither a model called {str(path)!r} nor such a file to start from.")
    try:
        saved, _ = torch_safe_load(path, safe_only=True)
        network = saved.get("ema") or saved["model"]
    except Exception as problem:      # many kinds: TypeError, KeyError, ModuleNotFoundError, RuntimeError, …
        raise InputError(f"{path.name} cannot be used: it is no plain Ultralytics weights file.") from problem
    if not isinstance(network, DetectionModel):
        raise InputError(f"{path.name} cannot be used: it holds no Ultralytics detector.")
    return network.float()


def key(weights: str | None) -> str:
    """What follows from these weights follows from: the model's id, the file's hash, '' for none."""
    if not weights:
        return ""
    folder = seen.start_of(weights)
    if folder is not None:
        return str(rundir.read_json(folder / "head.json")["key"])
    return hashlib.sha256(Path(weights).read_bytes()).hexdigest() if Path(weights).is_file() else ""


def settle(config: Any, snapshot_id: str, split_of: Mapping[str, str]) -> Any:
    """The config with its start named by run, so that a later model of the same name changes nothing. `split_of`: of each image id.
    A backbone must have been taught on this very snapshot, since another's train images may be test images here. Raises ConfigError."""
    if config.backbone:
        folder = rundir.find_artifact("backbone", config.backbone, snapshot_id=snapshot_id)
        if folder is None:
            raise ConfigError(f"There is no backbone called {config.backbone!r} that was taught on this dataset.")
        config = replace(config, backbone=folder.parent.name)
    if config.weights and (folder := seen.start_of(config.weights)) is not None:
        seen.refuse(folder, split_of)
        config = replace(config, weights=folder.parent.name)
    return config

