"""Operators that move channels about: pixel shuffles, flips, rolls, slices, lists of indices."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("pixel shuffle", "pixel shuffle")
class PixelShuffled(Block):
    shrinks = ("widen.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.shuffle, self.narrow = conv_norm(channels, 12), nn.PixelShuffle(2), conv_norm(3, channels)

    def forward(self, x):
        return F.avg_pool2d(self.narrow(self.shuffle(self.widen(x)).relu()), 2)


@block("pixel unshuffle", "pixel shuffle")
class PixelUnshuffled(Block):
    shrinks = ("first.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.last = conv_norm(channels, 5), conv_norm(20, channels, 1)

    def forward(self, x):
        return F.interpolate(self.last(F.pixel_unshuffle(self.first(x).relu(), 2)), scale_factor=2)


@block("space to depth", "pixel shuffle", how="slices")
@block("space to depth, view", "pixel shuffle", how="view")
class SpaceToDepth(Block):
    shrinks = ("first.0",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.first, self.last, self.how = conv_norm(channels, 6), conv_norm(24, channels, 1), how

    def forward(self, x):
        x = self.first(x).relu()
        if self.how == "slices":
            x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        else:
            n, c, h, w = x.size()
            x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
            x = x.view(n, -1, h // 2, w // 2)
        return F.interpolate(self.last(x), scale_factor=2)


MOVES = {
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(x.shape[1] // 2, 1),
    "roll of pictures": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "strided slices": lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1),
    "negative slices": lambda x: torch.cat([x[:, -x.shape[1] // 2 :], x[:, : -x.shape[1] // 2]], 1),
    "narrow": lambda x: torch.cat([x.narrow(1, x.size(1) // 2, x.size(1) // 2), x.narrow(1, 0, x.size(1) // 2)], 1),
}


@block("flip", "slices", how="flip")
@block("roll", "slices", how="roll")
@block("roll of pictures", "slices", how="roll of pictures")
@block("strided slices", "slices", how="strided slices")
@block("negative slices", "slices", how="negative slices")
@block("narrow", "slices", how="narrow")
class Moved(Block):
    shrinks = ("widen.0", "other.0")

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.other, self.narrow = conv_norm(channels, 12), conv_norm(12, 12, 1), conv_norm(12, channels, 1)
        self.how = how

    def forward(self, x):
        x = self.widen(x)
        return self.narrow(MOVES[self.how](x).relu() + self.other(x))


PICKS = {
    "list": lambda x: x[:, [3, 1, 2, 0, 5]],
    "tensor": lambda x: torch.index_select(x, 1, torch.tensor([1, 4, 2, 0])),
    "slice": lambda x: x[:, 2:7],
    "strided": lambda x: x[:, 1:8:3],
    "last": lambda x: x[:, -3:],
}


@block("index by a list", "constant indices", how="list")
@block("index_select", "constant indices", how="tensor")
@block("literal slice", "constant indices", how="slice")
@block("literal strided slice", "constant indices", how="strided")
@block("literal negative slice", "constant indices", how="last")
class Picked(Block):
    """Picks some channels at literal positions: what can be cut is up to the capture, what is cut must be right."""

    shrinks = ("inner.0",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.how = conv_norm(channels, 9), how
        self.inner = conv_norm(PICKS[how](torch.zeros(1, 9, 1, 1)).shape[1], 8)
        self.narrow = conv_norm(8, channels, 1)

    def forward(self, x):
        return x + self.narrow(self.inner(PICKS[self.how](self.widen(x))).relu())


@block("index_select by a buffer", "channel selection", spelled="index_select")
@block("index by a buffer", "channel selection", spelled="index")
class Selected(Block):
    """Selects channels at positions that a buffer holds: each place in it goes with the columns that read it."""

    shrinks = ("inner.0",)
    keeps = True

    def __init__(self, channels: int, spelled: str) -> None:
        super().__init__(channels)
        self.norm, self.spelled = nn.BatchNorm2d(channels), spelled
        self.inner, self.narrow = conv_norm(channels + 2, 8), conv_norm(8, channels)
        self.register_buffer("positions", torch.tensor([*range(channels), 0, channels - 1]).flip(0))

    def forward(self, x):
        normed = self.norm(x)
        taken = normed[:, self.positions] if self.spelled == "index" else normed.index_select(1, self.positions)
        return x + self.narrow(self.inner(taken.relu()).relu())
