"""Connection sensitivity: how much the loss depends on whether a weight is there.

N. Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019, section 4.1:
``s_j = |g_j w_j|`` with the gradient ``g`` of the loss over all the data (the paper: one batch). Here summed over a
filter's weights, as the paper cuts weights and not filters; its division by the sum over all weights changes no order
and is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cutback.graph.graph import Graph
from cutback.scores.aggregation import check_aggregate
from cutback.scores.catalogue import About, scores
from cutback.scores.filters import summed, weights_of
from cutback.scores.gradient import GradientScore, mean_gradient, unflattened


@scores.register("snip")
@dataclass(frozen=True)
class SNIP(GradientScore):
    """Sum over a filter's weights of |gradient times weight|.

    How samples are put into batches makes no difference in eval mode; one sum of gradients is kept.

    Attributes:
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the filters of a unit (see ``aggregation``).
    """

    about = About("Lee 2019, section 4.1", needs=("weights", "gradients", "labels"), lowest=("dead",))

    aggregate: str = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, or the loss is no scalar.
        """
        if not graph.groups:
            return {}
        weights = weights_of(graph)
        gradient, _ = mean_gradient(self, graph, weights)
        found = unflattened(gradient, weights)
        return summed(graph, {name: (found[name] * weights[name]).abs() for name in weights}, self.aggregate)
