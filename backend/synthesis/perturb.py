"""What a denoiser makes of an image when its reverse steps are noisier than they should be: the DDPM route to a defect.

Feng et al. 2026 (arXiv 2604.19240) speak of constant-variance Gaussian perturbation; we read it as RealNet's SDAS (Zhang et al.
2024, arXiv 2403.05897, section 3.1) does: ordinary ancestral sampling in which the standard deviation of every step's noise is
multiplied by sqrt(1 + variance), the same along the whole chain. The denoiser takes the surplus for structure. With variance 0
what comes out is a normal surface. Knows nothing of masks.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from backend.device import computes_bf16
from backend.diffusion import pictures
from backend.diffusion.ddpm import TIMESTEPS, Denoiser

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator]


def timesteps(steps: int, depth: int) -> list[int]:
    """`steps` timesteps from `depth` down, evenly; the last step leaves the chain clean. Fewer where depth holds fewer."""
    found = {max(1, round(depth * i / steps)) for i in range(1, steps + 1)}
    return sorted(found, reverse=True)


@torch.no_grad()
def perturb(denoiser: Denoiser, images: Tensor, generator: Generators, *, steps: int, depth: int, variance: float,
            start: str = "image") -> Tensor:
    """Images (B, C, h, w), -1 to 1, as the denoiser draws them again: float32, of the same shape, on the CPU.

    `start` "image" noises them up to timestep `depth` first, which keeps the result aligned with them; "noise" forgets them.
    Sides are multiples of 8. Generators are CPU ones: one for all images, or one each, so that a batch's company changes nothing.
    """
    assert all(side % pictures.MULTIPLE == 0 for side in images.shape[-2:]), f"sides are no multiples of 8: {tuple(images.shape)}"
    assert start in ("image", "noise") and variance >= 0, "what a config allows"
    device, signal = denoiser.unet.device, denoiser.schedule.alphas_cumprod.tolist()
    chain = timesteps(steps, depth if start == "image" else TIMESTEPS - 1)
    noise = gaussian(images.shape, generator)
    x = (math.sqrt(signal[chain[0]]) * images + math.sqrt(1 - signal[chain[0]]) * noise if start == "image" else noise).to(device)
    for t, after in zip(chain, [*chain[1:], None], strict=True):
        x = _step(denoiser, x, t, signal[t], 1.0 if after is None else signal[after], variance, generator)
    return x.float().cpu()


def _step(denoiser: Denoiser, x: Tensor, t: int, now: float, after: float, variance: float, generator: Generators) -> Tensor:
    """From signal share `now` (alpha bar) to `after`: Ho et al. 2020, equations 6 and 7, on whatever steps there are."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=computes_bf16()):
        noise = denoiser.unet(x.contiguous(memory_format=torch.channels_last), t).sample.float()                # (B, C, h, w)
    x_start = ((x - math.sqrt(1 - now) * noise) / math.sqrt(now)).clamp(-1, 1)
    kept = now / after                                                                                          # alpha of this step
    mean = (math.sqrt(after) * (1 - kept) * x_start + math.sqrt(kept) * (1 - after) * x) / (1 - now)
    deviation = math.sqrt((1 - after) / (1 - now) * (1 - kept) * (1 + variance))
    return mean + deviation * gaussian(x.shape, generator).to(x.device) if deviation else mean


def gaussian(shape: Sequence[int], generator: Generators) -> Tensor:
    """Standard normal numbers (B, C, h, w), image by image where each has its generator."""
    if isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator)
    assert len(generator) == shape[0], "one generator an image"
    return torch.stack([torch.randn(*shape[1:], generator=g) for g in generator])
