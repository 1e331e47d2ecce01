"""A place at which a compactor works: the forward of a batch norm, so that the model's own state stays its own.

Modules of the model would change the names of its parameters, and a checkpoint made meanwhile would fit no plain model.
Of a forward hook, a model that was compiled before would take no notice.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cutback.methods.resrep.compactor import Compactor
from cutback.methods.resrep.folding import Pair

_MOMENTUM = 0.1
"""Of the running variance, where the batch norm has none of its own."""


class Site:
    """A place at which a compactor works: behind the batch norm of a pair.

    Args:
        pair: which.
        compactor: several sites may share one.
        variance: what the outputs vary by at first, ``(C,)``.

    Attributes:
        pair: as given.
        compactor: as given.
        variance: of the compactor's outputs here, ``(C,)``, estimated in train mode as a batch norm does.
    """

    def __init__(self, pair: Pair, compactor: Compactor, variance: Tensor) -> None:
        self.pair, self.compactor, self.variance = pair, compactor, variance

    def put(self, model: nn.Module, *, follows: bool) -> "Working":
        """Let the compactor work behind the batch norm of a model, until it is told to stop.

        Args:
            model: the model, or a copy of it.
            follows: whether the variance is estimated here.
        """
        norm = model.get_submodule(self.pair.norm)
        working = Working(norm, self.compactor, self.variance if follows else None)
        vars(norm)["forward"] = working
        return working


class Working:
    """What stands for the forward of a batch norm while a compactor works behind it."""

    def __init__(self, norm: nn.Module, compactor: Compactor, variance: Tensor | None) -> None:
        self._norm, self._compactor, self._variance = norm, compactor, variance
        self._own = vars(norm).get("forward")

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:  # noqa: ANN401 (whatever the norm takes)
        """Return what the compactor makes of the norm's result."""
        own = self._own
        if own is None:
            features = type(self._norm).forward(self._norm, *arguments, **options)
        else:
            features = own(*arguments, **options)
        found = self._compactor(features)
        if self._variance is not None and self._norm.training:
            momentum = getattr(self._norm, "momentum", None)
            follow_(self._variance, found, _MOMENTUM if momentum is None else momentum)
        return found

    def stop(self) -> None:
        """Give the norm its own forward back."""
        held = vars(self._norm)
        del held["forward"]
        if self._own is not None:
            held["forward"] = self._own


@torch.no_grad()
def follow_(variance: Tensor, features: Tensor, momentum: float) -> None:
    """Let a running variance ``(C,)`` take up what features ``(N, C, ...)`` vary by."""
    others = [dimension for dimension in range(features.dim()) if dimension != 1]
    variance.lerp_(features.to(variance.dtype).var(others), momentum)


def first_variance(norm: nn.Module) -> Tensor:
    """Return what the outputs of a batch norm vary by, ``(C,)``, by its statistics."""
    assert isinstance(norm, _BatchNorm)  # noqa: S101 (pairs are made of these, with running statistics)
    assert norm.running_var is not None  # noqa: S101
    variance, scale = norm.running_var.double(), norm.weight.detach().double()
    return (scale.square() * variance / (variance + norm.eps)).to(norm.running_var.dtype)
