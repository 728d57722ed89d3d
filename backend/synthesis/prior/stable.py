"""A Stable Diffusion checkpoint behind one class: any of 1.x and 2.x, and the small surface prior of our own. Start reading here.

Rombach et al. 2022 (arXiv 2112.10752): pictures become latents, a UNet tells the noise in them, reading a prompt's hidden states by
cross-attention. What sets the versions apart (widths, heads, epsilon or velocity) stands in the checkpoint's own settings.
Stands between the checkpoint's files and all that trains or draws with it. Knows nothing of pictures on disk or of samplers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from backend import rundir
from backend.data.snapshot import Snapshot
from backend.device import computes_bf16
from backend.errors import ConfigError, InputError, NotFoundError
from backend.synthesis.prior import checkpoint, examples, words

PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Prior:
    """The networks and what one must know to use them. `head` is head.json of a surface prior of ours, else {}."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: DDPMScheduler
    name: str
    where: str                                          # folder, or name on the hub
    base_hash: str                                      # of the weights before any adapter
    head: dict[str, Any] = field(default_factory=dict)
    adapter_key: str = ""                               # '' without an adapter; else of the settings it was learned with
    adapter_hash: str = ""                              # of its weights
    classes_known: dict[str, str] = field(default_factory=dict)      # class -> the prompt that was learned for it

    @property
    def native(self) -> bool:
        """Ours: it has learned crops at the pictures' own scale."""
        return bool(self.head.get("native"))

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What UNet and text encoder compute in. Learned numbers among theirs may be finer."""
        return self.unet.conv_in.weight.dtype

    def to(self, device: str) -> "Prior":
        networks: list[Any] = [self.vae, self.unet, self.text_encoder]
        for network in networks:
            network.to(device)
        return self


# ---- from disk

def load(folder_or_hub: Path | str, *, precision: str = "f32") -> Prior:
    """A checkpoint, frozen, on the CPU. `precision`: f32, bf16, fp16, or auto (bf16 where this machine computes it natively).

    The autoencoder is always float32: it is small, and its rounding would be seen. Raises NotFoundError, InputError.
    """
    folder = checkpoint.folder_of(folder_or_hub)
    head, dtype = checkpoint.head(folder), _dtype(precision)
    diffusers.utils.logging.disable_progress_bar()      # a worker's log is no terminal
    transformers.utils.logging.disable_progress_bar()
    vae = _network(AutoencoderKL, folder / "vae", torch_dtype=torch.float32)
    if not head:
        vae.enable_slicing()                            # one by one: at 512 px each takes a gigabyte or more
    prior = Prior(
        vae=vae,
        unet=_network(UNet2DConditionModel, folder / "unet", torch_dtype=dtype),
        text_encoder=_network(CLIPTextModel, folder / "text_encoder", dtype=dtype),
        tokenizer=_part(folder / "tokenizer", CLIPTokenizer.from_pretrained),
        schedule=DDPMScheduler(clip_sample=False, **checkpoint.schedule(folder)),
        name=str(head.get("name") or (folder.name if Path(folder_or_hub).expanduser().is_dir() else folder_or_hub)),
        where=str(folder_or_hub), base_hash=checkpoint.base_hash(folder), head=head)
    if prior.unet.config.in_channels != prior.vae.config.latent_channels:
        raise InputError(f"The checkpoint {folder} draws from {prior.unet.config.in_channels} channels, not from latents alone: it is one "
                         "for inpainting, depth or enlarging. Give the plain one of its kind.")
    return prior


def _dtype(precision: str) -> torch.dtype:
    chosen = precision if precision != "auto" else "bf16" if computes_bf16() else "f32"
    assert chosen in PRECISIONS, precision
    return PRECISIONS[chosen]


def _network(kind: Any, folder: Path, **more: Any) -> Any:
    """A network with all its weights from the file, none drawn. Raises InputError."""
    found = checkpoint.weights(folder)
    assert found is not None, "the folder has been checked"
    network, told = _part(folder, kind.from_pretrained, use_safetensors=found.safe, variant=found.variant, output_loading_info=True, **more)
    if told["missing_keys"] or told["mismatched_keys"]:
        raise InputError(f"The weights in {folder} are not whole: {len(told['missing_keys']) + len(told['mismatched_keys'])} tensors are "
                         "missing or of another size than its config.json says.")
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _part(folder: Path, open_it: Callable[..., Any], **more: Any) -> Any:
    """A part read by its vendor, whose errors are many. Raises InputError."""
    try:
        return open_it(str(folder), local_files_only=True, **more)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as problem:
        reason = (str(problem) or type(problem).__name__).splitlines()[0]
        raise InputError(f"The part {folder.name} of the checkpoint {folder.parent} cannot be read: {reason}") from problem


# ---- which one

@dataclass(frozen=True)
class Found:
    """What a name leads to. `head` is that of the artifact, {} of other checkpoints."""

    kind: Literal["adapter", "prior", "folder", "hub"]
    name: str
    base: Path | str
    adapter: Path | None = None
    head: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The artifact's; of other checkpoints where they are."""
        return str(self.head.get("key") or self.base)


