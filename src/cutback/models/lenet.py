"""LeNet-5 in the form that pruning papers use."""

from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise

MINIMUM_SIZE = 16


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) with the widths 20-50-500 of its Caffe version, the one pruning papers report on.

    Every hidden layer is followed by a ReLU; Caffe's own definition has one after the hidden linear layer only.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        input_size: height and width of the images, at least 16; the first linear layer depends on it.

    Raises:
        UserMistake: ``input_size`` is too small for two 5x5 convolutions with pooling.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, input_size: int = 28) -> None:
        super().__init__()
        if input_size < MINIMUM_SIZE:
            raise UserMistake(f"LeNet-5 needs input_size of at least {MINIMUM_SIZE}, not {input_size}")
        pooled_size = ((input_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 20, kernel_size=5)
        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)
        self.fc1 = nn.Linear(50 * pooled_size * pooled_size, 500)
        self.fc2 = nn.Linear(500, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, input_size, input_size)."""
        features = functional.max_pool2d(functional.relu(self.conv1(images)), 2)
        features = functional.max_pool2d(functional.relu(self.conv2(features)), 2)
        return self.fc2(functional.relu(self.fc1(features.flatten(1))))


models.register("lenet5")(ModelEntry(LeNet5, (1, 28, 28), 10, "LeNet-5 for 28x28 images, widths 20-50-500 (1998)"))
