"""The autoencoder of a surface prior: pictures as latents of a quarter of the sides, four channels, and back.

Rombach et al. 2022 (arXiv 2112.10752), section 3.1, without the adversary: absolute error, distance in the features of a frozen network
(EfficientNet-Lite0), and a trace of Kullback-Leibler divergence. After training each channel is brought to mean 0 and deviation 1 inside
the network's own 1x1 convolutions, so that the scaling factor is 1. Knows nothing of words or of noise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from backend.diffusion import pictures
from backend.synthesis.prior.learner import Learner, calm
from backend.synthesis.prior.supply import Supply
from backend.teacher.extractors import Lite

FACTOR = 4               # pixels to a latent, along a side
CHANNELS = 4
FEATURES = 0.3           # weight of the feature distance beside the absolute error, our choice: more looks sharper and measures worse
DIVERGENCE = 1e-5        # weight of the divergence, per number; LDM has 1e-6 of sums, which is less still
START = -6.0             # log of the latents' variance at first: with 0, noise as strong as the latents hides them for hundreds of steps
STEADY = 3.0             # deviation of those constants; pictures are within -1 to 1
RATE = 3.0               # times the config's learning rate, which suits the diffusion network: 1e-3 learned faster than 2e-3
MEASURED = 256           # crops that mean and deviation are measured on


@dataclass(frozen=True)
class Coder:
    """Size and length of an autoencoder's training."""

    widths: tuple[int, int, int]
    crop: int            # convolutions are the same everywhere: small crops teach them as much, at less cost
    batch: int
    steps: int


def network(widths: tuple[int, ...], crop: int) -> AutoencoderKL:
    """Random weights: seed first. No attention: it would make a pixel depend on the size of the picture."""
    n = len(widths)
    assert 2 ** (n - 1) == FACTOR
    made = AutoencoderKL(
        block_out_channels=tuple(widths), down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        layers_per_block=1, latent_channels=CHANNELS, norm_num_groups=8, sample_size=crop, scaling_factor=1.0, force_upcast=False,
        mid_block_add_attention=False)
    assert made.quant_conv is not None and made.quant_conv.bias is not None
    with torch.no_grad():
        made.quant_conv.weight[CHANNELS:] = 0
        made.quant_conv.bias[CHANNELS:] = START
    calm(made)
    _let_levels_through(made.encoder.conv_norm_out, made.encoder.mid_block.resnets[-1].conv2)
    _let_levels_through(made.decoder.conv_norm_out, made.decoder.up_blocks[-1].resnets[-1].conv2)
    return made


@torch.no_grad()
def _let_levels_through(norm: Any, before: Any) -> None:
    """Let the last normalisation begin as almost none: it would take brightness and contrast out of a picture, which the network then
    needs a thousand steps to bring back. Channels get constants of both signs, which set the deviation, and lose them behind it."""
    signs = torch.ones(norm.num_channels)
    signs[::2] = -1
    before.bias.copy_(STEADY * signs)
    norm.weight.fill_(STEADY)
    norm.bias.copy_(1 - STEADY * signs)                                   # 1: where SiLU is nearly straight


class Training(Learner):
    """Learns to see and to draw again."""

    STREAM, NAME = 1, "autoencoder_loss"

    def __init__(self, coder: Coder, crop: int, supply: Supply, file: Path, rate: float, seed: int, device: str, bf16: bool) -> None:
        self.coder, self.supply, self.device, self.bf16 = coder, supply, device, bf16
        torch.manual_seed(seed)
        self.vae = network(coder.widths, crop).to(device, memory_format=torch.channels_last).train()
        self.lite = Lite().frozen().to(device)
        super().__init__({"vae": self.vae}, list(self.vae.parameters()), file, coder.steps, RATE * rate, seed)

    def loss(self, rng: np.random.Generator) -> Tensor:
        images = self.supply.crops(rng, self.coder.batch, self.coder.crop)                            # (B, 3, S, S)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            told = self.vae.encode(images).latent_dist                                          # (B, 4, S/4, S/4)
            drawn = self.vae.decode(told.sample(generator)).sample                              # (B, 3, S, S)
            features = self._features(drawn, images)
        divergence = told.kl().mean() / told.mean[0].numel()
        return (drawn.float() - images).abs().mean() + FEATURES * features + DIVERGENCE * divergence

    def _features(self, drawn: Tensor, images: Tensor) -> Tensor:
        """Mean distance of the features, level by level, each in units of the pictures' own."""
        with torch.no_grad():
            wanted = self.lite(images / 2 + 0.5)
        pairs = [(a.float(), b.float()) for a, b in zip(self.lite(drawn / 2 + 0.5), wanted, strict=True)]
        return torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs]).mean()


# ---- after training

@torch.no_grad()
def normalise(vae: AutoencoderKL, supply: Supply, crop: int, rng: np.random.Generator) -> None:
    """Bring each channel of the latents to mean 0 and deviation 1. Exact: both convolutions at the latents are linear and of one pixel."""
    assert vae.quant_conv is not None and vae.post_quant_conv is not None
    found = torch.cat([vae.encode(supply.crops(rng, 16, crop).to(vae.device)).latent_dist.mean for _ in range(MEASURED // 16)])
    mean, deviation = found.mean((0, 2, 3)), found.std((0, 2, 3))                               # (4,) each
    into, back, n = vae.quant_conv, vae.post_quant_conv, CHANNELS
    assert into.bias is not None and back.bias is not None
    back.bias += (back.weight[:, :, 0, 0] * mean).sum(1)
    back.weight *= deviation[None, :, None, None]
    into.weight[:n] /= deviation[:, None, None, None]
    into.bias[:n] = (into.bias[:n] - mean) / deviation
    into.bias[n:] -= 2 * deviation.log()                                                        # these tell the log of the variance


@torch.no_grad()
def pairs(vae: AutoencoderKL, supply: Supply, rng: np.random.Generator, n: int, side: int) -> tuple[np.ndarray[Any, Any], float]:
    """Crops beside what comes back of them, uint8 (n, side, 2 side, 3), and the mean PSNR in dB."""
    images = supply.crops(rng, n, side)
    drawn = vae.decode(vae.encode(images.to(vae.device)).latent_dist.mean).sample.float().cpu().clamp(-1, 1)
    psnr = -10 * torch.log10(((drawn - images) / 2).square().mean((1, 2, 3))).mean()
    return np.concatenate([pictures.to_pixels(images), pictures.to_pixels(drawn)], 2), round(float(psnr), 2)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
