"""MobileNetV1 for CIFAR."""

from torch import Tensor, nn

from cutback.errors import UserMistake
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

# Width and stride of each depthwise separable block.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(in_channels), nn.ReLU(), pointwise, nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class MobileNetV1(nn.Module):
    """MobileNetV1 (Howard et al., 2017) for 32x32 images: a stem and thirteen depthwise separable blocks.

    The stem has stride 1, not the 2 it has for 224x224 images; the four blocks with stride 2 are the paper's, so a
    32x32 image ends as 2x2 before the global average.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        width: the paper's width multiplier; no layer gets fewer than 8 channels.

    Raises:
        UserMistake: ``width`` is not positive.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        if width <= 0:
            raise UserMistake(f"MobileNetV1 needs a positive width, not {width}")
        channels = max(8, int(32 * width))
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        for base_channels, stride in BLOCKS:
            out_channels = max(8, int(base_channels * width))
            blocks.append(_separable(channels, out_channels, stride))
            channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W) of any size."""
        return self.linear(self.blocks(self.stem(images)).mean((2, 3)))


models.register("mobilenetv1")(ModelEntry(MobileNetV1, (3, 32, 32), 10, "MobileNetV1 for CIFAR (2017)"))
