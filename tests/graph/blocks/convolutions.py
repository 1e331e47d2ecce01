"""Dense, depthwise and transposed convolutions."""

from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("plain", "convolution")
class Plain(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 2
        self.layers = nn.Sequential(conv_norm(channels, self.out), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.layers(x)


@block("strided", "convolution")
class Strided(Block):
    shrinks = ("first.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first = conv_norm(channels, channels + 1, stride=2, dilation=2, padding=2)
        self.second = conv_norm(channels + 1, channels, 1)

    def forward(self, x):
        return F.interpolate(self.second(F.gelu(self.first(x))), scale_factor=2.0)


@block("transposed", "convolution")
class Transposed(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 1
        self.up = nn.ConvTranspose2d(channels, self.out, 2, stride=2)

    def forward(self, x):
        return F.avg_pool2d(self.up(x).relu(), 2)


@block("depthwise", "convolution", multiplier=1)
@block("multiplier", "convolution", multiplier=2)
class Depthwise(Block):
    def __init__(self, channels: int, multiplier: int) -> None:
        super().__init__(channels)
        wide = channels * multiplier
        self.layers = nn.Sequential(
            conv_norm(channels, wide, groups=channels), nn.Hardswish(inplace=True), conv_norm(wide, channels, 1)
        )

    def forward(self, x):
        return self.layers(x)


@block("inverted", "convolution")
class Inverted(Block):
    shrinks = ("widen.0", "spread.0")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        wide = 2 * channels
        self.widen, self.spread = conv_norm(channels, wide, 1), conv_norm(wide, wide, groups=wide)
        self.narrow = conv_norm(wide, channels, 1)

    def forward(self, x):
        return x + self.narrow(F.relu6(self.spread(F.relu6(self.widen(x)))))


@block("one dimension", "convolution")
class OneDimension(Block):
    shrinks = ("first",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first = nn.Conv1d(channels, 10, 3, padding=1)
        self.second = nn.Conv1d(10, channels, 1)

    def forward(self, x):
        y = self.second(self.first(x.flatten(2)).relu())
        return y.unflatten(2, x.shape[2:])


@block("three dimensions", "convolution")
class ThreeDimensions(Block):
    shrinks = ("first",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first = nn.Conv3d(channels, 7, (1, 3, 3), padding=(0, 1, 1))
        self.second = nn.Conv3d(7, channels, 1)

    def forward(self, x):
        return self.second(F.silu(self.first(x.unsqueeze(2)))).squeeze(2)
