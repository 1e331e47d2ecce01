"""Networks of the blocks that gradient pruning tells apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers import chain, randomised


def blocks(*, norm: bool, pools: bool = False, widths: tuple[int, ...] = (8, 8, 8), seed: int = 0) -> nn.Sequential:
    """3x3 convolutions with ReLU, with or without batch norm and with max pooling, and a linear head of four."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=not norm)]
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers += [nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pools else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


class Branched(nn.Module):
    """A stem and a residual block of two branches, each with a convolution of its own, with or without batch norm."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)

        def layer(channels: int, size: int) -> nn.Sequential:
            conv = nn.Conv2d(channels, 8, size, padding=size // 2, bias=not norm)
            return nn.Sequential(conv, nn.BatchNorm2d(8)) if norm else nn.Sequential(conv)

        self.stem, self.first, self.second, self.shortcut = layer(3, 3), layer(8, 3), layer(8, 3), layer(8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = F.relu(self.stem(images))
        joined = F.relu(self.second(F.relu(self.first(stem))) + self.shortcut(stem))
        return self.head(joined.mean((2, 3)))


class Shared(nn.Module):
    """One convolution called twice, with a ReLU the first time and none the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(images).relu()).mean((2, 3)))


def normed() -> nn.Module:
    return chain((6, 8))


def pooled() -> nn.Module:
    return randomised(blocks(norm=False, pools=True, widths=(6, 8)))


def branched() -> nn.Module:
    return randomised(Branched(norm=False))
