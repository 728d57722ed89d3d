"""Drawing with a prior: from noise, from real pictures, or inside masks of real pictures.

Image start is SDEdit (Meng et al. 2022, arXiv 2108.01073): a picture is noised part of the way and denoised from there, which
StableSDG finds better than noise start. Inside masks, what lies outside is set back to the picture, noised as far as the step,
after each one (blended latent diffusion, Avrahami et al. 2022, arXiv 2206.02779, section 4.1).
The solver is DPM-Solver++ of second order (Lu et al. 2022), which draws no further noise: a picture follows from its own
generator alone, whatever else is in its batch. Knows nothing of datasets, classes or files.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from torch.nn import functional as F

from backend.diffusion.pictures import to_tensor
from backend.diffusion.sampling import NOISIEST
from backend.synthesis import blend
from backend.synthesis.blend import Image, Mask
from backend.synthesis.perturb import gaussian
from backend.synthesis.prior import levels, stable
from backend.synthesis.prior.fit import Fit, fit
from backend.synthesis.prior.stable import Prior

FORWARD = 1 << 18        # pixels in one forward on a CPU, four of 256 px; sixteen times that on a GPU
Tick = Callable[[], None]


# ---- pictures of any size

def redraw(prior: Prior, pictures: Sequence[Image], masks: Sequence[Mask] | None, prompts: Sequence[str], seeds: Sequence[int], *,
           strength: float, guidance: float, steps: int, each: Tick | None = None) -> list[Image]:
    """Pictures (h, w, 3) drawn again, each at its own size; with masks (h, w) inside these only, and not a pixel outside differs.

    Grey ones stay grey, and levels that drifted come back (see `levels`). `each` is called after every step: it may raise, to cancel.
    """
    assert len(pictures) == len(prompts) == len(seeds) and (masks is None or len(masks) == len(pictures)), "one of each for a picture"
    fits = [fit(prior, *p.shape[:2]) for p in pictures]
    found: dict[int, Image] = {}
    for group in _groups(prior, fits):
        seen = [fits[i].picture(pictures[i]) for i in group]
        inside = None if masks is None else [fits[i].mask(masks[i]) for i in group]
        drawn = _draw(prior, [prompts[i] for i in group], _generators([seeds[i] for i in group]), images=to_tensor(np.stack(seen)),
                      masks=None if inside is None else torch.from_numpy(np.stack(inside)[:, None]).float(), strength=strength,
                      guidance=guidance, steps=steps, size=None, each=each)
        for k, (i, result) in enumerate(zip(group, _levels(drawn), strict=True)):
            source = seen[k].astype(np.float32)
            result = levels.drift(result, source) if inside is None else levels.seam(result, source, inside[k])
            result = levels.grey(result) if levels.is_grey(pictures[i]) else result
            own = fits[i].back(_pixels(result))
            found[i] = own if masks is None else blend.blend(pictures[i], own, masks[i], 1.0)
    return [found[i] for i in range(len(pictures))]


def invent(prior: Prior, prompts: Sequence[str], seeds: Sequence[int], size: tuple[int, int], guidance: float, steps: int, grey: bool,
           each: Tick | None = None) -> list[Image]:
    """Pictures of one size (h, w) from noise, without colour where `grey`."""
    assert len(prompts) == len(seeds), "one prompt and one seed for a picture"
    shape, found = fit(prior, *size), list[Image]()
    for group in _groups(prior, [shape] * len(seeds)):
        drawn = _draw(prior, [prompts[i] for i in group], _generators([seeds[i] for i in group]), images=None, masks=None, strength=1.0,
                      guidance=guidance, steps=steps, size=shape.padded, each=each)
        found += [shape.back(_pixels(levels.grey(result) if grey else result)) for result in _levels(drawn)]
    return found


def _groups(prior: Prior, fits: Sequence[Fit]) -> Iterator[list[int]]:
    """Numbers of pictures that share a size for the network, as many as a forward holds."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, one in enumerate(fits):
        alike[one.padded].append(i)
    for (height, width), group in alike.items():
        n = max(1, FORWARD * (1 if prior.device.type == "cpu" else 16) // (height * width))
        yield from (group[k:k + n] for k in range(0, len(group), n))


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _levels(drawn: Tensor) -> list[levels.Levels]:
    """Images (B, 3, H, W), -1 to 1, as levels 0 to 255 (H, W, 3)."""
    return list(((drawn + 1) * 127.5).permute(0, 2, 3, 1).numpy())


def _pixels(result: levels.Levels) -> Image:
    return np.rint(np.clip(result, 0, 255)).astype(np.uint8)


# ---- tensors

def draw(prior: Prior, prompts: Sequence[str], generators: Sequence[torch.Generator], *, images: Tensor | None = None,
         masks: Tensor | None = None, strength: float = 1.0, guidance: float = 1.0, steps: int = 20, size: tuple[int, int] | None = None,
         each: Tick | None = None) -> Tensor:
    """Images (B, 3, H, W), -1 to 1, float32 on the CPU, one for each prompt and CPU generator.

    No `images`: from noise, of `size` (H, W). `images` (B, 3, H, W): noised to `strength` of the trajectory first. `masks` (B, 1, H, W)
    too: only where they are 1 does anything change, fading in at their rim. Sides are multiples of `stable.multiple`. Exactly
    `steps` steps, whatever the strength, fewer where the trajectory holds fewer; guidance 1 or less is without.
    """
    drawn = _draw(prior, prompts, generators, images=images, masks=masks, strength=strength, guidance=guidance, steps=steps, size=size,
                  each=each)
    return drawn if images is None or masks is None else torch.lerp(images.cpu().float(), drawn, _rims(masks.cpu()))


@torch.no_grad()
def _draw(prior: Prior, prompts: Sequence[str], generators: Sequence[torch.Generator], *, images: Tensor | None, masks: Tensor | None,
          strength: float, guidance: float, steps: int, size: tuple[int, int] | None, each: Tick | None) -> Tensor:
    """As `draw`, without the paste."""
    assert (images is None) == (size is not None) and (masks is None or images is not None), "noise start has a size, the others images"
    height, width = images.shape[-2:] if images is not None else size or (0, 0)
    assert height % stable.multiple(prior) == 0 == width % stable.multiple(prior), f"sides are no multiples: {height}, {width}"
    small = height // stable.factor(prior), width // stable.factor(prior)
    noise = gaussian((len(prompts), prior.unet.config.in_channels, *small), generators).to(prior.device)          # (B, c, h, w)
    known = None if images is None else stable.latents(prior, images)                                             # (B, c, h, w)
    free = None if masks is None else F.adaptive_max_pool2d(masks.to(noise), small)                               # (B, 1, h, w)
    chain = solver(prior, steps, strength if known is not None else 1.0)
    states = _states(prior, prompts, guidance)
    x = noise if known is None else _noised(prior, known, noise, chain.timesteps[0])
    for t, after in zip(chain.timesteps, [*chain.timesteps[1:], None], strict=True):
        x = chain.step(_told(prior, x, t, states, guidance), t, x).prev_sample
        if free is not None and known is not None:
            x = torch.lerp(known if after is None else _noised(prior, known, noise, after), x, free)
        if each is not None:
            each()
    return stable.pictures(prior, x).cpu()


def solver(prior: Prior, steps: int, strength: float) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on the prior's own noise schedule, from `strength` of its trajectory down to a clean image."""
    config = prior.schedule.config
    chain = DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2)
    signal = prior.schedule.alphas_cumprod
    usable = int((0.5 * (signal / (1 - signal)).log() >= NOISIEST).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)        # diffusers 0.42 hands numpy a tensor in the old way
        chain.set_timesteps(timesteps=timesteps(usable, steps, strength))
    return chain


