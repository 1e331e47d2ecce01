"""How much a channel's maps tell.

M. Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020, section "HRank": the mean rank of a
channel's feature maps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.scores.activation import ActivationScore
from cutback.scores.catalogue import About, scores


@scores.register("hrank")
@dataclass(frozen=True)
class HRank(ActivationScore):
    """Mean rank of each feature map.

    A singular value counts if it is above the largest one times the larger side of the map times single precision's
    epsilon, whatever the model's type. A map without positions has rank 1, or 0 if it is zero; of a map with more than
    two dimensions all but the last are put together.
    """

    about = About("Lin 2020, rank of feature maps", needs=("activations",), lowest=("dead",))

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n rank(x_n)`` for maps ``(N, C, ...)``."""
        width = maps.shape[-1] if maps.dim() > 2 else 1
        tables = maps.reshape(*maps.shape[:2], -1, width).double()
        tolerance = max(tables.shape[2:]) * torch.finfo(torch.float32).eps
        return torch.linalg.matrix_rank(tables, rtol=tolerance).sum(0, dtype=torch.float64)[None]
