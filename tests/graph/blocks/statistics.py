"""Statistics over channels: softmax, mean, maximum, and what uses them."""

from torch import nn

from tests.graph.blocks.base import Block, block, conv_norm

STATISTICS = {
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(dim=1),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "mean without its dimension": lambda x: x * x.mean(1)[:, None].sigmoid(),
    "standard deviation": lambda x: x / (x.var(1, keepdim=True) + 1).sqrt(),
    "norm": lambda x: x / (x.norm(dim=1, keepdim=True) + 1),
    "max": lambda x: x * x.max(dim=1, keepdim=True)[0].sigmoid(),
    "amax": lambda x: x - x.amax(1, keepdim=True) + x.amin((1, 2), keepdim=True),
}


@block("softmax", "softmax over channels", how="softmax")
@block("log_softmax", "softmax over channels", how="log_softmax")
@block("mean", "mean over channels", how="mean")
@block("mean without its dimension", "mean over channels", how="mean without its dimension")
@block("standard deviation", "mean over channels", how="standard deviation")
@block("norm of channels", "mean over channels", how="norm")
@block("max", "max over channels", how="max")
@block("amax", "max over channels", how="amax")
class Statistic(Block):
    shrinks = ("widen",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.widen, self.narrow, self.how = nn.Conv2d(channels, 8, 3, padding=1), conv_norm(8, channels, 1), how

    def forward(self, x):
        return x + self.narrow(STATISTICS[self.how](self.widen(x)))
