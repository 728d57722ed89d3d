"""What a detector starts from where that is not chance: an earlier model of one's own, a weights file, a taught backbone.

    from_model    an earlier model, by name or run: its network as it was trained, and which pictures it has seen
    from_file     a local .pt by Ultralytics, through its safe-only load; what it has seen nobody knows
    settle        the settings with what they start from named by run, once it is sure that it may be the start

A network that learnt from pictures which judge the new one would be praised for its memory: such a start is refused, however many
trainings lie between. So is one that was chosen by pictures which test the new one. By content: a picture saved anew passes. Knows
nothing of how a network is trained.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from backend import rundir
from backend.data import snapshot
from backend.errors import ConfigError, InputError, NotFoundError

_ORDER = {"train": 0, "val": 1, "test": 2}         # what was looked at for one must not be used for a later one


def given(weights: str) -> nn.Module:
    """The network to start from, float32. Raises ConfigError, InputError."""
    folder = _model(weights)
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
    folder = _model(weights)
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
    if config.weights and (folder := _model(config.weights)) is not None:
        name = rundir.read_json(folder / "head.json")["name"]
        if known := len({i for i, seen in _seen(folder) if _ORDER[seen] < _ORDER[split_of.get(i, "train")]}):
            raise ConfigError(f"{name!r}, from which it would start, knows {known} of the pictures that are to judge the new model. "
                              "Start from another one, or from none.")
        config = replace(config, weights=folder.parent.name)
    return config


def _model(weights: str) -> Path | None:
    return None if Path(weights).is_file() else rundir.find_artifact("weights", weights)


def _seen(folder: Path | None) -> Iterator[tuple[str, str]]:
    """Ids and splits of the pictures that a model, and those that it started from, have seen. Raises ConfigError where nobody can tell any
    more."""
    while folder is not None:
        head = rundir.read_json(folder / "head.json")
        try:
            data = snapshot.read(rundir.find_snapshot(head["snapshot_id"]))
        except NotFoundError as gone:
            raise ConfigError(f"The dataset that {head['name']!r} learnt from is gone, so nobody can say whether it knows the pictures "
                              "that would judge the new model. Start from another one.") from gone
        yield from ((p.image_id, p.split) for p in data.pictures)
        before = rundir.read_json(folder.parent / "job.json")["config"].get("weights")
        folder = _model(before) if before else None
