"""What an optimiser remembers of units that are gone, and of the network as it was before all removals."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from cutback.graph.clone import parameters_by_name, state_tensors
from cutback.graph.graph import Graph
from cutback.surgery.silenced import removed_slices

_MOMENTUM = ("momentum_buffer", "exp_avg")


def forget_removed_(optimizers: Iterable[Optimizer], graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> None:
    """Set the momentum of all parameters of removed units to zero, so that it moves them no more.

    Args:
        optimizers: those that hold the model's parameters.
        graph: the traced model.
        kept: for each group which units stay, ``(units,)``.
    """
    parameters = parameters_by_name(graph.model)
    for slot, removed in removed_slices(graph, state_tensors(graph.model), list(kept), columns=False):
        parameter = parameters.get(slot.state)
        for optimizer in optimizers if parameter is not None else ():
            for name in _MOMENTUM:
                buffer = optimizer.state.get(parameter, {}).get(name)
                if isinstance(buffer, Tensor) and buffer.shape == parameter.shape:
                    buffer.masked_fill_(removed, 0)


def forget_all_(optimizers: Iterable[Optimizer]) -> None:
    """Let optimisers begin anew: they keep their settings and forget all else."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state.pop(parameter, None)
