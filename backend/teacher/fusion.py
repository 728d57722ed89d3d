"""The DDPM's features enter the detector: reduced, spectrally filtered, and fused into three levels of its backbone.

Yu 2024 (D3N, arXiv 2408.13845) names the parts: an FFT filter on the decoded features, a dynamic cross-attention that merges
them into the detector. No equation of it could be read: every shape, width and start value below is our choice.
Stands between the repository's decoder (maps of source images, before the warp) and the detector's backbone (contexts of
network inputs, after it). Knows nothing of repositories, augmentation or YOLO: maps come in, maps go out.

At the start every gate is zero, and every fused map equals the detector's own, bit by bit.
A *tap* is one (timestep, block) of the denoiser; D = taps * width channels are what is kept of all of them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BINS = 16           # radial frequencies with a gain of their own; linear between them
INNER = 64          # channels inside a level's fusion
HEADS = 4
KEYS = 7            # longest side of the keys' grid; 14 costs 40 ms more in a step of 16 images at 224 px on one core, of 400
LEVELS = ("p3", "p4", "p5")

# Gates and the filter's gains are kept as parameter / FAST. Plain SGD then moves them FAST² = 20 times as far a step: clipped
# gradients and a learning rate of 0.01 brought gates to 0.03 in 90 steps on NEU-DET, and what lies behind a gate learns only as
# fast as it opens; with 20 times the rate they were at 0.4, and the class loss of the same batches 2.7 rather than 3.3.
FAST = 4.5


class SpectralFilter(nn.Module):
    """Learnable real gains per channel over radial frequency: no direction preferred, no shift, any map size.

    What is learnt is the difference from 1: the start is the exact identity, and weight decay leads back to it.
    """

    def __init__(self, channels: int, bins: int = BINS) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(channels, bins))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same in float32; no FFT knows bfloat16."""
        size = maps.shape[-2:]
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            gains = FAST * self.delta @ self._tents(size)                                       # (C, H * (W // 2 + 1))
            spectrum = torch.fft.rfft2(maps)                                             # (N, C, H, W // 2 + 1)
            return torch.fft.irfft2(spectrum * gains.view(spectrum.shape[1:]), s=size).add_(maps)

    def _tents(self, size: Sequence[int]) -> Tensor:
        """The share of each bin in each frequency: (bins, H * (W // 2 + 1)), columns sum to 1."""
        bins, device = self.delta.shape[1], self.delta.device
        y, x = torch.fft.fftfreq(size[0], device=device), torch.fft.rfftfreq(size[1], device=device)
        radius = torch.hypot(y[:, None], x[None]).flatten() / math.sqrt(0.5)             # 0 mean … 1 finest diagonal
        return (1 - (radius * (bins - 1) - torch.arange(bins, device=device)[:, None]).abs()).clamp(min=0)


class TapReduction(nn.Module):
    """One 1×1 convolution per tap, each from its own channels only, so that weights over taps mean something afterwards."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.widths = list(widths)
        start = torch.cat([torch.randn(width, n) / math.sqrt(n) for n in widths], 1)     # standardised in, about unit variance out
        self.weight = nn.Parameter(start)                                                # (width, sum of widths)
        self.bias = nn.Parameter(torch.zeros(width * len(self.widths)))

    def forward(self, features: Tensor) -> Tensor:
        """(N, sum of widths, H, W) -> (N, taps * width, H, W)."""
        assert features.shape[1] == sum(self.widths), f"{features.shape[1]} channels for taps of {self.widths}"
        own = zip(self.weight.split(self.widths, 1), features.flatten(2).split(self.widths, 1), strict=True)
        # bmm takes half the time of matmul or conv2d here: the maps are read once, and as they lie
        reduced = torch.cat([torch.bmm(weight.expand(len(tap), -1, -1), tap) for weight, tap in own], 1) + self.bias[:, None]
        return reduced.unflatten(2, features.shape[2:])


class TapWeights(nn.Module):
    """How much each tap counts for an image: softmax of a small MLP on the mean of the detector's map. Near uniform at first."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(channels, 32), nn.Linear(32, taps)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, mean: Tensor) -> Tensor:
        """(B, C) -> (B, taps), float32, rows sum to 1."""
        return self.out(F.silu(self.hidden(mean))).float().softmax(1)


