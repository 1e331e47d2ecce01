"""The pre-activation bottleneck ResNet for CIFAR, with channel selection."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.methods.slimming.channel_selection import ChannelSelection
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

EXPANSION = 4


class PreActivationBottleneck(nn.Module):
    """Three convolutions 1x1, 3x3, 1x1, each behind its norm and ReLU, added to the stream that the first norm reads.

    Args:
        in_channels: channels of the stream that arrives.
        width: channels of the first two convolutions; the third has four times as many.
        stride: of the second convolution, and of the projection.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.bn1, self.select = nn.BatchNorm2d(in_channels), ChannelSelection(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        """Return (N, 4 * width, ceil(H / stride), ceil(W / stride)) for a stream (N, in_channels, H, W)."""
        branch = self.conv1(functional.relu(self.select(self.bn1(stream))))
        branch = self.conv2(functional.relu(self.bn2(branch)))
        branch = self.conv3(functional.relu(self.bn3(branch)))
        return branch + self.shortcut(stream)


class PreActivationResNet(nn.Module):
    """Pre-activation ResNet for CIFAR (He et al., "Identity Mappings", 2016), as in Liu et al. (2017).

    Three stages of bottlenecks of width 16, 32 and 64; each norm that reads the stream is followed by a channel
    selection.

    Args:
        depth: number of layers, 9 n + 2.
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        UserMistake: there is no such depth.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 9)
        if rest or blocks < 1:
            raise UserMistake(f"a pre-activation bottleneck ResNet has depth 9 n + 2, such as 164, not {depth}")
        self.conv1 = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        self.layer1 = self._stage(blocks, 16, 16, 1)
        self.layer2 = self._stage(blocks, 64, 32, 2)
        self.layer3 = self._stage(blocks, 128, 64, 2)
        self.bn, self.select = nn.BatchNorm2d(256), ChannelSelection(256)
        self.linear = nn.Linear(256, num_classes)
        initialise(self)

    @staticmethod
    def _stage(blocks: int, in_channels: int, width: int, stride: int) -> nn.Sequential:
        first = PreActivationBottleneck(in_channels, width, stride)
        return nn.Sequential(first, *[PreActivationBottleneck(EXPANSION * width, width) for _ in range(blocks - 1)])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W) of any size, meant for 8x8 and larger."""
        stream = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return self.linear(functional.relu(self.select(self.bn(stream))).mean((2, 3)))


models.register("resnet164")(
    ModelEntry(partial(PreActivationResNet, 164), (3, 32, 32), 10, "ResNet-164 for CIFAR, pre-activation (2016)")
)
