"""The files of a Stable Diffusion checkpoint in diffusers' layout: where they are, whether they are whole, which will be read.

Stands below `stable`, which loads them. Weights are safetensors where there are any; `.bin` files are read as numbers only, which
diffusers and transformers see to. The hub is asked only about a name that a person gave, and first comes what it left here
before. Knows nothing of networks.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors

from backend.errors import InputError, NotFoundError

NETWORKS = ("text_encoder", "unet", "vae")
PARTS = (*NETWORKS, "scheduler", "tokenizer")
FOREIGN = ("text_encoder_2", "text_encoder_3", "transformer", "prior", "controlnet")       # of pipelines that are something else
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED = ["model_index.json", "scheduler/*", "tokenizer/*", *(f"{n}/*.{kind}" for n in NETWORKS for kind in ("json", "safetensors"))]
UNWANTED = ["*.fp16.*", "*.non_ema.*", "*.fp16-*"]                                          # the same weights again
CHUNK = 1 << 22


@dataclass(frozen=True)
class Weights:
    """The files that a part's weights are read from, and what the loader must be told to read these."""

    files: tuple[Path, ...]
    variant: str | None
    safe: bool


def folder_of(where: Path | str) -> Path:
    """Folder of a whole checkpoint: `where` itself, or what the hub has under this name. Raises NotFoundError, InputError."""
    folder = Path(where).expanduser()
    if folder.is_dir():
        check(folder)
        return folder
    if not HUB_ID.fullmatch(str(where)):
        raise NotFoundError(f"There is no folder {str(where)!r}.")
    found = _kept(str(where)) or _fetched(str(where))
    check(found)
    return found


def _kept(name: str) -> Path | None:
    """What an earlier call has fetched, if it is whole."""
    try:
        found = Path(huggingface_hub.snapshot_download(  # nosec B615 # fetches nothing
            name, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError, errors.HFValidationError):
        return None
    return None if lacking(found) else found


def _fetched(name: str) -> Path:
    """Fetch a checkpoint from the hub. Raises NotFoundError."""
    try:
        return Path(huggingface_hub.snapshot_download(  # nosec B615 # the one that a person names; safetensors and JSON alone
            name, allow_patterns=WANTED, ignore_patterns=UNWANTED))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as problem:
        raise NotFoundError(f"The hub has no checkpoint {name!r} for this user, and there is no folder of this name.") from problem
    except (OSError, errors.HTTPError) as problem:
        raise NotFoundError(f"There is no folder {name!r}, and the hub, which may have a checkpoint of this name, cannot be reached. "
                            "Give the folder of a checkpoint.") from problem


def lacking(folder: Path) -> list[str]:
    """Parts that are not there, or have no weights."""
    empty = [n for n in NETWORKS if not (folder / n / "config.json").is_file() or weights(folder / n) is None]
    return empty + [p for p in ("scheduler", "tokenizer") if not (folder / p).is_dir()]


def check(folder: Path) -> None:
    """Raises InputError where the folder is no Stable Diffusion 1.x or 2.x checkpoint, or not all of one."""
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{folder} is no Stable Diffusion checkpoint in diffusers' layout: it has no model_index.json.")
    index = _json(folder / "model_index.json")
    other = [p for p in FOREIGN if index.get(p, [None])[0]]
    if other:
        raise InputError(f"{folder} is no Stable Diffusion 1.x or 2.x: it has a {other[0]}.")
    if missing := lacking(folder):
        raise InputError(f"The checkpoint {folder} is not whole: {', '.join(missing)} missing.")


def weights(part: Path) -> Weights | None:
    """Safetensors before .bin, full precision before half."""
    for kind in ("safetensors", "bin"):
        for variant in (None, "fp16"):
            files = tuple(sorted(f for f in part.glob(f"*.{kind}") if _variant(f) == variant))
            if files:
                return Weights(files, variant, kind == "safetensors")
    return None


def _variant(file: Path) -> str | None:
    """'fp16' of model.fp16.safetensors; None of model.safetensors and of its shards."""
    between = file.name.split(".")[1:-1]
    return between[0] if between else None


def base_hash(folder: Path) -> str:
    """16 digits that stand for the weights: SHA-256 over the files of the networks, by name."""
    digest = hashlib.sha256()
    for network in NETWORKS:
        found = weights(folder / network)
        assert found is not None, "the folder has been checked"
        for file in found.files:
            with open(file, "rb") as f:
                while chunk := f.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()[:16]


def schedule(folder: Path) -> dict[str, Any]:
    """What of the scheduler's settings makes the noise schedule; the rest is the sampler's, whichever it was."""
    noise = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type", "rescale_betas_zero_snr")
    config = _json(folder / "scheduler" / "scheduler_config.json")
    return {k: config[k] for k in noise if k in config}


def head(folder: Path) -> dict[str, Any]:
    """head.json of a surface prior of our own; {} of any other checkpoint."""
    found = _json(folder / "head.json") if (folder / "head.json").is_file() else {}
    return found if found.get("native") else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path} cannot be read: {problem}") from problem
