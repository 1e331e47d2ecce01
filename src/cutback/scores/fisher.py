"""Fisher information of masks: how much each sample's loss depends on a unit.

One place at a time: L. Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018:
``s = 1/(2N) sum_n g_n^2``, where ``g_n`` is the derivative of sample ``n``'s own loss by a gate on the feature map.
Coupled: L. Liu et al., "Group Fisher Pruning for Practical Network Compression", ICML 2021, section 3: the mask stands
at the inputs of all layers that consume the unit, and ``g_n`` is summed over all of them before it is squared. The
factor 1/2 is left out.

In train mode samples meet in the batch norms; there ``g_n`` is ``N`` times the derivative of the batch's loss by the
copy of the mask that multiplies sample ``n``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.scores.catalogue import About, scores
from cutback.scores.data import device_of, over_ranks, seen
from cutback.scores.gradient import GradientScore, joined, parted, places_of, read_gates

_NEEDS = ("activations", "gradients", "labels")


@dataclass(frozen=True)
class SampleScore(GradientScore):
    """The mean over samples of squared derivatives of their own losses by gates. Only their sum is kept."""

    site = "consumer"

    def square(self, gradients: list[Tensor], places: int) -> Tensor:
        """Return what samples contribute, ``(N, units)``.

        Args:
            gradients: the derivatives of each sample's own loss at each place that gradients reach, ``(N, units)``.
            places: at how many places the group has gates.
        """
        raise NotImplementedError

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, or the loss is no scalar.
            Ungatable: a group has no place for a gate.
        """
        if not graph.groups:
            return {}
        places = places_of(graph, self.site, training=self.training)
        total = torch.zeros(sum(group.units for group in graph.groups), dtype=torch.float64, device=device_of(graph))
        samples = 0

        def see(read: Mapping[str, list[Tensor]]) -> None:
            nonlocal samples, total
            count = len(next(iter(read.values()))[0])
            own = {name: [part.double() * count for part in parts] for name, parts in read.items()}
            squares = {name: self.square(parts, places[name]).sum(0) for name, parts in own.items()}
            total, samples = total + joined(squares, graph), samples + count

        read_gates(self, graph, self.site, see)
        return parted(over_ranks(total) / seen(samples, total.device), graph)


@scores.register("fisher")
@dataclass(frozen=True)
class Fisher(SampleScore):
    """Mean over samples of squared gate gradients, place by place.

    Gates stand after the activation of each layer that makes the unit's channels; squares are summed over the layers.
    """

    about = About("Theis 2018, Fisher pruning", needs=_NEEDS, lowest=("dead",), coupled="sum of squares")
    site = "feature"

    def square(self, gradients: list[Tensor], places: int) -> Tensor:  # noqa: ARG002 (a sum, not a mean)
        """Return the sum over places of squares."""
        return sum(gradient.square() for gradient in gradients)  # type: ignore[return-value]


@scores.register("group-fisher")
@dataclass(frozen=True)
class GroupFisher(SampleScore):
    """Squared gate gradients, summed over coupled places first.

    The mean over samples. Gates stand at the inputs of all layers that consume the unit's channels.
    """

    about = About("Liu 2021, section 3", needs=_NEEDS, lowest=("dead",), coupled="square of sum")

    def square(self, gradients: list[Tensor], places: int) -> Tensor:  # noqa: ARG002 (one mask, whatever the places)
        """Return the square of the sum over places."""
        return sum(gradients[1:], gradients[0]).square()
