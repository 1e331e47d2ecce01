"""VGG-16 with batch normalisation for CIFAR."""

from torch import Tensor, nn

from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


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
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in STAGES:
            for width in stage:
                # Batch normalisation has its own shift, so a bias here would be lost in the mean it subtracts.
                convolution = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(channels, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, num_classes)
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, H, W), H and W at least 32.

        At 32x32 the features are 1x1 already; larger images are averaged over what remains.
        """
        return self.classifier(self.features(images).mean((2, 3)))


models.register("vgg16")(ModelEntry(VGG16, (3, 32, 32), 10, "VGG-16 with batch normalisation for CIFAR (2015)"))
