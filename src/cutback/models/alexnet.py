"""AlexNet for small images."""

from torch import Tensor, nn

from cutback.errors import UserMistake
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

MINIMUM_SIZE = 15


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al., 2012; widths of Krizhevsky, 2014) adapted to small images.

    Five convolutions 64-192-384-256-256, three overlapping 3x3 max poolings, three linear layers. For 32x32 images
    the first convolution is 5x5 with stride 1 instead of 11x11 with stride 4, and the hidden linear layers have 1024
    units instead of 4096; local response normalisation is left out.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        input_size: height and width of the images, at least 15; the first linear layer depends on it.
        dropout: probability of dropout before the two hidden linear layers.

    Raises:
        UserMistake: ``input_size`` is too small for three poolings.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, input_size: int = 32, dropout: float = 0.5) -> None:
        super().__init__()
        if input_size < MINIMUM_SIZE:
            raise UserMistake(f"AlexNet needs input_size of at least {MINIMUM_SIZE}, not {input_size}")
        pooled_size = input_size
        for _ in range(3):
            pooled_size = (pooled_size - 3) // 2 + 1
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * pooled_size * pooled_size, 1024), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(1024, 1024), nn.ReLU(),
            nn.Linear(1024, num_classes),
        )  # fmt: skip
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, input_size, input_size)."""
        return self.classifier(self.features(images).flatten(1))


models.register("alexnet")(ModelEntry(AlexNet, (3, 32, 32), 10, "AlexNet adapted to 32x32 images (2012)"))
