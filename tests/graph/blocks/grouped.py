"""Grouped convolutions and channel shuffles, written in every usual way."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("grouped", "grouped convolution", out=18, groups=3)
@block("grouped, squares", "grouped convolution", out=12, groups=4)
@block("grouped, narrow", "grouped convolution", out=6, groups=3)
class Grouped(Block):
    shrinks = ("first.0", "second.0")

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__(channels)
        self.first, self.second = conv_norm(channels, 12, 1), conv_norm(12, out, groups=groups)
        self.third = conv_norm(out, channels, 1)

    def forward(self, x):
        return x + self.third(F.relu6(self.second(self.first(x).relu_())))


@block("grouped, twice", "grouped convolution")
class GroupedTwice(Block):
    """Two grouped convolutions with unlike groups in a row."""

    shrinks = ("layers.0.0", "layers.1.0")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layers = nn.Sequential(
            conv_norm(channels, 24, 1), conv_norm(24, 24, groups=2), nn.ReLU(), conv_norm(24, 24, groups=3)
        )
        self.narrow = conv_norm(24, channels, 1)

    def forward(self, x):
        return self.narrow(self.layers(x))


@block("grouped, transposed", "grouped convolution")
class GroupedTransposed(Block):
    shrinks = ("first.0", "up")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.up = conv_norm(channels, 8, 1), nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2)
        self.narrow = conv_norm(12, channels, 1)

    def forward(self, x):
        return self.narrow(F.max_pool2d(self.up(self.first(x)), 2))


def shuffled(x, groups: int):
    """Channel shuffle by view and transpose, the sizes taken from the shape."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


SHUFFLES = {
    "module": nn.ChannelShuffle(2),
    "functional": lambda x: F.channel_shuffle(x, 2),
    "view": lambda x: shuffled(x, 2),
    "unflatten": lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
}


@block("shuffle, module", "channel shuffle", how="module")
@block("shuffle, functional", "channel shuffle", how="functional")
@block("shuffle, view", "channel shuffle", how="view")
@block("shuffle, unflatten", "channel shuffle", how="unflatten")
class Shuffled(Block):
    """A unit of ShuffleNet's first version: grouped, shuffled, depthwise, grouped."""

    shrinks = ("first.0", "deep.0")

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.first = conv_norm(channels, 8, 1), conv_norm(8, 12, 1, groups=2)
        self.deep, self.last = conv_norm(12, 12, groups=12), conv_norm(12, 8, 1, groups=2)
        self.narrow = conv_norm(8, channels, 1)
        self.shuffle = SHUFFLES[how]

    def forward(self, x):
        x = self.widen(x)
        y = self.last(self.deep(self.shuffle(self.first(x).relu())))
        return self.narrow((x + y).relu())


@block("shuffle, split", "channel shuffle")
class ShuffledHalves(Block):
    """A stack of units of ShuffleNet's second version: half of the channels pass, then all are shuffled."""

    shrinks = ("widen.0", "inner.0.0.0")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 16, 1), conv_norm(16, channels, 1)
        self.inner = nn.ModuleList(
            nn.Sequential(conv_norm(8, 8, 1), nn.ReLU(), conv_norm(8, 8, groups=8), conv_norm(8, 8, 1))
            for _ in range(2)
        )

    def forward(self, x):
        x = self.widen(x)
        for unit in self.inner:
            left, right = x.chunk(2, dim=1)
            x = shuffled(torch.cat((left, unit(right)), dim=1), 2)
        return self.narrow(x)
