"""How much a filter differs from the others of its layer: what the others can stand in for may go.

Geometric median: Y. He et al., "Filter Pruning via Geometric Median", CVPR 2019, section 3.3:
``s_j = sum_k |W_j - W_k|_2``. Cosine: B. Ayinde, J. Zurada, "Building Efficient ConvNets using Redundant Feature
Pruning", 2018: filters of one direction (a small cosine distance) are redundant; here each filter's distance to the
nearest other one, ``s_j = 1 - max_{k != j} cos(W_j, W_k)``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cutback.scores.catalogue import About, scores
from cutback.scores.filters import FilterScore


@scores.register("fpgm")
@dataclass(frozen=True)
class GeometricMedian(FilterScore):
    """Sum of the distances to all filters of the layer."""

    about = About("He 2019, section 3.3", lowest=("median",))

    def rate(self, filters: Tensor) -> Tensor:
        """Return ``sum_k |W_j - W_k|`` for the filters ``(C, K)``."""
        table = filters.double()
        return torch.cdist(table, table).sum(1)


@scores.register("cosine")
@dataclass(frozen=True)
class CosineRedundancy(FilterScore):
    """Cosine distance to the nearest filter of the layer.

    Of twins both score 0 up to rounding, and a filter of zeros scores 0.
    """

    about = About("Ayinde & Zurada 2018", lowest=("dead", "duplicate"))

    def rate(self, filters: Tensor) -> Tensor:
        """Return ``1 - max_k cos(W_j, W_k)`` for the filters ``(C, K)``, between 0 and 2; 1 for a lone filter."""
        table = functional.normalize(filters.double(), eps=torch.finfo(torch.float64).tiny)
        cosines = table @ table.T
        cosines.fill_diagonal_(-1.0 if len(table) > 1 else 0.0)
        distance = (1 - cosines.amax(1)).clamp_min(0)
        return torch.where(table.abs().amax(1) > 0, distance, 0.0)
