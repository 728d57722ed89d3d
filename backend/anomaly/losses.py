"""What training minimises: cosine between teacher and student; focal, and Dice or L1, between the head and the masks; and whether the
score tells images with a defect from good ones.

Logits and masks are (B, 1, H, W), masks 0 or 1. Knows nothing of networks or of where masks come from.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.anomaly.calibrate import MIDDLE, SHARES, cells_of, smoothed
from backend.anomaly.calibrate import SMOOTH as SMOOTHING
from backend.anomaly.networks import distance

GAMMA = 2.0              # Lin et al. 2017 (arXiv 1708.02002), section 5.1; DeSTSeg takes 4, with which faint defects hardly count
HARDEST = 0.1            # share of an image's pixels that the focal loss is taken over; GLASS (ECCV 2024) takes half. Most are easy
WHOLE = 0.5              # weight of the whole image's term, our choice: its cross-entropy begins near 1, Dice near 1, focal near 0.3
SMOOTH = 1.0             # pixels that keep Dice defined


def cosine(seen: Sequence[Tensor], told: Sequence[Tensor]) -> Tensor:
    """Mean over the levels of 1 - cosine of teacher (B, C, h, w) and student."""
    return torch.stack([distance(t, s).mean() for t, s in zip(seen, told, strict=True)]).mean()


def focal(logit: Tensor, mask: Tensor) -> Tensor:
    """Focal loss of the hardest pixels of each image: cross-entropy times (1 - probability of the truth)^GAMMA. Of the whole batch they
    would nearly all be defects and their rims, and false alarms on good images would cost nothing."""
    entropy = F.binary_cross_entropy_with_logits(logit, mask, reduction="none")
    loss = (entropy * (1 - torch.exp(-entropy)) ** GAMMA).flatten(1)
    return loss.topk(max(1, round(HARDEST * loss.shape[1])), 1).values.mean()


def whole(logit: Tensor, mask: Tensor, imgsz: int) -> Tensor:
    """Cross-entropy of what the segmentation will give to an image's score, the mean of its highest cells, with whether it has a defect.
    Without it nothing asks that good images stay below defective ones: Dice leaves good ones out, and a few hot cells cost focal little."""
    side = logit.shape[-1]
    with torch.autocast(logit.device.type, enabled=False):                                       # a score is float32, as it will be
        cells = smoothed(logit.float(), SMOOTHING * side / imgsz).flatten(1)                     # (B, m²)
        score = cells.topk(cells_of(SHARES[MIDDLE], side), 1).values.mean(1)
        return WHOLE * F.binary_cross_entropy_with_logits(score, (mask.amax((1, 2, 3)) > 0).float())


def dice(logit: Tensor, mask: Tensor) -> Tensor:
    """1 - overlap, 2 |A ∩ B| / (|A| + |B|), of each image that has a defect; 0 where none has one. Small defects count like large ones."""
    probability = logit.sigmoid()
    both, sizes = (probability * mask).sum((1, 2, 3)), (probability + mask).sum((1, 2, 3))
    defective = (mask.sum((1, 2, 3)) > 0).float()                                                # (B,)
    overlap = (2 * both + SMOOTH) / (sizes + SMOOTH)
    return ((1 - overlap) * defective).sum() / defective.sum().clamp(min=1)


def l1(logit: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of probability and mask (DeSTSeg, equation 5)."""
    return (logit.sigmoid() - mask).abs().mean()


OVERLAPS = {"dice": dice, "l1": l1}
