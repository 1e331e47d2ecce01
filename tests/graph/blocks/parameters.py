"""Parameters used as they are: slopes, scales, positions, tokens, look-up tables."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("prelu", "prelu", slopes="each")
@block("prelu, one slope", "prelu", slopes="one")
class Sloped(Block):
    shrinks = ("widen",)

    def __init__(self, channels: int, slopes: str) -> None:
        super().__init__(channels)
        self.widen, self.narrow = nn.Conv2d(channels, 7, 3, padding=1), conv_norm(7, channels, 1)
        self.act = nn.PReLU(7 if slopes == "each" else 1)

    def forward(self, x):
        return self.narrow(self.act(self.widen(x)))


@block("layer scale", "layer scale", shape=(12, 1, 1))
@block("layer scale, vector", "layer scale", shape=(12,))
class LayerScaled(Block):
    shrinks = ("widen.0", "deep")

    def __init__(self, channels: int, shape: tuple[int, ...]) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 12), conv_norm(12, channels, 1)
        self.deep, self.gamma = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Parameter(1e-6 * torch.ones(shape))

    def forward(self, x):
        x = self.widen(x)
        if self.gamma.dim() == 1:
            return self.narrow(x + (self.deep(x).permute(0, 2, 3, 1) * self.gamma).permute(0, 3, 1, 2))
        return self.narrow(x + self.gamma * self.deep(x))


@block("scaled", "layer scale")
class Scaled(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.spatial = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x):
        x = x * self.gain + self.shift
        return x.mul(self.spatial(x).sigmoid_())


@block("position embedding", "position embedding", how="tokens")
@block("position embedding, picture", "position embedding", how="picture")
@block("position embedding, interpolated", "position embedding", how="interpolated")
class Placed(Block):
    shrinks = ("widen.0", "hidden")

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.hidden, self.narrow = conv_norm(channels, 10), nn.Linear(10, 12), nn.Linear(12, channels)
        shape = {"tokens": (1, 64, 10), "picture": (1, 10, 8, 8), "interpolated": (1, 10, 4, 4)}[how]
        self.how, self.positions = how, nn.Parameter(torch.randn(shape))

    def forward(self, x):
        y = self.widen(x)
        if self.how == "picture":
            y = y + self.positions
        elif self.how == "interpolated":
            y = y + F.interpolate(self.positions, size=y.shape[2:], mode="bilinear")
        tokens = y.flatten(2).transpose(1, 2)
        if self.how == "tokens":
            tokens = tokens + self.positions
        return x + self.narrow(self.hidden(tokens).relu()).transpose(1, 2).unflatten(2, x.shape[2:])


@block("class token", "class token")
class ClassToken(Block):
    """A token laid before the others and taken off again, then used as a gate."""

    shrinks = ("widen.0", "hidden")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.hidden, self.narrow = conv_norm(channels, 10), nn.Linear(10, 10), nn.Linear(10, channels)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 10)), nn.Parameter(torch.randn(1, 65, 10))

    def forward(self, x):
        tokens = self.widen(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        tokens = tokens + self.hidden(tokens).relu()
        gate, rest = tokens[:, 0], tokens[:, 1:]
        return self.narrow(rest * gate.sigmoid()[:, None]).transpose(1, 2).unflatten(2, x.shape[2:])


@block("embedding", "embedding table")
class Looked(Block):
    """Adds the entry of a table for each place."""

    shrinks = ("widen.0", "table")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow, self.table = conv_norm(channels, 6), conv_norm(6, channels, 1), nn.Embedding(8, 6)
        self.register_buffer("places", torch.arange(8))

    def forward(self, x):
        entries = self.table(self.places)
        return self.narrow((self.widen(x) + entries.t()[None, :, :, None]).relu())
