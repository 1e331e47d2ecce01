"""A small RetinaNet: residual backbone, feature pyramid, and one head for all its levels."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutback.models.boxes import decoded, grid_anchors, suppressed
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

STRIDES = (4, 8, 16)
SCALES = (2.5, 2.5 * math.sqrt(2))
RATIOS = (1.0, 2.0)
"""Height over width: digits are higher than wide."""
ANCHORS = len(SCALES) * len(RATIOS)
PRIOR = 0.01
"""Every anchor starts as background with this doubt, so that the many do not drown the loss (section 4.1)."""
MOST_CANDIDATES, MOST_DETECTIONS = 200, 100


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to their input or its projection.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution; other than 1, or with other channels, the shortcut is a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, out_channels, ceil(H / stride), ceil(W / stride)) for features (N, in_channels, H, W)."""
        inner = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(features))


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al., CVPR 2017) on two stages, with one coarser level made of the last one's output.

    Args:
        channels: of the stages, finer first.
        width: channels of every level.
    """

    def __init__(self, channels: tuple[int, int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.coarser = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        """Return three levels (N, width, H, W) for the outputs of two stages, finest first."""
        top = self.lateral[1](coarse)
        below = self.lateral[0](fine) + functional.interpolate(top, size=fine.shape[-2:], mode="nearest")
        levels = [self.smooth[0](below), self.smooth[1](top)]
        return [*levels, self.coarser(functional.relu(levels[1]))]


class Tower(nn.Module):
    """Convolutions with ReLU, and one that predicts: the same ones on every level.

    Args:
        width: channels of the levels, and of the convolutions.
        depth: how many convolutions come before the one that predicts.
        outputs: figures for each anchor.
    """

    def __init__(self, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.predict = nn.Conv2d(width, ANCHORS * outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, H W anchors, outputs) for one level (N, width, H, W)."""
        for layer in self.layers:
            features = functional.relu(layer(features))
        return self.predict(features).permute(0, 2, 3, 1).reshape(len(features), -1, self.outputs)


class RetinaNet(nn.Module):
    """RetinaNet (Lin et al., ICCV 2017) for images of about 64x64, on a residual backbone of its own.

    Args:
        num_classes: classes of things, without background.
        in_channels: channels of the images.
        width: channels of the pyramid and the head; the backbone has a half, the whole and twice as many.
        depth: convolutions in each tower of the head.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width // 2, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU()
        )
        self.layer1 = Residual(width // 2, width // 2, 1)
        self.layer2 = nn.Sequential(Residual(width // 2, width, 2), Residual(width, width, 1))
        self.layer3 = nn.Sequential(Residual(width, 2 * width, 2), Residual(2 * width, 2 * width, 1))
        self.pyramid = Pyramid((width, 2 * width), width)
        self.classify = Tower(width, depth, num_classes)
        self.locate = Tower(width, depth, 4)
        initialise(self)
        for tower in (self.classify, self.locate):
            nn.init.normal_(tower.predict.weight, std=0.01)
        nn.init.constant_(self.classify.predict.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and box deltas of every anchor, in the order of ``anchors``.

        Args:
            images: (N, in_channels, H, W).

        Returns:
            Logits (N, anchors, num_classes), one sigmoid a class, and deltas (N, anchors, 4), see ``boxes.encoded``.
        """
        fine = self.layer2(self.layer1(self.stem(images)))
        levels = self.pyramid(fine, self.layer3(fine))
        logits = torch.cat([self.classify(level) for level in levels], 1)
        return logits, torch.cat([self.locate(level) for level in levels], 1)


def anchors(height: int, width: int) -> Tensor:
    """Return the anchors that a ``RetinaNet`` tells boxes relative to, ``(anchors, 4)``, for images of this size."""
    return grid_anchors(height, width, STRIDES, SCALES, RATIOS)


@torch.no_grad()
def detections(
    logits: Tensor, deltas: Tensor, boxes: Tensor, *, threshold: float = 0.05, overlap: float = 0.5
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return what a ``RetinaNet`` has found.

    Args:
        logits: (N, anchors, classes).
        deltas: (N, anchors, 4).
        boxes: the anchors (anchors, 4).
        threshold: scores below it are left out.
        overlap: of two boxes of a class that overlap by more, the better one stays.

    Returns:
        For each image boxes (found, 4), scores (found,) and classes (found,), at most 100, the best first.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for own_logits, own_deltas in zip(logits.sigmoid(), deltas, strict=True):
        scores, places = own_logits.flatten().sort(descending=True, stable=True)
        places = places[:MOST_CANDIDATES][scores[:MOST_CANDIDATES] >= threshold]
        number, classes = places // own_logits.shape[1], places % own_logits.shape[1]
        scores, placed = own_logits.flatten()[places], decoded(own_deltas[number], boxes[number])
        stays = suppressed(placed, scores, classes, overlap)[:MOST_DETECTIONS]
        found.append((placed[stays], scores[stays], classes[stays]))
    return found


models.register("retinanet")(ModelEntry(RetinaNet, (1, 64, 64), 10, "small RetinaNet for digits on canvases (2017)"))
