"""Networks of classifiers: images (B, 3, S, S), 0 to 1, to one number a class, before the softmax. S is a multiple of 32.

ResNet-18 (He et al. 2016) is torchvision's, with random weights; EfficientNet-Lite0 starts from the ImageNet weights that
come with its package. No weights are fetched. Knows nothing of data.
"""

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.1           # of batch statistics; Lite0's own 0.01 would still hold ImageNet's after a short training
DROPOUT = 0.2            # as Lite0 was trained with


class ResNet18(nn.Module):
    """From scratch."""

    def __init__(self, classes: int) -> None:
        from torchvision.models import resnet18

        super().__init__()
        self.net = resnet18(weights=None, num_classes=classes)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.net((images - 0.5) * 4)              # grey surfaces spread by about a quarter round the middle
        return found


class Lite0(nn.Module):
    """From ImageNet weights."""

    def __init__(self, classes: int) -> None:
        from backend.teacher.extractors import lite0

        super().__init__()
        self.net = _without_head(lite0())
        self.head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(1280, classes))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.net.extract_features(images * 2 - 1)          # (B, 1280, S/32, S/32)
        found: Tensor = self.head(maps.mean((2, 3)))
        return found


def _without_head(net: Any) -> Any:
    net._fc = nn.Identity()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = MOMENTUM
    return net


NETWORKS: dict[str, type[ResNet18] | type[Lite0]] = {"resnet18": ResNet18, "efficientnet-lite0": Lite0}


def network(name: str, classes: int, seed: int) -> nn.Module:
    """float32 on the CPU; what is random in it follows from the seed."""
    torch.manual_seed(seed)
    return NETWORKS[name](classes).to(memory_format=torch.channels_last)
