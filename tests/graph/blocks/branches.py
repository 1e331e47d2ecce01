"""Branches that meet again: residual, projected, dense."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("residual", "branches")
class Residual(Block):
    shrinks = ("first.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.second = conv_norm(channels, channels + 3), conv_norm(channels + 3, channels)

    def forward(self, x):
        y = self.second(F.relu(self.first(x), inplace=True))
        y += x
        return y.relu_()


@block("projected", "branches")
class Projected(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 4
        self.main, self.shortcut = conv_norm(channels, self.out), conv_norm(channels, self.out, 1, bias=True)

    def forward(self, x):
        return torch.add(self.main(x), self.shortcut(x), alpha=0.5).clamp_min_(0)


@block("dense", "branches")
class Dense(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.left, self.right = conv_norm(channels, 4), conv_norm(channels, 3, 1)
        self.out = channels + 7

    def forward(self, x):
        return torch.cat([self.left(x), x, self.right(x).tanh()], dim=1)


@block("pyramid", "branches")
class Pyramid(Block):
    shrinks = ("inner",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.inner, self.lateral = nn.Conv2d(channels, 9, 3, stride=2, padding=1), nn.Conv2d(channels, 9, 1)
        self.outer = conv_norm(9, channels)

    def forward(self, x):
        small = self.inner(x)
        return self.outer(self.lateral(x) + F.interpolate(small, size=x.shape[-2:], mode="bilinear"))


@block("reshaped", "branches")
class Reshaped(Block):
    shrinks = ("widen",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.mix = nn.Linear(channels, channels + 5), nn.Linear(channels + 5, channels)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = x.view(b, c, h * w).transpose(1, 2)
        return self.mix(self.widen(tokens).relu()).permute(0, 2, 1).reshape(b, -1, h, w) + x
