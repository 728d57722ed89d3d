"""New images from noise, by a trained denoiser: ancestral (DDPM), DDIM, DPM-Solver++.

Knows nothing of training, masks or defects.
"""

import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from PIL import Image
from torch import Tensor

from backend.device import computes_bf16
from backend.diffusion import pictures

if TYPE_CHECKING:
    from backend.diffusion.ddpm import Denoiser

NOISIEST = -5.1             # log of signal over noise where DPM-Solver starts: further out, a cosine schedule divides by almost nothing
SAMPLERS: dict[str, Any] = {"ancestral": DDPMScheduler, "ddim": DDIMScheduler, "dpm-solver": DPMSolverMultistepScheduler}


def scheduler(denoiser: "Denoiser", sampler: str, steps: int) -> Any:
    """A sampler on the denoiser's own noise schedule. Ho et al. 2020; Song et al. 2021; Lu et al. 2022 (DPM-Solver++, order 2).

    Timesteps count back from the last ("trailing", Lin et al. 2024, arXiv 2305.08891, section 3.3): the chain starts at pure noise,
    which is where it is started.
    """
    more = {"lambda_min_clipped": NOISIEST} if sampler == "dpm-solver" else {}
    made = SAMPLERS[sampler].from_config(denoiser.schedule.config, timestep_spacing="trailing", **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)        # diffusers 0.42 hands numpy a tensor in the old way
        made.set_timesteps(steps)
    return made


@torch.no_grad()
def sample(denoiser: "Denoiser", n: int, height: int, width: int, generator: torch.Generator, steps: int = 50,
           sampler: str = "ddim") -> Tensor:
    """New images, float32 (n, C, height, width), -1 to 1, on the CPU. Sides are multiples of 8. The generator is a CPU one."""
    assert height % pictures.MULTIPLE == 0 == width % pictures.MULTIPLE, f"sides are no multiples of 8: {height}, {width}"
    device, chain = denoiser.unet.device, scheduler(denoiser, sampler, steps)
    x = torch.randn(n, denoiser.channels, height, width, generator=generator).to(device)
    for timestep in chain.timesteps:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=computes_bf16()):
            noise = denoiser.unet(chain.scale_model_input(x, timestep), timestep).sample.float()  # (n, C, h, w)
        more = {"generator": generator} if sampler == "ancestral" else {}
        x = chain.step(noise, timestep, x, **more).prev_sample
    return x.float().cpu()


def grid(found: Tensor, columns: int) -> bytes:
    """Images (n, C, h, w), -1 to 1, side by side as PNG."""
    cells = pictures.to_pixels(found)                                                            # (n, h, w, C)
    rows = [np.concatenate(list(cells[i:i + columns]), 1) for i in range(0, len(cells) - len(cells) % columns, columns)]
    pixels = np.concatenate(rows, 0)
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
