"""The CIFAR ResNets: 20, 32, 44, 56 and 110 layers, with either kind of shortcut."""

from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

Shortcut = Literal["A", "B"]


class PaddedShortcut(nn.Module):
    """Option A: take every second pixel and pad zero channels, half of them on each side; no parameters.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``.

    Attributes:
        channels_before: zero channels put before those of the input.
        channels_after: zero channels put after them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # Amounts, not totals: they stay right when the input loses channels.
        self.channels_before = (out_channels - in_channels) // 2
        self.channels_after = out_channels - in_channels - self.channels_before

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, before + C + after, ceil(H / 2), ceil(W / 2)) for features (N, C, H, W)."""
        return functional.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, self.channels_before, self.channels_after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to the shortcut.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; where they differ from ``in_channels`` the stride is 2.
        shortcut: ``"A"`` (padding) or ``"B"`` (1x1 convolution with batch normalisation) where the shape changes.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcut: Shortcut) -> None:
        super().__init__()
        stride = 1 if in_channels == out_channels else 2
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels and shortcut == "A":
            self.shortcut = PaddedShortcut(in_channels, out_channels)
        elif in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, out_channels, ceil(H / stride), ceil(W / stride)) for features (N, in_channels, H, W)."""
        residual = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(residual)) + self.shortcut(features))


class CifarResNet(nn.Module):
    """ResNet for CIFAR (He et al., 2016): three stages of 16, 32 and 64 channels.

    Args:
        depth: number of layers, 6 n + 2.
        shortcut: ``"A"``, the paper's for CIFAR (subsample and pad with zeros), or ``"B"`` (projection).
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        UserMistake: there is no such depth or shortcut.
    """

    def __init__(self, depth: int, shortcut: Shortcut = "A", num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise UserMistake(f"a CIFAR ResNet has depth 6 n + 2, such as 20 or 56, not {depth}")
        if shortcut not in ("A", "B"):
            raise UserMistake(f"the shortcut of a CIFAR ResNet is 'A' or 'B', not {shortcut!r}")
        self.conv1 = nn.Conv2d(in_channels, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(blocks, 16, 16, shortcut)
        self.layer2 = self._stage(blocks, 16, 32, shortcut)
        self.layer3 = self._stage(blocks, 32, 64, shortcut)
        self.linear = nn.Linear(64, num_classes)
        initialise(self)

    @staticmethod
    def _stage(blocks: int, in_channels: int, out_channels: int, shortcut: Shortcut) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, shortcut)
        others = [BasicBlock(out_channels, out_channels, shortcut) for _ in range(blocks - 1)]
        return nn.Sequential(first, *others)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W) of any size, meant for 8x8 and larger."""
        features = functional.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(features.mean((2, 3)))


for _depth in (20, 32, 44, 56, 110):
    # Bound by position, so that neither name accepts an option that contradicts it.
    models.register(f"resnet{_depth}")(
        ModelEntry(partial(CifarResNet, _depth), (3, 32, 32), 10, f"ResNet-{_depth} for CIFAR, padded shortcuts (2016)")
    )
    models.register(f"resnet{_depth}-b")(
        ModelEntry(
            partial(CifarResNet, _depth, "B"), (3, 32, 32), 10, f"ResNet-{_depth} for CIFAR, projected shortcuts (2016)"
        )
    )