class CrossFusion(nn.Module):
    """One level: x + gate * out, where out joins two readings of the context.

    Attention: every cell of the detector's map asks the whole context, pooled to at most 7×7 keys.
    Cell by cell: a 1×1 and a depthwise 3×3 convolution carry the feature that lies at a cell to that cell.
    Normalised over the channels of each cell, so nothing depends on the rest of the batch or on train and eval.
    """

    def __init__(self, channels: int, taps: int, width: int, dynamic: bool) -> None:
        super().__init__()
        self.taps, self.width = taps, width
        self.tap_weights = TapWeights(channels, taps) if dynamic else None
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, INNER)
        self.key_value = nn.Linear(taps * width, 2 * INNER, bias=False)                  # softmax cancels a bias of the keys
        self.local = nn.Conv2d(taps * width, INNER, 1)
        self.around = nn.Conv2d(INNER, INNER, 3, padding=1, groups=INNER)
        nn.init.dirac_(self.around.weight, groups=INNER)                                 # at first a cell reads itself
        self.norm_out = nn.LayerNorm(INNER)                                              # out near unit scale: gates can be compared
        self.out = nn.Linear(INNER, channels)
        self.gate = nn.Parameter(torch.zeros(channels))
        self.weights: Tensor | None = None                                               # (B, taps) of the last call, to look at

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, C, H, W), context (B, D, H, W) -> (B, C, H, W) in x's type."""
        assert x.shape[-2:] == context.shape[-2:], f"a context of {tuple(context.shape)} for a map of {tuple(x.shape)}"
        cells = self.norm(_cells(x))                                                     # (B, H * W, C)
        weights = self._weights(cells.detach().mean(1))                                 # (B, taps); they follow the map and do not shape it
        self.weights = weights.detach()
        factors = (weights * self.taps).repeat_interleave(self.width, 1)                 # uniform weights leave the context as it is
        context = context * factors[:, :, None, None].to(context.dtype)
        local = self.around(F.silu(self.local(context)))                                 # (B, INNER, H, W)
        read = self.norm_out(self._attend(cells, context) + _cells(local))               # (B, H * W, INNER)
        gate = FAST * self.gate
        out = F.linear(read, gate[:, None] * self.out.weight, gate * self.out.bias).to(x.dtype)       # gate * out(read), cheaper
        return x + out.transpose(1, 2).unflatten(2, x.shape[-2:])

    def _weights(self, mean: Tensor) -> Tensor:
        if self.tap_weights is None:
            return torch.full((len(mean), self.taps), 1 / self.taps, device=mean.device)
        weights: Tensor = self.tap_weights(mean)
        return weights

    def _attend(self, cells: Tensor, context: Tensor) -> Tensor:
        """Queries (B, H * W, C) -> (B, H * W, INNER)."""
        window = [math.ceil(side / KEYS) for side in context.shape[-2:]]
        pooled = F.avg_pool2d(context, window, ceil_mode=True)                           # the adaptive pool cannot repeat itself on a GPU
        query = self.query(cells).unflatten(2, (HEADS, -1)).transpose(1, 2)              # (B, heads, H * W, INNER / heads)
        pairs = self.key_value(_cells(pooled)).unflatten(2, (2 * HEADS, -1)).transpose(1, 2)
        key, value = pairs.chunk(2, 1)                                                   # (B, heads, keys, INNER / heads) each
        with torch.autocast(query.device.type, enabled=False):                           # on a CPU twice as fast as its bfloat16
            # written out: the fused form's gradient on a GPU is not the same at every run
            near = (query.float() @ key.float().transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(3)
            found = near @ value.float()
        return found.transpose(1, 2).flatten(2)


def _cells(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C); a view where the map is stored channels last."""
    return maps.flatten(2).transpose(1, 2)


class Fusion(nn.Module):
    """All that the fused detector has beyond the plain one. `widths`: channels of each tap; `channels`: of P3, P4, P5.

    A step: `project` the source maps, warp them outside, `contexts` once, then `fuse` at each level.
    """

    def __init__(self, widths: Sequence[int], channels: Sequence[int], dynamic: bool = True, spectral_filter: bool = True) -> None:
        super().__init__()
        assert len(channels) == len(LEVELS)
        taps, self.width = len(widths), max(8, 64 // len(widths))
        self.reduce = TapReduction(widths, self.width)
        self.filter = SpectralFilter(taps * self.width) if spectral_filter else nn.Identity()
        self.levels = nn.ModuleList(CrossFusion(n, taps, self.width, dynamic) for n in channels)

    def project(self, features: Tensor) -> Tensor:
        """Decoded features of the sources (N, sum of widths, g, g) -> (N, D, g, g), float32."""
        maps: Tensor = self.filter(self.reduce(features))
        return maps.float()

    def contexts(self, context: Tensor) -> list[Tensor]:
        """The warped maps on the grid of P3 (B, D, H, W) -> those of P3, P4 and P5."""
        assert context.shape[-2] % 4 == 0 and context.shape[-1] % 4 == 0, "the network's input is a multiple of 32"
        p3 = context.contiguous(memory_format=torch.channels_last)
        p4 = F.avg_pool2d(p3, 2)
        return [p3, p4, F.avg_pool2d(p4, 2)]

    def fuse(self, level: int, x: Tensor, contexts: Sequence[Tensor]) -> Tensor:
        """The detector's map of level 0, 1, 2 (P3, P4, P5) with the context of its own grid."""
        fused: Tensor = self.levels[level](x, contexts[level])
        return fused

    def gates(self) -> dict[str, float]:
        """Mean |gate| of each level: 0 says that the context is not used."""
        levels = zip(LEVELS, self.levels, strict=True)
        return {f"gate_{name}": FAST * level.gate.detach().abs().mean().item() for name, level in levels}
