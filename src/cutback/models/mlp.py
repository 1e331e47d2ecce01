"""A multilayer perceptron for MNIST, with or without batch normalisation."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from cutback.models.catalogue import ModelEntry, models
from cutback.surgery.initialise import initialise


class MLP(nn.Module):
    """Perceptron 784-500-300-10, on which structured sparsity was shown (Wen et al., 2016; Liu et al., 2017).

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        input_size: height and width of the images.
        batch_norm: whether batch normalisation follows the hidden layers, whose scales Liu et al. prune by.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, input_size: int = 28, *, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels * input_size * input_size, 500)
        self.bn1: nn.Module = nn.BatchNorm1d(500) if batch_norm else nn.Identity()
        self.fc2 = nn.Linear(500, 300)
        self.bn2: nn.Module = nn.BatchNorm1d(300) if batch_norm else nn.Identity()
        self.fc3 = nn.Linear(300, num_classes)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) for images (N, in_channels, input_size, input_size)."""
        hidden = functional.relu(self.bn1(self.fc1(images.flatten(1))))
        return self.fc3(functional.relu(self.bn2(self.fc2(hidden))))


models.register("mlp")(ModelEntry(MLP, (1, 28, 28), 10, "perceptron 784-500-300-10 for 28x28 images (2016)"))
models.register("mlp-bn")(
    ModelEntry(partial(MLP, batch_norm=True), (1, 28, 28), 10, "the same perceptron with batch normalisation (2017)")
)
