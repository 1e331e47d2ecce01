"""DenseNet-40 for CIFAR, with channel selection."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.methods.slimming.channel_selection import ChannelSelection
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

STEM = 16


class DenseLayer(nn.Module):
    """Norm, ReLU and a 3x3 convolution, whose output is laid beside its input.

    Args:
        in_channels: channels that arrive.
        growth: channels that it adds.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn, self.select = nn.BatchNorm2d(in_channels), ChannelSelection(in_channels)
        self.conv = nn.Conv2d(in_channels, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, in_channels + growth, H, W) for features (N, in_channels, H, W)."""
        return torch.cat([features, self.conv(functional.relu(self.select(self.bn(features))))], 1)


class Transition(nn.Module):
    """Norm, ReLU, a 1x1 convolution of the same width and a 2x2 average pooling.

    Args:
        channels: channels that arrive and leave.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn, self.select = nn.BatchNorm2d(channels), ChannelSelection(channels)
        self.conv = nn.Conv2d(channels, channels, kernel_size=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, channels, H / 2, W / 2) for features (N, channels, H, W)."""
        return functional.avg_pool2d(self.conv(functional.relu(self.select(self.bn(features)))), 2)


class CifarDenseNet(nn.Module):
    """DenseNet without bottlenecks or compression for CIFAR (Huang et al., 2017), as in Liu et al. (2017).

    A stem of 16 channels, three blocks of equally many dense layers with transitions between them; each norm, which
    reads the channels of all layers before it, is followed by a channel selection.

    Args:
        depth: number of layers, 3 n + 4.
        growth: channels that each dense layer adds.
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        UserMistake: there is no such depth.
    """

    def __init__(self, depth: int, growth: int = 12, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers, rest = divmod(depth - 4, 3)
        if rest or layers < 1:
            raise UserMistake(f"a CIFAR DenseNet has depth 3 n + 4, such as 40, not {depth}")
        channels, stages = STEM, list[nn.Module]()
        for stage in range(3):
            if stage:
                stages.append(Transition(channels))
            stages.append(nn.Sequential(*[DenseLayer(channels + n * growth, growth) for n in range(layers)]))
            channels += layers * growth
        self.conv1 = nn.Conv2d(in_channels, STEM, kernel_size=3, padding=1, bias=False)
        self.stages = nn.Sequential(*stages)
        self.bn, self.select = nn.BatchNorm2d(channels), ChannelSelection(channels)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W), H and W at least 4."""
        features = self.bn(self.stages(self.conv1(images)))
        return self.linear(functional.relu(self.select(features)).mean((2, 3)))


models.register("densenet40")(
    ModelEntry(partial(CifarDenseNet, 40), (3, 32, 32), 10, "DenseNet-40, growth 12, for CIFAR (2017)")
)
