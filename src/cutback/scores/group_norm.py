"""The norm of everything that goes with a unit.

G. Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, section 3.3: ``I_k = sum_{w in g} |w[k]|_2^2``
over all parameters ``w`` of the group.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph, Slot
from cutback.scores.catalogue import About, scores
from cutback.scores.filters import slices_of


@scores.register("group-norm")
@dataclass(frozen=True)
class GroupNorm:
    """Sum of the squares of all that goes with a unit.

    Filters, biases, scales, shifts and columns count, running statistics do not.
    """

    about = About("Fang 2023, section 3.3", lowest=("dead",), coupled="sum of squares")

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group."""
        parameters = parameters_by_name(graph.model)
        squares: dict[Slot, Tensor] = {}
        result: dict[str, Tensor] = {}
        for group in graph.groups:
            total = torch.zeros(group.units, dtype=torch.float64)
            for slot, indices in group.slices.items():
                if slot.state not in parameters:  # a buffer
                    continue
                if slot not in squares:
                    squares[slot] = slices_of(parameters[slot.state], slot).double().square().sum(1).cpu()
                total += squares[slot][torch.from_numpy(indices)].sum(1)
            result[group.name] = total
        return result
