"""A residual convolutional VAE that compresses an image's stacked features (C, g, g) to a latent (c, g, g) and back.

D3N (arXiv 2408.13845) names a ResVAE between its feature repository and its detector and tells nothing of its shape; all below is
our choice. It starts as the principal components of the features, position by position, and its convolutions learn what is
missing from there: so it is a good compressor after few steps. The decoder is light, since training a detector runs it on every
image of every step. Fitted on features that lie on disk, read image by image. Knows nothing of images, runs or denoisers.
"""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.device import computes_bf16, torch_device
from backend.rundir import write_bytes

BATCH = 8                   # images a step: 5,000 positions
LEARNING_RATE = 2e-3        # AdamW, a cosine down to zero
WARM_UP = 50                # steps over which the learning rate rises
KL_WEIGHT = 1e-5            # nearly off, as in latent diffusion (Rombach et al. 2022, appendix G: 1e-6)
FIRST_LOGVAR = -6.0         # a spread of 0.05 where the latent itself has 1
SAMPLE = 32_768             # positions that the principal components are found from
SAVE_S = 60                 # between two checkpoints
CURVE = 20                  # steps averaged into a point of the curve

# Called after each step: (steps done, metrics). May raise Canceled.
Tell = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Basis:
    """What a plain linear compressor would use: it starts the network, and the network has to beat it."""

    mean: Tensor                     # (C,) of raw features
    std: Tensor                      # (C,)
    directions: Tensor               # (C, c): principal components of standardised features
    spreads: Tensor                  # (c,): standard deviations along them

    def rebuilt(self, features: Tensor) -> Tensor:
        """Raw features (n, C, g, g) through the principal components and back: standardised (n, C, g, g)."""
        x = (features - self.mean[:, None, None]) / self.std[:, None, None]
        return torch.einsum("nchw,cl,dl->ndhw", x, self.directions, self.directions)


def basis(features: np.ndarray, latent: int, seed: int, tell: Callable[[int], None]) -> Basis:
    """Statistics of raw features float16 (n, C, g, g) on disk, in one pass, image by image."""
    n, C = features.shape[:2]
    rng, each = np.random.default_rng(seed), max(1, min(math.prod(features.shape[2:]), math.ceil(SAMPLE / n)))
    total, squares, sample = torch.zeros(C, dtype=torch.float64), torch.zeros(C, dtype=torch.float64), []
    for i in range(n):
        tell(i)
        x = torch.from_numpy(np.array(features[i])).double().flatten(1)                          # (C, g²)
        total, squares = total + x.mean(1), squares + x.square().mean(1)
        sample.append(x[:, rng.choice(x.shape[1], each, replace=False)].float())                 # (C, each)
    mean = total / n
    std = (squares / n - mean.square()).clamp_min(1e-12).sqrt()
    x = (torch.cat(sample, 1).double() - mean[:, None]) / std[:, None]                           # (C, samples)
    values, vectors = torch.linalg.eigh(x @ x.T / x.shape[1])                                    # rising
    return Basis(mean.float(), std.float(), vectors[:, -latent:].flip(1).float().contiguous(),
                 values[-latent:].flip(0).clamp_min(1e-6).sqrt().float())


class Plain(nn.Module):
    """Standardises and compresses nothing: a control, and what the ResVAE builds on.

    `widths` are the channels of the taps, stacked in this order. Raw features go in, standardised ones come back.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: list[int], latent: int | None = None) -> None:
        super().__init__()
        self.widths, self.latent = list(widths), latent or sum(widths)
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("std", torch.ones(sum(widths)))

    @torch.no_grad()
    def start_from(self, start: Basis) -> None:
        self.mean.copy_(start.mean)
        self.std.copy_(start.std)

    def standardised(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Raw features (n, C, g, g) to the latent's mean and log variance, each (n, c, g, g)."""
        x = self.standardised(features)
        return x, torch.full_like(x, -torch.inf)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, c, g, g) to standardised features (n, C, g, g)."""
        return self.hidden(latents)

    def hidden(self, latents: Tensor) -> Tensor:
        """What `expansion` makes the features of, and all that costs: (n, fewer than C, g, g). Here the features themselves."""
        return latents.float()

    def expansion(self) -> tuple[Tensor, Tensor] | None:
        """The decoder's last layer, 1×1 and linear: weight (C, channels of `hidden`), bias (C,). None where there is no such."""
        return None


