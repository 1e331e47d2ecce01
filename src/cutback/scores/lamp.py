"""LAMP for whole filters: how much of what a layer would have left is lost with a filter.

J. Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021, section 3: the score of a weight is
its square over the sum of the squares of all weights of its layer that are not smaller. Here for filters instead of
weights: ``s_j = |W_j|^2 / sum_{k: |W_k| >= |W_j|} |W_k|^2``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.scores.catalogue import About, scores
from cutback.scores.filters import FilterScore


@scores.register("lamp")
@dataclass(frozen=True)
class LAMP(FilterScore):
    """Squared norm over that of all filters not smaller."""

    about = About("Lee 2021, section 3", lowest=("dead",))

    def rate(self, filters: Tensor) -> Tensor:
        """Return the scores of the filters ``(C, K)``, between 0 and 1; 0 where all are zero."""
        squares = filters.double().square().sum(1)
        ordered = squares.sort().values
        # What is left when all smaller filters are gone; equal filters share one score.
        left = ordered.flip(0).cumsum(0).flip(0)[torch.searchsorted(ordered, squares)]
        return torch.where(squares > 0, squares / left, 0.0)
