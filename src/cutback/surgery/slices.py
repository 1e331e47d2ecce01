"""Taking what a plan keeps out of tensors, and multiplying what makes up for a width."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import ArchitectureMismatch
from cutback.planning.plan import Kept, Plan, Scaled


def sliced(tensor: Tensor, dimensions: Mapping[int, Kept]) -> Tensor:
    """Return a new tensor with what stays along each cut dimension.

    Raises:
        ArchitectureMismatch: blocks of the first dimension would keep unequal numbers of slices.
    """
    size = tensor.shape[0] if tensor.dim() else 0
    rows = dimensions[0].array if 0 in dimensions else np.arange(size)
    for dimension, kept in dimensions.items():
        if kept.blocks == 1:
            tensor = tensor.index_select(dimension, torch.tensor(kept.array, device=tensor.device))
    for dimension, kept in dimensions.items():
        if kept.blocks > 1:
            index = torch.tensor(_by_row(kept, rows, size), device=tensor.device)
            shape = [1] * tensor.dim()
            shape[0], shape[dimension] = index.shape
            target = list(tensor.shape)
            target[dimension] = index.shape[1]
            tensor = tensor.gather(dimension, index.view(shape).expand(target))
    return tensor


def _by_row(kept: Kept, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return what stays of each row that stays, ``(rows, columns)``, given how many rows there were."""
    block, column = np.divmod(kept.array, kept.total // kept.blocks)
    counts = np.bincount(block, minlength=kept.blocks)
    own = rows * kept.blocks // max(size, 1)
    width = int(counts[own[0]]) if len(own) else 0
    if size % kept.blocks or not width or (counts[own] != width).any():
        raise ArchitectureMismatch(
            f"a grouped convolution of {kept.blocks} groups would keep unequal numbers of channels in them; "
            "use a plan made by cutback for this model"
        )
    starts = np.cumsum(counts) - counts
    return column[np.argsort(block, kind="stable")][starts[own][:, None] + np.arange(width)]


def multiplied(tensor: Tensor, scales: Sequence[Scaled], *, inverse: bool = False) -> Tensor:
    """Return a tensor with some slices multiplied; the same tensor where there are none.

    Args:
        tensor: before the cut.
        scales: which slices and by what.
        inverse: divide instead, as the gradient of what is multiplied must be.
    """
    for scaled in scales:
        factors = torch.ones(tensor.shape[scaled.dimension], dtype=torch.float64)
        factors[list(scaled.indices)] = 1 / scaled.factor if inverse else scaled.factor
        shape = [1] * tensor.dim()
        shape[scaled.dimension] = -1
        tensor = (tensor * factors.view(shape).to(tensor.device)).to(tensor.dtype)
    return tensor


def cut_states(states: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Return detached states with the plan's slices multiplied and taken; what is not cut is the same tensor.

    Raises:
        ArchitectureMismatch: a state the plan cuts does not exist or has another size.
    """
    for name, dimensions in plan.slices.items():
        for dimension, kept in dimensions.items():
            check_slice(states, name, dimension, kept)
    for name, scales in plan.scales.items():
        check_scales(states, name, scales)
    return {
        name: sliced(multiplied(tensor.detach(), plan.scales.get(name, ())), plan.slices.get(name, {}))
        for name, tensor in states.items()
    }


def check_scales(states: Mapping[str, Tensor], name: str, scales: Sequence[Scaled]) -> None:
    """Refuse a multiplication that does not fit the model.

    Raises:
        ArchitectureMismatch: see ``cut_states``.
    """
    shape = tuple(states[name].shape) if name in states else ()
    for scaled in scales:
        size = shape[scaled.dimension] if 0 <= scaled.dimension < len(shape) else 0
        if not scaled.indices or not 0 <= min(scaled.indices) <= max(scaled.indices) < size:
            raise ArchitectureMismatch(
                f"the plan multiplies {len(scaled.indices)} slices along dimension {scaled.dimension} of {name}, which "
                f"{f'has shape {shape}' if name in states else 'does not exist'}; use the plan on the model it was "
                "made for"
            )


def check_slice(states: Mapping[str, Tensor], name: str, dimension: int, kept: Kept) -> None:
    """Refuse a slice that does not fit the model.

    Raises:
        ArchitectureMismatch: see ``cut_states``.
    """
    shape = tuple(states[name].shape) if name in states else None
    fits = shape is not None and dimension < len(shape) and shape[dimension] * kept.blocks == kept.total
    if not fits or not kept.indices or kept.span[0] < 0 or kept.span[1] >= kept.total:
        raise ArchitectureMismatch(
            f"the plan keeps {len(kept.indices)} of {kept.total} along dimension {dimension} of {name}, which "
            f"{'does not exist' if shape is None else f'has shape {shape}'}; use the plan on the model it was made for"
        )
