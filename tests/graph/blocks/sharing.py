"""Weights used more than once, and weights that are computed before they are used."""

import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.graph.blocks.base import Block, block, conv_norm


@block("shared", "repeated modules")
class Shared(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layer, self.norms = nn.Conv2d(channels, channels, 3, padding=1), nn.ModuleList()
        self.norms.extend(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x):
        for norm in self.norms:
            x = F.elu(norm(self.layer(x)))
        return x


@block("shared head", "repeated modules")
class SharedHead(Block):
    """One head for all levels of a feature pyramid."""

    shrinks, leaves = ("top", "head.0"), ("last.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.top, self.lateral = nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.Conv2d(channels, 8, 1)
        self.head, self.last = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()), conv_norm(6, 5)
        self.out = channels + 10

    def forward(self, x):
        top = self.top(x)
        levels = [F.interpolate(top, size=x.shape[-2:]), self.lateral(x)]
        return torch.cat([x, *(self.last(self.head(level)) for level in levels)], 1)


@block("tied", "tied weights")
class Tied(Block):
    """Two layers that own one and the same weight."""

    shrinks = ("widen.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 8), conv_norm(8, channels, 1)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.narrow(self.second(self.first(self.widen(x)).relu()).relu())


@block("tied to its transpose", "tied weights")
class TiedTranspose(Block):
    """An encoder whose weight is the decoder's too."""

    shrinks = ("widen.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 8), conv_norm(8, channels, 1)
        self.weight = nn.Parameter(torch.randn(5, 8, 3, 3))

    def forward(self, x):
        hidden = F.conv2d(self.widen(x), self.weight, padding=1).relu()
        return self.narrow(F.conv_transpose2d(hidden, self.weight, padding=1))


def _old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


class Half(nn.Module):
    """A parametrization that does something simple."""

    def forward(self, x):
        return x * 0.5


def _halved(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrize.register_parametrization(layer, "weight", Half())


@block("parametrized", "parametrization", how=_halved)
@block("spectral norm", "parametrization", how=parametrizations.spectral_norm)
@block("weight norm", "weight norm", how=parametrizations.weight_norm)
@block("weight norm, old", "weight norm", how=_old_weight_norm)
class Reparametrized(Block):
    shrinks = ("widen.0",)

    def __init__(self, channels: int, how) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 8), conv_norm(7, channels, 1)
        self.inner = how(nn.Conv2d(8, 7, 3, padding=1))

    def forward(self, x):
        return x + self.narrow(self.inner(self.widen(x).relu()).relu())


class FrozenBatchNorm(nn.Module):
    """Batch norm whose scale, shift and statistics are buffers, as detection models freeze it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.randn(channels))

    def forward(self, x):
        weight, bias, var, mean = (
            t.reshape(1, -1, 1, 1) for t in (self.weight, self.bias, self.running_var, self.running_mean)
        )
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


@block("frozen batch norm", "frozen batch norm")
class Frozen(Block):
    shrinks = ("widen",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.norm = nn.Conv2d(channels, 7, 3, padding=1, bias=False), FrozenBatchNorm(7)
        self.narrow = conv_norm(7, channels, 1)

    def forward(self, x):
        return x + self.narrow(self.norm(self.widen(x)).relu())


class Standardised(nn.Conv2d):
    """Weight standardisation."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        std = self.weight.std((1, 2, 3), keepdim=True) + 1e-5
        return F.conv2d(x, (self.weight - mean) / std, self.bias, padding=self.padding)


class Summed(nn.Conv2d):
    """RepVGG's: a 1x1 kernel padded to 3x3 and added."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)
        self.point = nn.Parameter(torch.randn(out, channels, 1, 1) / channels)

    def forward(self, x):
        return F.conv2d(x, self.weight + F.pad(self.point, (1, 1, 1, 1)), self.bias, padding=1)


class Gained(nn.Conv2d):
    """A gain for each filter."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(out, 1, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=1)


@block("weight standardisation", "computed weight", how=lambda: Standardised(8, 7, 3, padding=1))
@block("sum of kernels", "computed weight", how=lambda: Summed(8, 7))
@block("gain of filters", "computed weight", how=lambda: Gained(8, 7))
class Computed(Block):
    shrinks = ("widen.0",)

    def __init__(self, channels: int, how) -> None:
        super().__init__(channels)
        self.widen, self.inner, self.narrow = conv_norm(channels, 8), how(), conv_norm(7, channels, 1)

    def forward(self, x):
        return x + self.narrow(self.inner(self.widen(x).relu()).relu())