def find(name: str, data: Snapshot | None = None) -> Found:
    """By name, run or key of an adapted prior or a surface prior, else a folder, else a name on the hub.

    Empty: the newest prior adapted to this snapshot, else the newest surface prior. Raises NotFoundError, and ConfigError where it
    has learned from val or test images of the dataset.
    """
    name = name.strip()
    own = {} if name else {"snapshot_id": data.snapshot_id if data else None}
    folder = rundir.find_artifact("adapter", name, **own) if name or data else None
    found = _adapter(folder) if folder else _base(name)
    if data is not None:
        _refuse_leak(found, data)
    return found


def _adapter(folder: Path) -> Found:
    head = rundir.read_json(folder / "head.json")
    try:
        base = _base(str(head["base"]["where"]))
    except NotFoundError as problem:
        raise NotFoundError(f"The prior {head['base']['name']!r}, which {head['name']!r} was adapted from, is not there any more.") \
            from problem
    return Found("adapter", head["name"], base.base, folder, head)


def _base(name: str) -> Found:
    folder = rundir.find_artifact("prior", name)
    if folder is not None:
        head = rundir.read_json(folder / "head.json")
        return Found("prior", head["name"], folder, head=head)
    if name and Path(name).expanduser().is_dir():
        return Found("folder", Path(name).expanduser().resolve().name, Path(name).expanduser().resolve())
    if checkpoint.HUB_ID.fullmatch(name):
        return Found("hub", name, name)
    missing = f"There is no prior or folder called {name!r}." if name else "There is no surface prior yet."
    raise NotFoundError(f"{missing} Train one with train-prior, or name the folder of a Stable Diffusion checkpoint.")


def _refuse_leak(found: Found, data: Snapshot) -> None:
    """Pictures that a generator learned from, come back through its pictures: none of them may be one that is judged by, or nearly so."""
    base = checkpoint.head(found.base) if isinstance(found.base, Path) else {}
    learned = [*found.head.get("learned", ()), *base.get("learned", ())]
    of_others = {found.head.get("snapshot_id", "")} - {"", data.snapshot_id}           # adapting to this one has seen to its near copies
    examples.seen(found.name, data, learned, [*of_others, *(d["snapshot_id"] for d in base.get("datasets", ()))])


def open_prior(found: Found, device: str = "cpu", precision: str = "f32") -> Prior:
    """The prior that was found, its adapter applied, on a device. Raises NotFoundError, InputError, ConfigError."""
    if precision == "fp16" and device == "cpu":
        raise ConfigError("fp16 needs a GPU. Choose bf16 or f32.")
    if found.adapter is None:
        return load(found.base, precision=precision).to(device)
    from backend.synthesis.prior import adapt  # it stands above this module: it trains what this one loads

    prior = adapt.apply(load(found.base), found.adapter)        # in float32: most of what an adapter adds is less than bf16 can tell apart
    coarser: list[Any] = [prior.unet, prior.text_encoder]
    for network in coarser:
        network.to(_dtype(precision))
    return prior.to(device)


# ---- what its parts do

def prompt_for(prior: Prior, dataset: str, class_name: str | None) -> str:
    """The words it has learned for a class, else plain ones."""
    return prior.classes_known.get(class_name or "") or words.caption(dataset, class_name)


def encode(prior: Prior, prompts: list[str]) -> Tensor:
    """Hidden states (n, L, D) of prompts, cut or padded to the text encoder's length. With gradients, where something learns."""
    length = prior.text_encoder.config.max_position_embeddings
    ids = prior.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids     # (n, L)
    return prior.text_encoder(ids.to(prior.device)).last_hidden_state                                                         # (n, L, D)


@torch.no_grad()
def latents(prior: Prior, images: Tensor) -> Tensor:
    """Images (B, 3, H, W), -1 to 1, as latents (B, c, h, w): the mean of what the autoencoder thinks of, scaled to unit variance."""
    mean = prior.vae.encode(images.to(prior.device, torch.float32)).latent_dist.mean
    return (mean - (prior.vae.config.shift_factor or 0.0)) * prior.vae.config.scaling_factor


@torch.no_grad()
def pictures(prior: Prior, found: Tensor) -> Tensor:
    """Latents (B, c, h, w) as images (B, 3, H, W), -1 to 1."""
    return prior.vae.decode(found.float() / prior.vae.config.scaling_factor + (prior.vae.config.shift_factor or 0.0)).sample.clamp(-1, 1)


def factor(prior: Prior) -> int:
    """Pixels to a latent, along a side."""
    return int(2 ** (len(prior.vae.config.block_out_channels) - 1))


def multiple(prior: Prior) -> int:
    """What sides of images must be multiples of: the autoencoder's factor times the UNet's halvings."""
    return factor(prior) * int(2 ** (len(prior.unet.config.block_out_channels) - 1))
