"""Channel selection: lets each norm that reads a shared stream choose its own part of it.

Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3.4.
"""

import torch
from torch import Tensor, nn


class ChannelSelection(nn.Module):
    """Passes on the channels that stand at ``positions``; at first that is all of them, in order.

    It stands right behind the batch norm of a pre-activation layer. The norm keeps the width of the stream it reads;
    what is cut is the list of positions, together with the input side of the layers behind it. The list is a buffer of
    whole numbers: it is saved with the model, moves with it, and is no parameter.

    Args:
        channels: channels of the features that arrive.

    Attributes:
        positions: ``(C,)`` whole numbers, those of the channels that are passed on.

    Example:
        >>> selection = ChannelSelection(4)
        >>> selection.positions = torch.tensor([0, 3])
        >>> selection(torch.arange(4.0).view(1, 4, 1, 1)).flatten()
        tensor([0., 3.])
    """

    positions: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positions", torch.arange(channels))

    def reset_parameters(self) -> None:
        """Leave the positions: they are what the network has become, no weights."""

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(N, len(positions), ...)`` for features ``(N, channels, ...)``."""
        return features.index_select(1, self.positions)
