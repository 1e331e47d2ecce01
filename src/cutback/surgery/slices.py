"""Taking what a plan keeps out of tensors."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cutback.errors import ArchitectureMismatch
from cutback.planning.plan import Kept, Plan


def sliced(tensor: Tensor, dimensions: Mapping[int, Kept]) -> Tensor:
    """Return a new tensor with what stays along each cut dimension."""
    for dimension, kept in dimensions.items():
        index = torch.tensor(kept.indices, dtype=torch.int64, device=tensor.device)
        tensor = tensor.index_select(dimension, index)
    return tensor


def cut_states(states: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Return detached states with the plan's slices taken; what is not cut is the same tensor.

    Raises:
        ArchitectureMismatch: a state the plan cuts does not exist or has another size.
    """
    for name, dimensions in plan.slices.items():
        for dimension, kept in dimensions.items():
            check_slice(states, name, dimension, kept)
    return {name: sliced(tensor.detach(), plan.slices.get(name, {})) for name, tensor in states.items()}


def check_slice(states: Mapping[str, Tensor], name: str, dimension: int, kept: Kept) -> None:
    """Refuse a slice that does not fit the model.

    Raises:
        ArchitectureMismatch: see ``cut_states``.
    """
    shape = tuple(states[name].shape) if name in states else None
    fits = shape is not None and dimension < len(shape) and shape[dimension] == kept.total
    if not fits or not kept.indices or max(kept.indices) >= kept.total or min(kept.indices) < 0:
        raise ArchitectureMismatch(
            f"the plan keeps {len(kept.indices)} of {kept.total} along dimension {dimension} of {name}, which "
            f"{'does not exist' if shape is None else f'has shape {shape}'}; use the plan on the model it was made for"
        )
