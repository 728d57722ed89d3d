"""Patches of good images that are remembered, and how far a patch lies from the nearest of them: the third map of an anomaly model.

Method: PatchCore (arXiv 2106.08265, CVPR 2022), section 3, with the frozen teacher as its network. Beside the student it is our own
addition: the student tells what a patch should look like *here*, and outlines well; a memory tells whether such a patch was ever seen,
learns nothing, and so is never fooled by what made defects look like. Knows nothing of students, losses or thresholds.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 8                 # stride of a patch; the teacher's coarser levels are enlarged to it, a finer one is not asked (section 3.1)
AROUND = 3               # patches a side that one is averaged with (section 3.1)
DRAWN = 40_000           # patches, at most, that the remembered ones are chosen from: of 700 images at 256 px one in eighteen
PROJECTED = 64           # dimensions in which they are chosen (section 3.2)


class Memory(nn.Module):
    """Standardised maps of the teacher to (B, 1, h, w), the distance to the nearest of `size` patches, on the grid of stride 8."""

    def __init__(self, widths: Sequence[int], grids: Sequence[int], size: int) -> None:
        super().__init__()
        self.levels = [i for i, grid in enumerate(grids) if grid >= GRID] or list(range(len(grids)))
        self.register_buffer("patches", torch.zeros(size, sum(widths[i] for i in self.levels)))

    def forward(self, seen: Sequence[Tensor], side: int) -> Tensor:
        """`side` is of the images."""
        asked, known = self.described(seen, side), self.get_buffer("patches")                    # (B, C, h, w), (size, C)
        # |a - k|² = |a|² + (|k|² - 2 a·k), the bracket as a 1×1 convolution: any runtime is fast at that
        nearest = F.conv2d(asked, -2 * known[:, :, None, None], known.square().sum(1)).amin(1, keepdim=True)
        return (asked.square().sum(1, keepdim=True) + nearest).clamp(min=0).sqrt()

    def described(self, seen: Sequence[Tensor], side: int) -> Tensor:
        """(B, C, side / GRID, side / GRID): each patch with its neighbours, all levels in one. Beyond the edge stands the average patch: a
        network's features at edges vary with its padding, and made good tiles look stranger than drawn defects (image AUROC of held-out
        tiles against these 54, and so 71)."""
        around = [F.avg_pool2d(seen[i], AROUND, 1, AROUND // 2) for i in self.levels]            # 0, which is the standardised average
        size = (side // GRID, side // GRID)
        return torch.cat([m if m.shape[-2:] == size else F.interpolate(m, size, mode="bilinear", align_corners=False) for m in around], 1)

    @torch.no_grad()
    def fill(self, batches: Iterable[Sequence[Tensor]], images: int, side: int, seed: int) -> None:
        """Remember patches of good images, of which there are so many, from the teacher's standardised maps of them, batch by batch."""
        dice = torch.Generator().manual_seed(seed)
        each = max(1, DRAWN // max(1, images))                                                   # as many of every image
        found = []
        for seen in batches:
            patches = self.described([m.cpu() for m in seen], side).flatten(2).transpose(1, 2)   # (B, patches, C)
            found += [one[torch.randperm(len(one), generator=dice)[:each]] for one in patches]
        every, size = torch.cat(found), len(self.get_buffer("patches"))
        chosen = farthest(every, min(size, len(every)), dice)
        self.get_buffer("patches").copy_(every[chosen][torch.arange(size) % len(chosen)])        # where there are fewer: some twice


def farthest(patches: Tensor, n: int, dice: torch.Generator) -> Tensor:
    """Indices of n patches (N, C), each the farthest from those before it, in a random projection (section 3.2): what is rare is kept."""
    points = patches @ torch.randn(patches.shape[1], PROJECTED, generator=dice) / PROJECTED**0.5
    chosen, distance = [0], (points - points[0]).square().sum(1)
    while len(chosen) < n:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)
