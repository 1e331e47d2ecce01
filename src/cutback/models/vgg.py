"""VGG with batch normalisation for CIFAR: 16 and 19 layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
STAGES_OF_19 = ((64, 64), (128, 128), *[(width,) * 4 for width in (256, 512, 512)])


class VGG16(nn.Module):
    """VGG-16 (Simonyan and Zisserman, 2015) for 32x32 images, as in Li et al. (2017).

    Thirteen 3x3 convolutions without bias, each with batch normalisation and ReLU, a 2x2 max pooling after each of
    the five stages, then linear 512-512 with batch normalisation and ReLU, and linear 512-10; no dropout.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions(in_channels, STAGES), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(
            nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, num_classes)
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W), H and W at least 32.

        At 32x32 the features are 1x1 already; larger images are averaged over what remains.
        """
        return self.classifier(self.features(images).mean((2, 3)))


class VGG19(nn.Module):
    """VGG-19 (Simonyan and Zisserman, 2015) for 32x32 images, as in Liu et al. (2017).

    Sixteen 3x3 convolutions without bias, each with batch normalisation and ReLU, a 2x2 max pooling between the five
    stages, the average over what remains (2x2), and one linear layer.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(*_convolutions(in_channels, STAGES_OF_19))
        self.classifier = nn.Linear(512, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W), H and W at least 16."""
        return self.classifier(self.features(images).mean((2, 3)))


def _convolutions(channels: int, stages: Sequence[Sequence[int]]) -> list[nn.Module]:
    """Return the convolutions with norm and ReLU, a pooling between stages."""
    layers: list[nn.Module] = []
    for stage in stages:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in stage:
            # Batch normalisation has its own shift, so a bias here would be lost in the mean it subtracts.
            convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return layers


models.register("vgg16")(ModelEntry(VGG16, (3, 32, 32), 10, "VGG-16 with batch normalisation for CIFAR (2015)"))
models.register("vgg19")(ModelEntry(VGG19, (3, 32, 32), 10, "VGG-19 with batch normalisation for CIFAR (2015)"))
