"""Taylor expansion of the loss in a gate after the norm, to first order.

P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019: the loss changes by
``E(z = 0) - E(z = 1) = -dE/dz`` when a gate ``z = 1`` closes, so ``I_c = (dE/dz_c)^2``, for each minibatch, then
averaged. Gates stand after the norm, before the activation. A stream of residual blocks has one gate, shared by
the ends of its ``B`` blocks, and its score is divided by ``B``; so is that of any unit with gates at ``B`` places.

Example:
    >>> import torch, cutback
    >>> first, last = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 2, 6)
    >>> net = torch.nn.Sequential(first, torch.nn.BatchNorm2d(8), torch.nn.ReLU(), last, torch.nn.Flatten())
    >>> loader = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))]
    >>> score = cutback.scores.Taylor(loader, torch.nn.functional.cross_entropy)
    >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
    >>> len(cutback.plan(graph, score=score, budget="channels=50%").groups[0].kept)
    4
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.scores.catalogue import About, scores
from cutback.scores.data import device_of
from cutback.scores.fisher import SampleScore
from cutback.scores.gradient import BatchMean, GradientScore, joined, parted, places_of, read_gates

_NEEDS = ("activations", "gradients", "labels")


@scores.register("taylor")
@dataclass(frozen=True)
class Taylor(GradientScore):
    """Squared derivative of each batch's loss by a gate.

    All full batches count alike; see ``BatchMean`` for smaller ones, and for several processes.
    """

    about = About(
        "Molchanov 2019, gate after norm", needs=_NEEDS, lowest=("dead",), batchwise=True, coupled="square of sum / B"
    )

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, they are of several sizes, or the loss is no scalar.
            Ungatable: a group has no place for a gate.
        """
        if not graph.groups:
            return {}
        units = sum(group.units for group in graph.groups)
        mean = BatchMean(torch.zeros(units, device=device_of(graph)), torch.square)

        def see(read: Mapping[str, list[Tensor]]) -> None:
            gradients = {name: sum(parts[1:], parts[0]) for name, parts in read.items()}
            mean.add(len(next(iter(gradients.values()))), joined(gradients, graph).sum(0))

        read_gates(self, graph, "stream", see)
        places = places_of(graph, "stream", training=self.training)
        return {name: values / places[name] for name, values in parted(mean.mean(), graph).items()}


@scores.register("taylor-example")
@dataclass(frozen=True)
class TaylorExample(SampleScore):
    """Squared derivative of each sample's own loss by a gate.

    The mean over samples of ``(dE_n/dz)^2``, divided by ``B``. How samples are put into batches makes no difference.
    """

    about = About("Molchanov 2019, per example", needs=_NEEDS, lowest=("dead",), coupled="square of sum / B")
    site = "stream"

    def square(self, gradients: list[Tensor], places: int) -> Tensor:
        """Return ``(sum over places)^2 / B`` for each sample."""
        return sum(gradients[1:], gradients[0]).square() / places
