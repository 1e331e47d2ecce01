"""Taylor expansion of the loss in a gate after the norm, to second order.

P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, with the diagonal of the Hessian
alone: ``I_c = (-g_c + H_cc / 2)^2`` for a gate ``z = 1``, for each minibatch, then averaged. Gates as for ``taylor``,
divided by the number of places likewise. The diagonal is that of M. Hutchinson, "A stochastic estimator of the trace of
the influence matrix", 1990, as mean of ``v * (H v)`` over random signs ``v``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cutback.errors import UserMistake
from cutback.gates import Gates
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.scores.catalogue import About, scores
from cutback.scores.data import batches_of, device_of
from cutback.scores.gradient import (
    BatchMean,
    GradientScore,
    differentiable_loss,
    differentiated,
    parted,
    places_of,
    sample_count,
    to_differentiate,
)


@scores.register("taylor-second")
@dataclass(frozen=True)
class TaylorSecond(GradientScore):
    """Squared change of each batch's loss, to second order.

    Costs two backward passes for each probe. All full batches count alike; see ``BatchMean`` for smaller ones, and for
    several processes.

    Attributes:
        probes: how many products with the Hessian are formed for each batch. Where the network has no more units than
            that they give its diagonal exactly, otherwise Hutchinson's estimate of it.
        seed: of the random signs.
    """

    about = About(
        "Molchanov 2019, second order",
        needs=("activations", "gradients", "labels"),
        lowest=("dead",),
        batchwise=True,
        coupled="one gate / B",
    )

    probes: int = field(default=32, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise UserMistake(f"probes={self.probes}; write 1 or more")

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, they are of several sizes, or the loss is no scalar.
            Ungatable: a group has no place for a gate.
        """
        if not graph.groups:
            return {}
        units, device = sum(group.units for group in graph.groups), device_of(graph)
        generator = torch.Generator().manual_seed(self.seed)
        mean = BatchMean(torch.zeros(2, units, device=device), lambda pair: (pair[1] / 2 - pair[0]).square())
        with (
            to_differentiate(graph, training=self.training, learning=False) as copy,
            Gates(copy, "stream", reading=False) as gates,
            sdpa_kernel(SDPBackend.MATH),  # the others have no second derivative
        ):
            for inputs, labels in batches_of(copy, self.loader):
                kind = next(t.dtype for t in parameters_by_name(copy.model).values() if t.is_floating_point())
                factors = torch.ones(units, dtype=kind, device=device, requires_grad=True)
                gates.mask(parted(factors, graph))
                loss = differentiable_loss(copy.model, self.loss, inputs, labels)
                (gradient,) = differentiated(loss, [factors], create_graph=True)
                mean.add(
                    sample_count(inputs), torch.stack([gradient.detach(), self._diagonal(gradient, factors, generator)])
                )
        places = places_of(graph, "stream", training=self.training)
        return {name: values / places[name] for name, values in parted(mean.mean(), graph).items()}

    def _diagonal(self, gradient: Tensor, factors: Tensor, generator: torch.Generator) -> Tensor:
        """Return the diagonal of the derivative of a gradient ``(units,)`` by what it is the gradient by."""
        units = len(factors)
        exact = units <= self.probes
        signs = torch.eye(units) if exact else torch.randint(2, (self.probes, units), generator=generator) * 2.0 - 1
        total = torch.zeros_like(factors)
        for probe in signs.to(factors):
            (product,) = differentiated((gradient * probe).sum(), [factors], retain_graph=True)
            total = total + probe * product
        return total if exact else total / self.probes
