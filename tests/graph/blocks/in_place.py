"""Nests of in-place operators, and parts that are run again for the backward pass."""

from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.graph.blocks.base import Block, block, conv_norm


@block("in_place", "in-place nests")
class InPlace(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layer = conv_norm(channels, channels)

    def forward(self, x):
        y = self.layer(x)
        view = y[:, :, 1:-1, 1:-1]
        view.mul_(0.5)
        y.add_(1).clamp_(min=-2)
        y[:, :, ::2] += 0.25
        return y.sub_(x)


@block("in-place chain", "in-place nests")
class InPlaceChain(Block):
    """In-place operators on views of views, and one branch that overwrites another."""

    shrinks = ("first.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.second = conv_norm(channels, 9), conv_norm(9, channels, 1)

    def forward(self, x):
        y = self.first(x)
        rows = y.transpose(1, 2)
        rows[:, 1:].mul_(1.5).add_(0.5)
        y.unsqueeze_(0).squeeze_(0)
        top = y[:, :, :4]
        top.copy_(y[:, :, 4:] * 2)
        F.relu(y, inplace=True).add_(top.mean((2, 3), keepdim=True))
        z = self.second(y)
        z[:] = z + x
        return F.leaky_relu_(z, 0.2)


@block("checkpoint", "checkpoint")
class Checkpointed(Block):
    shrinks = ("first.0",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.second = conv_norm(channels, 11), conv_norm(11, channels)

    def inner(self, x):
        return self.second(self.first(x).relu())

    def forward(self, x):
        return x + checkpoint(self.inner, x, use_reentrant=False)
