"""The penalty on scales: its sub-gradient, how its strength changes during a run, and how far it can pull.

Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3. The smooth
form is that of M. Schmidt, G. Fung, R. Rosales, "Fast Optimization Methods for L1 Regularization", ECML 2007, which the
paper names without a formula.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "rising": lambda done: done,
    "falling": lambda done: 1.0 - done,
}
"""By which factor the penalty's strength is multiplied when a share of the sparse training is done."""


def sub_gradient(scales: Tensor, smooth: float | None = None) -> Tensor:
    """Return the gradient of ``sum(g(scales))`` in the shape of the scales.

    Args:
        scales: any shape.
        smooth: ``None`` for ``g(s) = |s|``, whose sub-gradient is ``sign(s)``, 0 at 0; else the ``alpha`` of
            ``g(s) = (log(1 + exp(-alpha s)) + log(1 + exp(alpha s))) / alpha`` with the gradient
            ``tanh(alpha s / 2)``.

    Example:
        >>> sub_gradient(torch.tensor([-0.3, 0.0, 2.0]))
        tensor([-1.,  0.,  1.])
    """
    return scales.sign() if smooth is None else torch.tanh(scales * (smooth / 2))


def pull(strength: float, rates: Iterable[float], momentum: float = 0.0) -> float:
    """Return how far the penalty pulls an unused scale in all: ``strength * sum(rates) / (1 - momentum)``.

    The published runs have about 6.6 (VGG on CIFAR), 0.66 (ResNet and DenseNet) and 1.1 (VGG-A on ImageNet). Where it
    is less than the scales are at first, none can reach zero.

    Args:
        strength: of the penalty.
        rates: the learning rate of each step.
        momentum: of the optimiser (SGD).

    Example:
        >>> round(pull(0.03, [0.05] * 210 + [0.005] * 105 + [0.0005] * 105, 0.9), 5)
        3.32325
    """
    return strength * sum(rates) / (1 - momentum)
