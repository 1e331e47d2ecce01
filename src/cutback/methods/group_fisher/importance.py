"""Adding up what gates say about each unit, over the steps between two removals (Liu 2021, equations 3 to 6)."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.scores.data import device_of, over_ranks


def fisher(gradients: Tensor) -> Tensor:
    """Return the sum over samples of the squares of what each sample's own loss says, ``(units,)``.

    Args:
        gradients: the derivative of the batch's mean loss by each sample's masks, summed over positions, calls and
            coupled layers already, ``(N, units)``; ``N`` times it is the derivative of the sample's own loss.
    """
    return (len(gradients) * gradients).square().sum(0)


def magnitude(gradients: Tensor) -> Tensor:
    """Return the magnitude of the derivative of the batch's loss, ``(units,)``: the first-order ablation."""
    return gradients.sum(0).abs()


IMPORTANCES: Mapping[str, tuple[Callable[[Tensor], Tensor], int]] = {"fisher": (fisher, 2), "gradient": (magnitude, 1)}
"""How gradients become importance, and by which power of the loss's scale that grows."""


class Accumulator:
    """The sum of importances since the last removal, in double precision.

    Args:
        graph: the traced model.
        groups: names of the gated groups.
        importance: a name in ``IMPORTANCES``.
    """

    def __init__(self, graph: Graph, groups: Sequence[str], importance: str) -> None:
        self._rate, self._power = IMPORTANCES[importance]
        self._sizes = {group.name: group.units for group in graph.groups if group.name in groups}
        self._step = torch.zeros(sum(self._sizes.values()), dtype=torch.float64, device=device_of(graph))
        self.total = self._step.clone()

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Add a micro-batch: for each group the gradients of its gates, ``(N, units)``."""
        together = torch.cat([gradients[name] for name in self._sizes], 1).double()
        self._step += self._rate(together)

    def settle(self, scale: float | None) -> None:
        """Take up what a step's micro-batches have added.

        Args:
            scale: by how much mixed precision has multiplied the loss; what overflowed is then left out, as the
                optimiser leaves the step out. ``None`` without mixed precision.
        """
        if scale is not None:
            self._step /= scale**self._power
            if not bool(self._step.isfinite().all()):
                self._step.zero_()
        self.total += self._step
        self._step.zero_()

    def take(self) -> dict[str, Tensor]:
        """Return the sums over all processes, ``(units,)`` for each group, and begin again at zero."""
        total = over_ranks(self.total.clone())
        self.total.zero_()
        return dict(zip(self._sizes, total.split(list(self._sizes.values())), strict=True))
