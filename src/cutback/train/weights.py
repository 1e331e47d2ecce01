"""A network's values, taken and given back by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cutback.errors import ArchitectureMismatch
from cutback.graph.clone import state_tensors


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of a network's parameters and buffers on the CPU, by name, tied ones once."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state_tensors(model).items()}


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network values of the same names and shapes, in place.

    Raises:
        ArchitectureMismatch: a tensor is missing or has another shape; nothing was changed.
    """
    tensors = state_tensors(model)
    for name, tensor in tensors.items():
        if name not in weights or weights[name].shape != tensor.shape:
            there = f"has shape {tuple(weights[name].shape)}" if name in weights else "is missing"
            raise ArchitectureMismatch(
                f"{name} of {type(model).__name__} has shape {tuple(tensor.shape)}, but {there} among the saved "
                "values; they belong to another network"
            )
    for name, tensor in tensors.items():
        tensor.copy_(weights[name])
