"""What a mask costs: MACs as a function of masks that need not be whole, or how many units stay."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.planning.cost import CostModel

COSTS = ("macs", "units")


class Complexity:
    """The share of the whole network's cost that a masked network has.

    The width of a group is the sum of its masks. MACs are products of neighbouring widths, so that the price of a unit,
    the derivative by its mask, falls as its neighbours get narrower.

    Args:
        graph: the traced model.
        groups: the numbers of the groups with masks.
        cost: ``macs``, or ``units`` for the mean of the masks.
    """

    def __init__(self, graph: Graph, groups: Sequence[int], cost: str) -> None:
        self.sizes = [graph.groups[number].units for number in groups]
        self._macs = CostModel(graph) if cost == "macs" else None
        self._whole = torch.tensor([group.units for group in graph.groups], dtype=torch.float64)
        self._groups = torch.tensor(groups)
        self._dense = float(self._macs.smooth_macs(self._whole)) if self._macs else 0.0

    def of(self, mask: Tensor) -> Tensor:
        """Return the share, a scalar in 0..1 that can be differentiated.

        Args:
            mask: of the units of all groups, one group after the other, ``(units,)``.
        """
        if self._macs is None:
            return mask.mean()
        widths = torch.stack([part.sum() for part in mask.cpu().double().split(self.sizes)])
        widths = self._whole.index_copy(0, self._groups, widths)
        return (self._macs.smooth_macs(widths) / self._dense).to(mask)

    def prices(self, mask: Tensor) -> Tensor:
        """Return by how much the share rises with each mask, ``(units,)``."""
        leaf = mask.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.of(leaf), leaf)[0]
