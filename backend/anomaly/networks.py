"""The asymmetric pair: a frozen teacher that knows images, a student from scratch that knows only what is normal here, and a
head that reads where they differ. Method: arXiv 2604.19240; the student's shape after DeSTSeg (CVPR 2023), section 3, but for one thing:
its decoder has U-Net skips at strides 4, 8 and 16, DeSTSeg's has none.

The teacher is a trunk without decoder; the student an encoder–decoder that is to give the teacher's features of the *undamaged*
image, so that on a defect the two disagree. Skips let a student of a quarter of DeSTSeg's size keep fine surfaces apart; they also make
it easier to carry a defect through, which only training on damaged images teaches it not to do. Nobody has measured here which weighs
more. Stands between the extractors and training; calibration and the bundle take
`AnomalyNet` whole. Knows nothing of data, losses or thresholds.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.anomaly.memory import GRID, Memory
from backend.teacher.extractors import Extractor
from backend.teacher.quick import See

GRIDS = (4, 8, 16)                  # strides that teacher, student and head meet on
STEM, WIDTHS = 16, (32, 48, 96, 128)         # student at strides 2, and 4, 8, 16, 32: 0.6 GMAC at 256 px
HEAD = (32, 32, 48)                 # head at strides 4, 8, 16: 0.2 GMAC. Not 24: torch 2.15's bf16 gradient of a dilated
#                                     convolution of 24 channels is no number on AVX512 (oneDNN); of 16, 32 and 48 it is right
FLOOR = 0.1                         # of a level's median deviation: below it a channel is as good as constant
RARE = 0.01                         # share of pixels that the untrained head calls defective (RetinaNet, section 4.1)


class AnomalyNet(nn.Module):
    """images (B, 3, S, S) 0..1 to (cosine_map, segmentation_logit), each (B, 1, m, m) with m = S // 4; higher is more anomalous.

    cosine_map: mean over the levels of 1 - cosine of teacher and student, 0..2. With loss "cosine" the head has learned nothing
    and segmentation_logit is the cosine map again; with loss "segmentation" the student was never asked for the teacher's
    features and cosine_map is the head's probability, 0..1. With a memory of so many patches there is a third: the distance to
    the nearest of them, which `remember` fills.
    """

    def __init__(self, extractor: Extractor, loss: str = "both", memory: int = 0) -> None:
        super().__init__()
        assert loss in ("both", "cosine", "segmentation"), loss
        self.extractor, self.loss = extractor, loss
        self.grids = [min(max(s, GRIDS[0]), GRIDS[-1]) for s in extractor.strides]
        assert set(self.grids) <= set(GRIDS), f"strides are powers of two, not {extractor.strides}"
        self.student = Student(extractor.widths, self.grids)
        self.head = Head(extractor.widths, self.grids)
        self.memory = Memory(extractor.widths, self.grids, memory) if memory else None
        for level, width in enumerate(extractor.widths):
            self.register_buffer(f"mean{level}", torch.zeros(1, width, 1, 1))
            self.register_buffer(f"deviation{level}", torch.ones(1, width, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        seen, told = self.teacher(images), self.student(images)
        two = self.disagreement(seen, told, images.shape[-1] // GRIDS[0])
        return two if self.memory is None else (*two, enlarged(self.memory(seen, images.shape[-1]), GRID // GRIDS[0]))

    def disagreement(self, seen: Sequence[Tensor], told: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor]:
        """Of teacher and student: the cosine map and the segmentation's logit."""
        if self.loss == "segmentation":
            logit = self.head(seen, told)
            return logit.sigmoid(), logit
        cosine = self.cosine_map(seen, told, side)
        return cosine, cosine if self.loss == "cosine" else self.head(seen, told)

    def teacher(self, images: Tensor) -> list[Tensor]:
        """Features of the frozen network, each channel standardised by `measure`: (B, C, S/s, S/s), s in GRIDS."""
        return self.standardised(self.extractor(images), images.shape[-1])

    def standardised(self, seen: Iterable[Tensor], side: int) -> list[Tensor]:
        """The same of maps that were seen elsewhere, in images of this side."""
        found = []
        for level, maps in enumerate(seen):
            maps = on_grid(maps.float(), side // self.grids[level])
            found.append((maps - self.get_buffer(f"mean{level}")) / self.get_buffer(f"deviation{level}"))
        return found

    def cosine_map(self, seen: Sequence[Tensor], told: Sequence[Tensor], side: int) -> Tensor:
        """(B, 1, side, side)."""
        maps = [F.interpolate(distance(t, s), (side, side), mode="bilinear", align_corners=False) for t, s in zip(seen, told, strict=True)]
        return torch.stack(maps).mean(0)

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor], see: See) -> None:
        """Take mean and deviation of every channel of the teacher, which `see` is, from good images, batches of (B, 3, S, S)."""
        sums: list[list[Tensor]] = []
        for images in batches:
            maps = [on_grid(m, images.shape[-1] // g).double() for m, g in zip(see(images), self.grids, strict=True)]
            sums.append([len(m) * torch.stack([m.mean((0, 2, 3)), m.square().mean((0, 2, 3)), torch.ones_like(m[0, :, 0, 0])])
                         for m in maps])
        for level, parts in enumerate(zip(*sums, strict=True)):
            total, squares, n = torch.stack(parts).sum(0)                                        # (C,) each
            mean = total / n
            deviation = (squares / n - mean.square()).clamp(min=0).sqrt()
            deviation = deviation.clamp(min=max(1e-6, FLOOR * float(deviation.median())))
            self.get_buffer(f"mean{level}").copy_(mean[None, :, None, None])
            self.get_buffer(f"deviation{level}").copy_(deviation[None, :, None, None])

    def remember(self, batches: Iterable[Tensor], images: int, side: int, see: See, seed: int) -> None:
        """Fill the memory, if there is one, from good images, of which there are so many: batches of (B, 3, side, side)."""
        if self.memory is not None:
            self.memory.fill((self.standardised(see(some), side) for some in batches), images, side, seed)

    def train(self, mode: bool = True) -> "AnomalyNet":
        """The teacher stays as it is, its batch statistics too."""
        super().train(mode)
        self.extractor.eval()
        return self


def on_grid(maps: Tensor, side: int) -> Tensor:
    """Feature maps (B, C, h, w) on (side, side): averaged where finer, bilinear where coarser."""
    if maps.shape[-1] == side:
        return maps
    if maps.shape[-1] > side:
        return F.avg_pool2d(maps, maps.shape[-1] // side)
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)


def distance(seen: Tensor, told: Tensor) -> Tensor:
    """1 - cosine of standardised features (B, C, h, w): (B, 1, h, w).

    Both get one more coordinate, constant and as long as a typical feature: a standardised feature near the average has no
    direction but noise, and on an even surface nearly all are. Our choice, made on the pictures that figures are told of; without it
    paper is as anomalous as its spots.
    """
    width = float(seen.shape[1])
    dot = (seen * told).sum(1, keepdim=True) + width
    lengths = (seen.square().sum(1, keepdim=True) + width) * (told.square().sum(1, keepdim=True) + width)
    return 1 - dot * lengths.rsqrt()


def _block(inputs: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3×3 convolution, batch normalisation (folded into it in the bundle, so free there), ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, width, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(width, width, dilation=dilation), nn.Conv2d(width, width, 3, padding=1, bias=False),
                                  nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Student(nn.Module):
    """Encoder to stride 32, decoder with skips back to stride 4, and a 1×1 reader for each of the teacher's levels."""

    def __init__(self, widths: Sequence[int], grids: Sequence[int]) -> None:
        super().__init__()
        self.grids = list(grids)
        self.stem = _block(3, STEM, 2)
        befores = (STEM, *WIDTHS[:-1])
        self.down = nn.ModuleList(nn.Sequential(_block(a, b, 2), Residual(b)) for a, b in zip(befores, WIDTHS, strict=True))
        ups = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))                              # (128, 96), (96, 48), (48, 32)
        self.up = nn.ModuleList(nn.Sequential(_block(a + b, b), Residual(b)) for a, b in ups)
        self.readers = nn.ModuleList(nn.Conv2d(WIDTHS[GRIDS.index(g)], w, 1) for g, w in zip(grids, widths, strict=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        x, kept = self.stem(images * 4 - 2), list[Tensor]()                                      # about -2..2, as ImageNet nets have it
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        decoded = dict[int, Tensor]()
        for grid, skip, layer in zip(GRIDS[::-1], kept[-2::-1], self.up, strict=True):
            x = layer(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
            decoded[grid] = x
        return [reader(decoded[grid]) for reader, grid in zip(self.readers, self.grids, strict=True)]


class Head(nn.Module):
    """Where teacher and student disagree in a way that defects do: logit (B, 1, S/4, S/4).

    Reads products of the two (DeSTSeg, section 3.3), normalised as for the cosine, whose sum they are; their differences, since
    products with a student that knows little yet say little; and the distance. From coarse to fine. No feature is handed to it by
    itself, so that it rather learns that something is there than what a made defect looks like. It is a bias, not a bar: product and
    difference of two numbers give both, but for a common sign, and a head that is trained long enough can read features from them.
    """

    def __init__(self, widths: Sequence[int], grids: Sequence[int]) -> None:
        super().__init__()
        self.grids, self.present = list(grids), sorted(set(grids))
        inputs = [sum(2 * w + 1 for w, g in zip(widths, grids, strict=True) if g == grid) for grid in self.present]
        wide = [HEAD[GRIDS.index(grid)] for grid in self.present]
        self.enter = nn.ModuleList(_enter(i, w) for i, w in zip(inputs, wide, strict=True))
        self.mix = nn.ModuleList(nn.Sequential(_block(w + coarser, w), Residual(w, 2))
                                 for w, coarser in zip(wide, [*wide[1:], 0], strict=True))
        self.last = nn.Conv2d(wide[0], 1, 1)
        nn.init.constant_(self.last.bias, float(torch.logit(torch.tensor(RARE))))

    def forward(self, seen: Sequence[Tensor], told: Sequence[Tensor]) -> Tensor:
        x = torch.empty(0)
        for i, grid in reversed(list(enumerate(self.present))):
            found = self.enter[i](torch.cat([compared(t, s) for t, s, g in zip(seen, told, self.grids, strict=True) if g == grid], 1))
            if i + 1 < len(self.present):
                found = torch.cat([found, enlarged(x, self.present[i + 1] // grid)], 1)
            x = self.mix[i](found)                                                               # (B, w, S/grid, S/grid)
        return enlarged(self.last(x), self.present[0] // GRIDS[0])                               # (B, 1, S/4, S/4)


def enlarged(maps: Tensor, times: int) -> Tensor:
    return F.interpolate(maps, scale_factor=float(times), mode="bilinear", align_corners=False) if times > 1 else maps


def compared(seen: Tensor, told: Tensor) -> Tensor:
    """(B, 2 C + 1, h, w): the C products whose sum is the cosine, times C; the C differences; the distance times 4. All of order 1."""
    width = float(seen.shape[1])
    lengths = (seen.square().sum(1, keepdim=True) + width) * (told.square().sum(1, keepdim=True) + width)
    return torch.cat([seen * told * (width * lengths.rsqrt()), seen - told, 4 * distance(seen, told)], 1)


def _enter(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
