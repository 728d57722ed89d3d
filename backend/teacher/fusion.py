"""The DDPM's features enter the detector: reduced, spectrally filtered, and fused into three levels of its backbone.

Yu 2024 (D3N, arXiv 2408.13845) names the parts: an FFT filter on the decoded features, a dynamic cross-attention that merges
them into the detector. No equation of it could be read: every shape, width and start value below is our choice.
Stands between the repository's decoder (maps of source images, before the warp) and the detector's backbone (contexts of
network inputs, after it). The decoder's last layer only widens, and what comes first here narrows again: where the layer is
handed over as an `Expansion`, both are multiplied into one. Knows nothing of repositories, augmentation or YOLO: maps come in,
maps go out.

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

# The 1×1 layer that made features of narrower maps: weight (sum of widths, c), bias (sum of widths,). None: they are the features.
Expansion = tuple[Tensor, Tensor] | None

# Gates and the filter's gains are kept as parameter / FAST. Plain SGD then moves them FAST² = 20 times as far a step: clipped
# gradients and a learning rate of 0.01 brought gates to 0.03 in 90 steps on NEU-DET, and what lies behind a gate learns only as
# fast as it opens; with 20 times the rate they were at 0.4, and the class loss of the same batches 2.7 rather than 3.3. MuSGD moves the
# gates, of one dimension, as SGD does; gains, of two, it also moves by orthogonalised steps, for which FAST² was not measured.
FAST = 4.5


class SpectralFilter(nn.Module):
    """Learnable real gains per channel over radial frequency: no direction preferred, no shift, any map size.

    What is learnt is the difference from 1: the start is the exact identity, and weight decay leads back to it.
    """

    def __init__(self, channels: int, bins: int = BINS) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(channels, bins))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same in float32, channels last.

        What rfft2, gains and irfft2 do (a test). But the gains are real and equal at ±fy and at ±fx, so that sines and cosines
        along each side are enough: four small products, of 48 maps of 64 channels at 25 x 25 with their gradients 30 ms on a
        core, where the transforms take 50.
        """
        with torch.autocast(maps.device.type, enabled=False):                                   # eight bits are too few here
            maps = maps.float().permute(0, 2, 3, 1)                                             # (N, H, W, C)
            (along_y, fy), (along_x, fx) = (_waves(n, maps.device) for n in maps.shape[1:3])    # (H, H), (H,), (W, W), (W,)
            gains = FAST * torch.einsum("byx,cb->yxc", self._tents(fy, fx), self.delta)         # (H, W, C)
            spectrum = _across(along_x, _down(along_y, maps))                                   # (N, H, W, C)
            changed = _down(along_y.T, _across(along_x.T, spectrum * gains))
            return (maps + changed).permute(0, 3, 1, 2)

    def _tents(self, fy: Tensor, fx: Tensor) -> Tensor:
        """The share of each bin in each frequency: (bins, H, W), sums over bins are 1."""
        bins = torch.arange(self.delta.shape[1], device=fy.device)
        radius = torch.hypot(fy[:, None], fx[None]) / math.sqrt(0.5)                     # 0 mean … 1 finest diagonal
        return (1 - (radius * (len(bins) - 1) - bins[:, None, None]).abs()).clamp(min=0)


