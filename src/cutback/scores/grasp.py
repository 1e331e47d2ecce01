"""Gradient signal preservation: how much less the loss would fall in one step without a weight.

C. Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020, section 4, equation 8:
``S = -theta * (H g)`` with gradient ``g`` and Hessian ``H`` of the loss; the weights with the highest ``S`` go. Higher
means more important here, so a filter's score is ``-S`` summed over its weights, ``sum theta * (H g)``: half of what
the squared norm of the gradient loses with the filter, to first order. Both are of the mean loss over all the data and
of all parameters of two or more dimensions, as the paper takes the weights of convolutions and linear layers. The
paper divides outputs by a temperature of 200 before the loss; do so in ``loss`` where that is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cutback.errors import UserMistake
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.scores.aggregation import check_aggregate
from cutback.scores.catalogue import About, scores
from cutback.scores.filters import summed, weights_of
from cutback.scores.gradient import GradientScore, mean_gradient, unflattened


@scores.register("grasp")
@dataclass(frozen=True)
class GraSP(GradientScore):
    """Gradient flow that a filter carries: theta * (H g), signed.

    The loader is run through twice, and must give the same samples. How they are put into batches makes no difference
    in eval mode.

    Attributes:
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the filters of a unit (see ``aggregation``).
    """

    about = About("Wang 2020, equation 8", needs=("weights", "gradients", "labels"))

    aggregate: str = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, the loader gives other samples the second time, or the loss is no scalar.
        """
        if not graph.groups:
            return {}
        made = weights_of(graph)
        weights = {
            name: parameter.detach()
            for name, parameter in parameters_by_name(graph.model).items()
            if parameter.is_floating_point() and (parameter.dim() > 1 or name in made)
        }
        gradient, samples = mean_gradient(self, graph, weights)
        product, again = mean_gradient(self, graph, weights, along=gradient)
        if again != samples:
            raise UserMistake(
                f"the loader gave {samples} samples and then {again}; GraSP needs the same ones twice: pass a list or "
                "a DataLoader"
            )
        found = unflattened(product, weights)
        return summed(graph, {name: found[name] * weights[name] for name in weights}, self.aggregate)
