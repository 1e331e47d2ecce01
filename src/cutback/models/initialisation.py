"""The starting weights that all networks of this package share."""

from torch import nn


def initialise(model: nn.Module) -> None:
    """Draw every convolution and linear weight from Kaiming's normal distribution and zero the biases (He, 2015).

    Normalisation layers keep PyTorch's start: scale one, shift zero.

    Args:
        model: the network to initialise, in place.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Fan-in, not fan-out: PyTorch's fan-out ignores groups, which would shrink depthwise layers to almost zero.
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
