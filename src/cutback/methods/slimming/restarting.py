"""New weights for a network that was cut: a pass that starts from scratch in the narrow network."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer


def renew_(model: nn.Module, optimizers: Iterable[Optimizer], seed: int) -> None:
    """Draw all weights anew and forget the optimisers' state.

    Convolutions and linear layers get Kaiming's normal distribution (He, 2015) and no bias, every other module what its
    own ``reset_parameters`` gives. The weights depend on the seed alone, so that all processes draw the same.

    Args:
        model: the network.
        optimizers: those that hold its parameters.
        seed: of the draw.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    parameters = set(model.parameters())
    for optimizer in optimizers:
        for parameter in parameters & optimizer.state.keys():
            del optimizer.state[parameter]