def timesteps(usable: int, steps: int, strength: float) -> list[int]:
    """`steps` timesteps evenly down from `strength` of `usable` ones, "trailing" (Lin et al. 2024): the first is where the noise is."""
    depth = max(1.0, usable * min(strength, 1.0))
    return sorted({max(0, round(depth * i / steps) - 1) for i in range(1, steps + 1)}, reverse=True)


def _states(prior: Prior, prompts: Sequence[str], guidance: float) -> Tensor:
    """Hidden states of the prompts (B, L, D), before them those of no words where there is guidance: (2B, L, D). Each text once."""
    wanted = [*([""] * len(prompts) if guidance > 1 else []), *prompts]
    different = list(dict.fromkeys(wanted))
    return stable.encode(prior, different)[[different.index(p) for p in wanted]]


def _told(prior: Prior, x: Tensor, t: Tensor, states: Tensor, guidance: float) -> Tensor:
    """What the UNet says of noised latents, in one forward; with guidance (Ho & Salimans 2022) beyond what it says without words."""
    seen = torch.cat([x, x]) if guidance > 1 else x
    told = prior.unet(seen.to(prior.dtype, memory_format=torch.channels_last), t, encoder_hidden_states=states).sample.float()
    if guidance <= 1:
        return told
    plain, worded = told.chunk(2)
    return plain + guidance * (worded - plain)


def _noised(prior: Prior, known: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    return prior.schedule.add_noise(known, noise, t.expand(len(known)).to(known.device))


def _rims(masks: Tensor) -> Tensor:
    """Masks (B, 1, H, W) that fade in from their edge inwards, as `blend.blend` does."""
    inside = [cv2.distanceTransform((mask[0] > 0.5).numpy().astype(np.uint8), cv2.DIST_L2, 3) for mask in masks]
    return torch.from_numpy(np.minimum(1, np.stack(inside)[:, None] / blend.RIM)).float()
