"""Taylor expansion of the loss in each weight, to first order, summed over filters.

P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019: ``I = sum_s (g_s w_s)^2`` over the
weights ``s`` of a filter, with the gradient ``g`` of a minibatch's loss; averaged over minibatches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cutback.graph.graph import Graph
from cutback.scores.aggregation import check_aggregate
from cutback.scores.catalogue import About, scores
from cutback.scores.filters import summed, weights_of
from cutback.scores.gradient import BatchMean, GradientScore, differentiated, flattened, read_weights, unflattened


@scores.register("taylor-weight")
@dataclass(frozen=True)
class TaylorWeight(GradientScore):
    """Sum over a filter's weights of (gradient times weight)^2.

    All full batches count alike; see ``BatchMean`` for smaller ones, and for several processes.

    Attributes:
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the filters of a unit (see ``aggregation``).
    """

    about = About(
        "Molchanov 2019, per weight", needs=("weights", "gradients", "labels"), lowest=("dead",), batchwise=True
    )

    aggregate: str = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, they are of several sizes, or the loss is no scalar.
        """
        if not graph.groups:
            return {}
        weights = weights_of(graph)

        def rate(gradient: Tensor) -> Tensor:
            found = unflattened(gradient, weights)
            return flattened((found[name] * weight.double()).square() for name, weight in weights.items())

        mean = BatchMean(flattened(weights.values()), rate)

        def see(count: int, parameters: Mapping[str, Tensor], loss: Tensor) -> None:
            mean.add(count, flattened(differentiated(loss, [parameters[name] for name in weights])))

        read_weights(self, graph, see)
        return summed(graph, unflattened(mean.mean(), weights), self.aggregate)
