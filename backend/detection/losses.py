"""What a student is told by its teacher beside the boxes: losses between their maps, and between their class scores.

Stands between the necks of two detectors and the sum that training descends. Gradients go to the student alone, and all is
computed in float32. Knows nothing of networks, batches or labels: a *map* is one level of a neck, (B, C, H, W).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["pkd", "cwd", "mgd"]


def pkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Cao et al. 2022 (PKD, arXiv 2207.02039), section 3: maps standardised per channel over batch and cells, then half their
    mean squared difference; that is 1 - Pearson's correlation. Neither scale nor offset of a channel counts."""
    return F.mse_loss(_standardised(student), _standardised(teacher.detach())) / 2


def _standardised(maps: Tensor) -> Tensor:
    """A channel that is constant, or nearly (variance far below 1e-8), becomes zero and not noise."""
    cells = maps.float().movedim(1, -1).flatten(0, 2)                                     # (B * H * W, C), a view of channels last
    cells = cells - cells.mean(0)
    return cells * torch.rsqrt(cells.square().mean(0) + 1e-8)                             # three times as fast as var_mean


def cwd(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """Shu et al. 2021 (CWD, arXiv 2011.13256), section 3.2: each channel of each image as a distribution over cells, KL from
    the teacher's to the student's. It tells where a channel fires, not how strongly."""
    told, wanted = ((maps.float().flatten(2) / tau).log_softmax(2) for maps in (student, teacher.detach()))     # (B, C, H * W)
    return F.kl_div(told, wanted, reduction="sum", log_target=True) * tau**2 / (student.shape[0] * student.shape[1])


class MGD(nn.Module):
    """Yang et al. 2022 (MGD, arXiv 2205.01529), section 3: cells of the student's map are blanked at random, and two 3×3
    convolutions must regenerate the teacher's whole map from the rest. They serve training only.

    The paper sums squared errors and weighs them by 2e-5; we take their mean, since `Balance` sets the weight.
    The blanks come from torch's own generator, so that they follow from the epoch's seed.
    """

    def __init__(self, channels: int, ratio: float = 0.65) -> None:
        super().__init__()
        self.ratio = ratio                                                                # share of cells that are blanked
        self.generate = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        kept = torch.rand(student[:, :1].shape, device=student.device) >= self.ratio      # (B, 1, H, W), one mask for all channels
        return F.mse_loss(self.generate(student.float() * kept).float(), teacher.detach().float())


def logits(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """Raw class scores (B, classes, anchors) of both: binary cross-entropy to the teacher's sigmoid scores.

    Our choice: each anchor counts as much as the teacher's best class there, for nearly all anchors are background, and a
    mean over them would hide the few that matter; and the teacher's own entropy is taken off, so that agreement is 0.
    """
    scores, told = student_scores.float(), teacher_scores.detach().float()
    wanted = told.sigmoid()
    confidence = wanted.amax(1)                                                           # (B, anchors)
    apart = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none") \
        - F.binary_cross_entropy_with_logits(told, wanted, reduction="none")              # (B, classes, anchors), never below 0
    return (apart.sum(1) * confidence).sum() / confidence.sum().clamp(min=1e-6)


class Neck(nn.Module):
    """One of the three losses at every level, as their mean: no level outweighs another (our choice).

    A level whose student has another number of channels than its teacher gets a 1×1 convolution, learnt along. Save the state
    beside the student's; for the student's deployment it is not needed.
    """

    def __init__(self, kind: Kind, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__()
        widths = list(zip(student_channels, teacher_channels, strict=True))
        self.adapt = nn.ModuleList(nn.Identity() if mine == its else nn.Conv2d(mine, its, 1) for mine, its in widths)
        self.generators = nn.ModuleList(MGD(its) for _, its in widths) if kind == "mgd" else None
        self.kind = kind

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """Maps of each level, finest first -> the loss."""
        levels = zip(self.adapt, students, teachers, strict=True)
        with torch.autocast(students[0].device.type, enabled=False):
            return torch.stack([self._loss(i, adapt(mine.float()), its) for i, (adapt, mine, its) in enumerate(levels)]).mean()

    def _loss(self, level: int, student: Tensor, teacher: Tensor) -> Tensor:
        assert student.shape == teacher.shape, f"level {level}: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        if self.generators is None:
            return (pkd if self.kind == "pkd" else cwd)(student, teacher)
        loss: Tensor = self.generators[level](student, teacher)
        return loss


class Balance(nn.Module):
    """The factor that brings a term to the size of the box loss, so that a weight of 1.0 means "as much as the boxes at first".

    Our choice: papers give a weight per detector and loss (2e-5 to 10), which here would depend on sizes and reductions. The
    factor is the ratio of both means over the first `settle` steps, and stays then: a factor that went on following would
    make the term equal to the box loss for ever, and pull the harder the nearer student and teacher come. Sums are buffers:
    saved and resumed exactly. Outside training they rest.
    """

    def __init__(self, settle: int = 200, low: float = 1e-3, high: float = 1e3) -> None:
        super().__init__()
        self.settle, self.low, self.high = settle, low, high
        for name in ("term", "box", "steps"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, term: Tensor, box: Tensor) -> Tensor:
        """A step's two losses -> the factor for the first, without gradient."""
        if self.training and self.steps < self.settle:
            self.term += term.detach().float().abs()
            self.box += box.detach().float().abs()
            self.steps += 1
        return (self.box / self.term.clamp(min=1e-12)).clamp(self.low, self.high)
