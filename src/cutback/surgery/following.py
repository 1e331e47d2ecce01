"""Averages of a model after its weights were changed at one stroke."""

from collections.abc import Iterable

import torch
from torch import nn

from cutback.graph.clone import state_tensors


def follow_(copies: Iterable[nn.Module], model: nn.Module) -> None:
    """Let averages of a model begin anew with its present values.

    Args:
        copies: bare or with the copy as ``module``; of the same shapes.
        model: the model.
    """
    values = state_tensors(model)
    with torch.no_grad():
        for copied in copies:
            for name, tensor in state_tensors(getattr(copied, "module", copied)).items():
                tensor.copy_(values[name])
