"""Low-rank changes of the UNet's attention (Hu et al. 2021, arXiv 2106.09685): the second of the two spaces a prior is moved in.

Stands behind `adapt`. peft puts the layers in for training; the file is laid out as diffusers writes it, so that
`load_lora_weights` of its own pipelines reads it too. Knows nothing of words, pictures or steps.
"""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from backend.errors import InputError

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
FILE = "lora.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def begin(unet: UNet2DConditionModel, rank: int, seed: int) -> list[nn.Parameter]:
    """Put adapters that change nothing yet into a frozen UNet; what there is to learn, float32 whatever the UNet computes in.

    Alpha is the rank, so that a change counts in full, as papers.md 3.4 has it.
    """
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(TARGETS)))
    learned = [p for p in unet.parameters() if p.requires_grad]
    for p in learned:
        p.data = p.data.float()
    return learned


def save(unet: UNet2DConditionModel, folder: Path, base: str) -> None:
    """`base`: hash of the weights that it was learned on, which the file says itself."""
    state = {k: v.detach().float().contiguous().cpu() for k, v in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state, weight_name=FILE)
    save_file(load_file(folder / FILE), folder / FILE, metadata={"base": base})       # of two entries the order would be by chance


def apply(unet: UNet2DConditionModel, file: Path) -> None:
    """Add the changes to the weights themselves: nothing is slower afterwards. Raises InputError."""
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as problem:
        raise InputError(f"The adapter's file {file.name} is missing or damaged. Adapt the prior again.") from problem
    layers = dict(unet.named_modules())
    for key in (k for k in state if k.endswith(DOWN)):
        name = key.removeprefix("unet.").removesuffix(DOWN)
        layer, up = layers.get(name), state.get(key.removesuffix(DOWN) + UP)
        if not isinstance(layer, nn.Linear) or up is None:
            raise InputError(f"The adapter's file {file.name} was not made for this prior: it has no layer {name}.")
        change = up.float() @ state[key].float()                                  # (out, rank) @ (rank, in)
        with torch.no_grad():
            layer.weight.copy_(layer.weight.float() + change.to(layer.weight.device))