def _waves(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The orthonormal real Fourier basis of n cells: rows mean, cosine, sine, cosine … (n, n), and their frequencies (n,)."""
    row, cell = torch.arange(n, device=device), torch.arange(n, device=device)
    frequency = (row + 1) // 2 / n
    turns = 2 * math.pi * frequency[:, None] * cell
    waves = torch.where(row[:, None] % 2 == 1, turns.cos(), turns.sin())
    waves[0] = 1
    return waves / waves.norm(dim=1, keepdim=True), frequency


def _down(matrix: Tensor, maps: Tensor) -> Tensor:
    """The matrix on every column of (N, H, W, C)."""
    return torch.bmm(matrix.expand(len(maps), -1, -1), maps.flatten(2)).view(maps.shape)


def _across(matrix: Tensor, maps: Tensor) -> Tensor:
    """The matrix on every row of (N, H, W, C)."""
    rows = maps.flatten(0, 1)
    return torch.bmm(matrix.expand(len(rows), -1, -1), rows).view(maps.shape)


class TapReduction(nn.Module):
    """One 1×1 convolution per tap, each from its own channels only, so that weights over taps mean something afterwards."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.widths = list(widths)
        start = torch.cat([torch.randn(width, n) / math.sqrt(n) for n in widths], 1)     # standardised in, about unit variance out
        self.weight = nn.Parameter(start)                                                # (width, sum of widths)
        self.bias = nn.Parameter(torch.zeros(width * len(self.widths)))

    def forward(self, features: Tensor, expansion: Expansion = None) -> Tensor:
        """(N, sum of widths, H, W), or (N, c, H, W) with the layer that would make that of them -> (N, taps * width, H, W)."""
        if expansion is not None:
            weight, bias = self.folded(*expansion)
            return F.linear(features.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
        assert features.shape[1] == sum(self.widths), f"{features.shape[1]} channels for taps of {self.widths}"
        own = zip(self.weight.split(self.widths, 1), features.flatten(2).split(self.widths, 1), strict=True)
        # bmm takes half the time of matmul or conv2d here: the maps are read once, and as they lie
        reduced = torch.cat([torch.bmm(weight.expand(len(tap), -1, -1), tap) for weight, tap in own], 1) + self.bias[:, None]
        return reduced.unflatten(2, features.shape[2:])

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """This after the expanding layer, as one: weight (taps * width, c), bias (taps * width,). Gradients pass to our own part.

        In a step of 48 pictures at 25 x 25 this takes 8 ms on a core, gradients included, where features of 352 channels take 15
        to be made and 36 to be read.
        """
        with torch.autocast(weight.device.type, enabled=False):                          # rounded once, when it is used
            own = list(zip(self.weight.split(self.widths, 1), weight.split(self.widths), bias.split(self.widths), strict=True))
            return torch.cat([mine @ its for mine, its, _ in own]), torch.cat([mine @ its for mine, _, its in own]) + self.bias


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
        self.learnt_with = list[Tensor]()                                                # those of each step since somebody asked

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, C, H, W), context (B, D, H, W) -> (B, C, H, W) in x's type."""
        assert x.shape[-2:] == context.shape[-2:], f"a context of {tuple(context.shape)} for a map of {tuple(x.shape)}"
        cells = self.norm(_cells(x))                                                     # (B, H * W, C)
        weights = self._weights(cells.detach().mean(1))                                 # (B, taps); they follow the map and do not shape it
        self.weights = weights.detach()
        if self.training and self.tap_weights is not None:
            self.learnt_with.append(self.weights)
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
            # in one piece it takes 18 of 23 ms on a core, but its gradient on a GPU is not the same at every run
            attention = F.scaled_dot_product_attention if query.is_cpu else _attention
            found = attention(query.float(), key.float(), value.float())
        return found.transpose(1, 2).flatten(2)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Written out. The keys are scaled, not their many products with queries: that alone would be a third of it."""
    near = (query @ (key / math.sqrt(query.shape[-1])).transpose(2, 3)).softmax(3)
    return near @ value


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

    def project(self, features: Tensor, expansion: Expansion = None) -> Tensor:
        """Features of the sources (N, sum of widths, g, g), or what the expansion makes them of -> (N, D, g, g), float32."""
        maps: Tensor = self.filter(self.reduce(features, expansion))
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

    def tap_weights(self) -> list[float]:
        """Mean weight of each tap over levels and the images learnt from since the last call; empty where weights are fixed."""
        seen = [weights for level in self.levels for weights in level.learnt_with]
        for level in self.levels:
            level.learnt_with.clear()
        found: list[float] = torch.cat(seen).mean(0).tolist() if seen else []
        return found