class Residual(nn.Module):
    """x + convolutions of x; adds nothing at first. No normalisation: it would cost as much as the convolutions here."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.back = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.back(F.silu(self.wide(F.silu(x))))


class ResVAE(Plain):
    """Principal components on a straight path, and beside it convolutions that see neighbours too."""

    def __init__(self, widths: list[int], latent: int, encoder: int = 128, decoder: int = 96) -> None:
        super().__init__(widths, latent)
        C = sum(widths)
        self.encoder = nn.Sequential(nn.Conv2d(C, encoder, 1), Residual(encoder), Residual(encoder))
        self.to_latent = nn.Conv2d(C + encoder, 2 * latent, 1)
        self.decoder = nn.Sequential(nn.Conv2d(latent, decoder, 1), Residual(decoder))
        self.to_features = nn.Conv2d(latent + decoder, C, 1)

    @torch.no_grad()
    def start_from(self, start: Basis) -> None:
        """Become the principal components, with latents of spread 1; the convolutions add nothing yet."""
        super().start_from(start)
        for layer in (self.to_latent, self.to_features):
            layer.weight.zero_()
            layer.bias.zero_()
        self.to_latent.weight[:self.latent, :len(start.mean), 0, 0] = (start.directions / start.spreads).T
        self.to_latent.bias[self.latent:] = FIRST_LOGVAR
        self.to_features.weight[:, :self.latent, 0, 0] = start.directions * start.spreads

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.standardised(features)
        found: Tensor = self.to_latent(torch.cat([x, self.encoder(x)], 1))                       # (n, 2c, g, g)
        mean, logvar = found.chunk(2, 1)
        return mean, logvar.clamp(-12, 4)

    def decode(self, latents: Tensor) -> Tensor:
        found: Tensor = self.to_features(self.hidden(latents))
        return found

    def hidden(self, latents: Tensor) -> Tensor:
        h = self.decoder(latents)                                                                # (n, 96, g, g)
        return torch.cat([latents.to(h.dtype), h], 1)                                            # (n, c + 96, g, g)

    def expansion(self) -> tuple[Tensor, Tensor]:
        assert self.to_features.bias is not None
        return self.to_features.weight.flatten(1), self.to_features.bias


def decoded(network: Plain, latents: Tensor) -> Tensor:
    """Latents (n, c, g, g) of any float type to standardised features (n, C, g, g): bf16 where that is native, else float32."""
    return _through(network, network.decode, latents)


def hidden(network: Plain, latents: Tensor) -> Tensor:
    """As `decoded`, up to the decoder's last layer: (n, fewer than C, g, g)."""
    return _through(network, network.hidden, latents)


@torch.no_grad()
def _through(network: Plain, part: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    bf16 = computes_bf16()
    latents = latents.to(network.mean.device, torch.bfloat16 if bf16 and isinstance(network, ResVAE) else torch.float32,
                         memory_format=torch.channels_last)
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=bf16):
        return part(latents)


def latent_channels(widths: list[int], grid: int) -> int:
    """As many as 32 KiB an image hold in float16: 16 on a grid of 32, 26 on 25; never more than 32, nor than there are features."""
    return min(32, 16_384 // grid**2, sum(widths))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between the feature vectors of two maps (n, C, g, g), mean over positions: (n,)."""
    return F.cosine_similarity(a.float(), b.float(), dim=1).mean((1, 2))


# ---- fitting

def fit(features: np.ndarray, widths: list[int], start: Basis, steps: int, seed: int, scratch: Path, tell: Tell) -> ResVAE:
    """Fit on raw features float16 (n, C, g, g) on disk, or go on where `<scratch>/resvae.pt` stands. Ready to use, on the CPU."""
    fitting = Fitting(features, widths, start, steps, seed, scratch)
    saved_at, recent = time.monotonic(), list[tuple[float, float]]()
    while fitting.step < steps:
        recent.append(fitting.advance())
        metrics = {}
        if fitting.step % CURVE == 0 or fitting.step == steps:
            loss, similar = np.mean(recent, 0)
            metrics = {"resvae_loss": float(loss), "resvae_cosine": float(similar)}
            recent.clear()
        tell(fitting.step, metrics)
        if time.monotonic() - saved_at > SAVE_S or fitting.step == steps:
            fitting.save()
            saved_at = time.monotonic()
    return fitting.network.cpu().eval().requires_grad_(False)


class Fitting:
    """Network, optimiser, steps done. Every step's randomness follows from (seed, step); the checkpoint holds the rest."""

    def __init__(self, features: np.ndarray, widths: list[int], start: Basis, steps: int, seed: int, scratch: Path) -> None:
        self.features, self.steps, self.seed, self.path = features, steps, seed, scratch / "resvae.pt"
        self.device, self.bf16, self.step = torch_device(), computes_bf16(), 0
        torch.manual_seed(seed)
        self.network = ResVAE(widths, len(start.spreads))
        self.network.start_from(start)
        self.network.to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), LEARNING_RATE, weight_decay=1e-4)
        self._take_up()

    def advance(self) -> tuple[float, float]:
        """One optimiser step; its loss and its cosine."""
        rng = np.random.default_rng([self.seed, self.step])
        rows = np.sort(rng.choice(len(self.features), min(BATCH, len(self.features)), replace=False))
        x = torch.from_numpy(np.array(self.features[rows]))                                      # float16 (n, C, g, g)
        noise = torch.randn(len(x), self.network.latent, *x.shape[2:], generator=torch.Generator().manual_seed(int(rng.integers(2**63))))
        x = x.to(self.device, torch.float32, memory_format=torch.channels_last)
        self.optimizer.param_groups[0]["lr"] = self._learning_rate()
        loss, similar = self._loss(x, noise.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.item(), similar.item()

    def _learning_rate(self) -> float:
        return LEARNING_RATE * min(1.0, (self.step + 1) / WARM_UP) * (1 + math.cos(math.pi * self.step / self.steps)) / 2

    def _loss(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of standardised features, their cosine, and a breath of KL that keeps the latent near spread 1."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            mean, logvar = self.network.encode(x)
            mean, logvar = mean.float(), logvar.float()
            decoded = self.network.decode(mean + noise * (logvar / 2).exp()).float()
        wanted = self.network.standardised(x)
        similar = cosine(decoded, wanted).mean()
        kl = (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean() / 2
        return F.mse_loss(decoded, wanted) + (1 - similar) + KL_WEIGHT * kl, similar

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, network=self.network.state_dict(), optimizer=self.optimizer.state_dict()), buffer)
        write_bytes(self.path, buffer.getvalue())

    def _take_up(self) -> None:
        if self.path.exists():
            saved = torch.load(self.path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step = saved["step"]
