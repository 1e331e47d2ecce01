"""Channels split and laid side by side: chunk, split, cat, constants, padding."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("chunk", "chunk and cat", how="chunk")
@block("split", "chunk and cat", how="split")
@block("slice", "chunk and cat", how="slice")
@block("sizes", "chunk and cat", how="sizes")
@block("reordered", "chunk and cat", how="reordered")
class Chunked(Block):
    shrinks = ("widen.0", "inner.0")

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.how = how
        self.widen = conv_norm(channels, 2 * channels)
        self.inner = conv_norm(channels, channels)
        self.merge = conv_norm(2 * channels, channels, 1)

    def forward(self, x):
        x = self.widen(x)
        if self.how in ("chunk", "reordered"):
            left, right = x.chunk(2, dim=1)
        elif self.how == "split":
            left, right = torch.split(x, x.shape[1] // 2, dim=1)
        elif self.how == "slice":
            left, right = x[:, : x.size(1) // 2], x[:, x.size(1) // 2 :]
        else:
            left, right = x.split([self.inner[0].in_channels, x.shape[1] - self.inner[0].in_channels], 1)
        parts = [right, self.inner(left), left] if self.how == "reordered" else [self.inner(left), right]
        return self.merge(torch.cat(parts[:2], 1) + (torch.cat([left, right], 1) if self.how == "reordered" else 0))


@block("cascade", "chunk and cat")
class Cascade(Block):
    """Res2Net's inside: blocks of channels, each convolved with the sum of itself and the one before."""

    shrinks = ("widen.0", "inner.0.0", "inner.1.0")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 12, 1), conv_norm(12, channels, 1)
        self.inner = nn.ModuleList(conv_norm(4, 4) for _ in range(2))

    def forward(self, x):
        first, *rest = self.widen(x).chunk(3, 1)
        outs = [first]
        for layer, part in zip(self.inner, rest, strict=True):
            outs.append(layer(part + outs[-1]).relu())
        return x + self.narrow(torch.cat(outs, 1))


@block("literal", "chunk and cat")
class LiteralSplit(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 12), conv_norm(9, channels)

    def forward(self, x):
        left, right = self.widen(x).split([3, 9], dim=1)
        return self.narrow(right) + left.mean(dim=1, keepdim=True)


@block("coordinates", "cat with constants", how="coordinates")
@block("cat of zeros", "cat with constants", how="zeros")
@block("cat of a parameter", "cat with constants", how="parameter")
class WithConstants(Block):
    """Lays constants beside the channels."""

    shrinks = ("widen.0",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.merge, self.how = conv_norm(channels, 6), conv_norm(8, channels), how
        if how == "parameter":
            self.extra = nn.Parameter(torch.randn(1, 2, 1, 1))

    def forward(self, x):
        x = self.widen(x).relu()
        n, _, h, w = x.shape
        if self.how == "coordinates":
            rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
            extra = torch.cat([rows, torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)], 1)
        elif self.how == "zeros":
            extra = x.new_zeros(n, 2, h, w)
        else:
            extra = self.extra.expand(n, -1, h, w)
        return self.merge(torch.cat([x, extra], 1))


@block("padded", "padding", literal=True)
@block("padded by the difference", "padding", literal=False)
class Padded(Block):
    """A shortcut padded with zero channels (option A)."""

    shrinks = ("inner.0",)

    def __init__(self, channels: int, *, literal: bool) -> None:
        super().__init__(channels)
        self.out = channels + 4
        self.inner, self.layer, self.literal = conv_norm(channels, 7), conv_norm(7, self.out), literal
        self.keeps = not literal

    def forward(self, x):
        y = self.layer(self.inner(x).relu())
        before = 2 if self.literal else (y.shape[1] - x.shape[1]) // 2
        after = 2 if self.literal else y.shape[1] - x.shape[1] - before
        return y + F.pad(x, (0, 0, 0, 0, before, after))
