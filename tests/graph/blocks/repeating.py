"""Channels repeated, folded into further dimensions, stacked and taken apart again."""

import torch
from torch import nn

from tests.graph.blocks.base import Block, block, conv_norm

CHANGES = {
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "tile": lambda x: torch.tile(x, (1, 2, 1, 1)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "expand": lambda x: x.unsqueeze(2).expand(-1, -1, 2, -1, -1).flatten(1, 2),
    "unflatten": lambda x: torch.cat([x, x], 1).unflatten(1, (2, -1)).mul(2).flatten(1, 2),
    "stack": lambda x: torch.stack([x, x.relu()], dim=1).flatten(1, 2),
    "stack last": lambda x: torch.stack([x, x.relu()], dim=-1).permute(0, 1, 4, 2, 3).flatten(1, 2),
    "stack and sum": lambda x: torch.cat([torch.stack([x, x.tanh()]).sum(0), x], 1),
    "unbind": lambda x: torch.cat(x.unflatten(1, (2, -1)).unbind(1)[::-1], 1).repeat(1, 2, 1, 1),
    "select": lambda x: torch.cat([x, x.view(x.shape[0], 2, -1, *x.shape[2:])[:, 1], x[:, : x.shape[1] // 2]], 1),
    "pixels unbound": lambda x: torch.cat([torch.stack(x.unbind(2)[::-1], 2), x], 1),
}


@block("repeat", "repeat", how="repeat")
@block("tile", "repeat", how="tile")
@block("expand and flatten", "repeat", how="expand")
@block("repeat_interleave", "repeat_interleave", how="repeat_interleave")
@block("unflatten", "unflatten", how="unflatten")
@block("stack", "stack", how="stack")
@block("stack last", "stack", how="stack last")
@block("stack and sum", "stack", how="stack and sum")
@block("unbind", "unbind", how="unbind")
@block("select", "unbind", how="select")
@block("pixels unbound", "unbind", how="pixels unbound")
class Repeated(Block):
    shrinks = ("widen.0", "other.0")

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.other, self.narrow = conv_norm(channels, 8), conv_norm(8, 16), conv_norm(16, channels, 1)
        self.how = how

    def forward(self, x):
        x = self.widen(x).relu()
        return self.narrow(CHANGES[self.how](x) + self.other(x))


EQUATIONS = {
    "einsum, convolution": lambda x, w: torch.einsum("nchw,oc->nohw", x, w),
    "einsum, tokens": lambda x, w: torch.einsum("nlc,oc->nlo", x.flatten(2).mT, w).mT.unflatten(2, x.shape[2:]),
    "einsum, scale": lambda x, w: torch.einsum("nchw,c->nchw", x, w),
}


@block("einsum, convolution", "einsum", how="einsum, convolution", shape=(11, 7))
@block("einsum, tokens", "einsum", how="einsum, tokens", shape=(11, 7))
@block("einsum, scale", "einsum", how="einsum, scale", shape=(7,))
class Summed(Block):
    shrinks = ("widen.0",)

    def __init__(self, channels: int, how: str, shape: tuple[int, ...]) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 7), conv_norm(shape[0], channels, 1)
        self.weight, self.how = nn.Parameter(torch.randn(shape)), how

    def forward(self, x):
        return self.narrow(EQUATIONS[self.how](self.widen(x).relu(), self.weight).relu())


SCORES = {
    "einsum": lambda x, w: torch.einsum("nchw,c->nhw", x, w),
    "matmul": lambda x, w: x.permute(0, 2, 3, 1) @ w,
}


@block("pooling by scores, einsum", "einsum", how="einsum")
@block("pooling by scores, matmul", "softmax over channels", how="matmul")
class Pooled(Block):
    shrinks = ("widen.0",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 7), conv_norm(7, channels, 1)
        self.weight, self.how = nn.Parameter(torch.randn(7)), how

    def forward(self, x):
        x = self.widen(x).relu()
        shares = SCORES[self.how](x, self.weight).flatten(1).softmax(1).view(len(x), 1, *x.shape[2:])
        return self.narrow(x * shares)
