"""Detectors up to what their heads predict: torchvision's RetinaNet and FCOS, and blocks as Ultralytics has them."""

import torch
from torch import Tensor, nn
from torchvision.models.detection import fcos, retinanet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

WIDTH = 64
"""Channels of the pyramid and of the heads; torchvision's ready-made ones have 256."""


class Dense(nn.Module):
    """Backbone, pyramid and head of a one-stage detector: images in, what the head predicts out."""

    def __init__(self, head: nn.Module, levels: int) -> None:
        super().__init__()
        stages = {"layer2": "0", "layer3": "1", "layer4": "2"}
        self.levels = levels
        more = LastLevelP6P7(WIDTH, WIDTH) if levels > 3 else None
        self.backbone = BackboneWithFPN(ResNet(BasicBlock, [1, 1, 1, 1]), stages, [128, 256, 512], WIDTH, more)
        self.head = head

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.head(list(self.backbone(images).values())[: self.levels]).values())


def torchvision_retinanet() -> nn.Module:
    return Dense(retinanet.RetinaNetHead(WIDTH, num_anchors=9, num_classes=5), levels=5)


def torchvision_fcos() -> nn.Module:
    # A level of one position on small images would be too little for a group norm, which wants more than one value.
    return Dense(fcos.FCOSHead(WIDTH, num_anchors=1, num_classes=5), levels=3)


class Conv(nn.Module):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(channels, channels, 3), Conv(channels, channels, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = self.cv2(self.cv1(x))
        return x + inner if self.add else inner


class C2f(nn.Module):
    """One convolution, whose second half goes through bottlenecks; both halves and all results side by side."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1, shortcut: bool = False) -> None:
        super().__init__()
        self.c = outputs // 2
        self.cv1, self.cv2 = Conv(inputs, 2 * self.c), Conv((2 + depth) * self.c, outputs)
        self.m = nn.ModuleList(Bottleneck(self.c, shortcut) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))


class SPPF(nn.Module):
    """One pooling three times over, with all it passes through side by side."""

    def __init__(self, inputs: int, outputs: int, size: int = 5) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(inputs, inputs // 2), Conv(inputs // 2 * 4, outputs)
        self.m = nn.MaxPool2d(size, stride=1, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        parts.extend(self.m(parts[-1]) for _ in range(3))
        return self.cv2(torch.cat(parts, 1))


class Detect(nn.Module):
    """A head of its own for each level: boxes as distributions over 4 bins a side, and classes."""

    def __init__(self, classes: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(c, 16, 3), Conv(16, 16, 3), nn.Conv2d(16, 16, 1)) for c in channels)
        self.cv3 = nn.ModuleList(
            nn.Sequential(Conv(c, 16, 3), Conv(16, 16, 3), nn.Conv2d(16, classes, 1)) for c in channels
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        rows = zip(levels, self.cv2, self.cv3, strict=True)
        return torch.cat([torch.cat([box(x), cls(x)], 1).flatten(2) for x, box, cls in rows], 2)


class Yolo(nn.Module):
    """Backbone with C2f and SPPF, a neck that goes up and down again, and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down1 = Conv(3, 8, 3, 2), Conv(8, 16, 3, 2)
        self.stage1 = C2f(16, 16, 1, shortcut=True)
        self.down2, self.stage2 = Conv(16, 24, 3, 2), C2f(24, 24, 2, shortcut=True)
        self.down3, self.stage3 = Conv(24, 32, 3, 2), C2f(32, 32, 1, shortcut=True)
        self.pool = SPPF(32, 32)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.neck2, self.neck1 = C2f(32 + 24, 24), C2f(24 + 16, 16)
        self.back2, self.low2 = Conv(16, 16, 3, 2), C2f(16 + 24, 24)
        self.back3, self.low3 = Conv(24, 24, 3, 2), C2f(24 + 32, 32)
        self.detect = Detect(5, (16, 24, 32))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.stage1(self.down1(self.stem(images)))
        middle = self.stage2(self.down2(fine))
        coarse = self.pool(self.stage3(self.down3(middle)))
        joined = self.neck2(torch.cat([self.up(coarse), middle], 1))
        first = self.neck1(torch.cat([self.up(joined), fine], 1))
        second = self.low2(torch.cat([self.back2(first), joined], 1))
        third = self.low3(torch.cat([self.back3(second), coarse], 1))
        return self.detect([first, second, third])
