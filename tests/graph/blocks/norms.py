"""Normalisation, in module and in functional form."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


class ChannelsFirst(nn.LayerNorm):
    """Layer norm over the channels of ``(N, C, H, W)``, as ConvNeXt writes it."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class ByHand(nn.Module):
    """Layer norm over channels from means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Root(nn.Module):
    """RMS norm over the last dimension, by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


NORMS = {
    "group norm": lambda: nn.GroupNorm(3, 12),
    "group norm, one group": lambda: nn.GroupNorm(1, 12),
    "group norm, no scale": lambda: nn.GroupNorm(2, 12, affine=False),
    "instance norm": lambda: nn.InstanceNorm2d(12, affine=True),
    "instance norm, running": lambda: nn.InstanceNorm2d(12, track_running_stats=True),
    "layer norm, permuted": lambda: ChannelsFirst(12),
    "layer norm, by hand": lambda: ByHand(12),
    "batch norm, no scale": lambda: nn.BatchNorm2d(12, affine=False),
    "batch norm, no statistics": lambda: nn.BatchNorm2d(12, track_running_stats=False),
}
LAST_NORMS = {
    "layer norm": lambda: nn.LayerNorm(12),
    "layer norm, no scale": lambda: nn.LayerNorm(12, elementwise_affine=False),
    "rms norm": lambda: nn.RMSNorm(12),
    "rms norm, by hand": lambda: Root(12),
}


@block("group norm", "group norm", how="group norm")
@block("group norm, one group", "group norm", how="group norm, one group")
@block("group norm, no scale", "group norm", how="group norm, no scale")
@block("instance norm", "instance norm", how="instance norm")
@block("instance norm, running", "instance norm", how="instance norm, running")
@block("layer norm, permuted", "layer norm channels-first", how="layer norm, permuted")
@block("layer norm, by hand", "layer norm channels-first", how="layer norm, by hand")
@block("batch norm, no scale", "convolution", how="batch norm, no scale")
@block("batch norm, no statistics", "convolution", how="batch norm, no statistics")
class Normalised(Block):
    shrinks = ("widen",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.norm = nn.Conv2d(channels, 12, 3, padding=1), NORMS[how]()
        self.narrow = conv_norm(12, channels, 1)

    def forward(self, x):
        return x + self.narrow(self.norm(self.widen(x)).relu())


@block("layer norm", "layer norm channels-last", how="layer norm")
@block("layer norm, no scale", "layer norm channels-last", how="layer norm, no scale")
@block("rms norm", "rms norm", how="rms norm")
@block("rms norm, by hand", "rms norm", how="rms norm, by hand")
class NormalisedLast(Block):
    shrinks = ("widen", "hidden")

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.norm = nn.Conv2d(channels, 12, 3, padding=1), LAST_NORMS[how]()
        self.hidden, self.narrow = nn.Linear(12, 16), nn.Linear(16, channels)

    def forward(self, x):
        y = self.norm(self.widen(x).permute(0, 2, 3, 1))
        return x + self.narrow(F.gelu(self.hidden(y))).permute(0, 3, 1, 2)
