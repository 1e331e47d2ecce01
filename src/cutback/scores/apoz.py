"""How often a channel is silent.

H. Hu et al., "Network Trimming", 2016, equation 1: the average percentage of zeros of a channel after its ReLU.
"""

from dataclasses import dataclass

from torch import Tensor, float64

from cutback.scores.activation import ActivationScore
from cutback.scores.catalogue import About, scores


@scores.register("apoz")
@dataclass(frozen=True)
class APoZ(ActivationScore):
    """Share of positions that are not zero after the ReLU.

    One less the published average percentage of zeros, so that higher means more important. After an activation that
    is never exactly zero all channels score 1.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> loader = [(torch.randn(4, 3, 8, 8), torch.zeros(4)) for _ in range(2)]
        >>> plan = cutback.plan(graph, score=cutback.scores.APoZ(loader), budget="channels=50%")
        >>> len(plan.groups[0].kept)
        4
    """

    about = About("Hu 2016, equation 1", needs=("activations",), lowest=("dead",))

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n mean(x_n != 0)`` for maps ``(N, C, ...)``."""
        return (maps[..., None].flatten(2) != 0).mean(2, dtype=float64).sum(0)[None]
