"""Small networks in the manner of published families, for pictures of the size of handwritten digits.

``cutback prune benchmarks/networks.py:resnext --data digits`` takes one by the name of its function. Those whose name
ends in 28 or 32 are for MNIST and for CIFAR-10: a first layer moves each 2x2 pixels into channels.
"""

from collections.abc import Callable

from torch import Tensor, nn


def normed(inputs: int, outputs: int, size: int = 1, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    """Scales each channel by what all of them are on average (Hu 2018)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``(N, C, H, W)``."""
        return x * self.scale(x)


class Residual(nn.Module):
    """A residual block: an inner path, and a projection where widths or sizes differ.

    Args:
        path: from ``inputs`` to ``outputs`` channels.
        inputs: channels that enter.
        outputs: channels that leave.
        stride: of the path.
        activation: whether a ReLU follows the sum.
    """

    def __init__(self, path: nn.Module, inputs: int, outputs: int, stride: int, *, activation: bool = True) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.path = path
        self.shortcut = nn.Identity() if same else normed(inputs, outputs, stride=stride)
        self.after = nn.ReLU() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add both ways."""
        return self.after(self.path(x) + self.shortcut(x))


def grouped(inputs: int, outputs: int, width: int, groups: int, stride: int, *, squeeze: bool) -> Residual:
    """Return a bottleneck whose 3x3 convolution is grouped (Xie 2017), with or without squeeze-excitation."""
    path = nn.Sequential(
        normed(inputs, width),
        nn.ReLU(),
        normed(width, width, 3, stride=stride, groups=groups),
        nn.ReLU(),
        *([SqueezeExcite(width, inputs // 4)] if squeeze else []),
        normed(width, outputs),
    )
    return Residual(path, inputs, outputs, stride)


def inverted(inputs: int, outputs: int, expansion: int, stride: int) -> nn.Module:
    """Return an inverted residual block (Sandler 2018), without shortcut where widths or sizes differ."""
    width = inputs * expansion
    path = nn.Sequential(
        normed(inputs, width),
        nn.ReLU6(),
        normed(width, width, 3, stride=stride, groups=width),
        nn.ReLU6(),
        normed(width, outputs),
    )
    return Residual(path, inputs, outputs, stride, activation=False) if inputs == outputs and stride == 1 else path


def basic(inputs: int, outputs: int, stride: int) -> Residual:
    """Return a basic residual block (He 2016)."""
    path = nn.Sequential(normed(inputs, outputs, 3, stride=stride), nn.ReLU(), normed(outputs, outputs, 3))
    return Residual(path, inputs, outputs, stride)


def finished(layers: list[nn.Module], channels: int, num_classes: int) -> nn.Sequential:
    """Return a network of layers, the global average and a linear layer."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def resnext(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a ResNeXt of four blocks with 8 groups (Xie 2017)."""
    layers: list[nn.Module] = [normed(in_channels, 32, 3), nn.ReLU()]
    for inputs, outputs, width, stride in ((32, 64, 32, 1), (64, 64, 32, 1), (64, 128, 64, 2), (128, 128, 64, 1)):
        layers.append(grouped(inputs, outputs, width, 8, stride, squeeze=False))
    return finished(layers, 128, num_classes)


def regnet(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a RegNetY of four blocks with groups of 8 channels and squeeze-excitation (Radosavovic 2020)."""
    layers: list[nn.Module] = [normed(in_channels, 32, 3), nn.ReLU()]
    for inputs, outputs, stride in ((32, 48, 1), (48, 48, 1), (48, 104, 2), (104, 104, 1)):
        layers.append(grouped(inputs, outputs, outputs, outputs // 8, stride, squeeze=True))
    return finished(layers, 104, num_classes)


def mobilenet_v1(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a MobileNet of five depthwise separable blocks (Howard 2017)."""
    layers: list[nn.Module] = [normed(in_channels, 32, 3), nn.ReLU()]
    for inputs, outputs, stride in ((32, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1)):
        depthwise = normed(inputs, inputs, 3, stride=stride, groups=inputs)
        layers += [depthwise, nn.ReLU(), normed(inputs, outputs), nn.ReLU()]
    return finished(layers, 128, num_classes)


def mobilenet_v2(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a MobileNetV2 of five inverted residual blocks (Sandler 2018)."""
    layers: list[nn.Module] = [normed(in_channels, 16, 3), nn.ReLU6()]
    for inputs, outputs, stride in ((16, 24, 1), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 40, 1)):
        layers.append(inverted(inputs, outputs, 4, stride))
    return finished([*layers, normed(40, 128), nn.ReLU6()], 128, num_classes)


def bottleneck(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a residual network of four bottlenecks (He 2016)."""
    layers: list[nn.Module] = [normed(in_channels, 32, 3), nn.ReLU()]
    for inputs, outputs, width, stride in ((32, 64, 16, 1), (64, 64, 16, 1), (64, 128, 32, 2), (128, 128, 32, 1)):
        layers.append(grouped(inputs, outputs, width, 1, stride, squeeze=False))
    return finished(layers, 128, num_classes)


def alexnet(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a network in the manner of AlexNet (Krizhevsky 2012): five convolutions, three linear layers, no norm."""
    layers: list[nn.Module] = []
    for inputs, outputs, pool in ((in_channels, 32, 0), (32, 64, 2), (64, 96, 0), (96, 64, 0), (64, 64, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(pool)] if pool else []
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(256, 128), nn.ReLU()]
    layers += [nn.Dropout(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, num_classes)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):  # without norms smaller weights take many epochs to begin to learn
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def resnet18(num_classes: int = 10, in_channels: int = 1) -> nn.Sequential:
    """Return a ResNet-18 in its full width (He 2016), its first convolution 3x3."""
    layers: list[nn.Module] = [normed(in_channels, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]
    for inputs, outputs, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [basic(inputs, outputs, stride), basic(outputs, outputs, 1)]
    return finished(layers, 512, num_classes)


def halved(make: Callable[..., nn.Sequential], in_channels: int) -> nn.Sequential:
    """Return a network for pictures of twice the size, which has each 2x2 of their pixels as channels."""
    return nn.Sequential(nn.PixelUnshuffle(2), make(in_channels=4 * in_channels))


def alexnet28() -> nn.Sequential:
    """Return ``alexnet`` for ``(N, 1, 28, 28)``."""
    return halved(alexnet, 1)


def alexnet32() -> nn.Sequential:
    """Return ``alexnet`` for ``(N, 3, 32, 32)``."""
    return halved(alexnet, 3)


def mobilenet_v1_28() -> nn.Sequential:
    """Return ``mobilenet_v1`` for ``(N, 1, 28, 28)``."""
    return halved(mobilenet_v1, 1)


def mobilenet_v1_32() -> nn.Sequential:
    """Return ``mobilenet_v1`` for ``(N, 3, 32, 32)``."""
    return halved(mobilenet_v1, 3)


def bottleneck28() -> nn.Sequential:
    """Return ``bottleneck`` for ``(N, 1, 28, 28)``."""
    return halved(bottleneck, 1)


def bottleneck32() -> nn.Sequential:
    """Return ``bottleneck`` for ``(N, 3, 32, 32)``."""
    return halved(bottleneck, 3)


def resnet18_28() -> nn.Sequential:
    """Return ``resnet18`` for ``(N, 1, 28, 28)``."""
    return halved(resnet18, 1)


def resnet18_32() -> nn.Sequential:
    """Return ``resnet18`` for ``(N, 3, 32, 32)``."""
    return halved(resnet18, 3)
