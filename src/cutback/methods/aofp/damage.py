"""The damage that filters do to the next layer while they are out: ``||M - M'||^2 / ||M||^2`` over an iteration."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cutback.scores.data import over_ranks


class Damages:
    """Gathers what layers return with and without filters, over the micro-batches of a step and all processes.

    Both norms are summed before one is divided by the other, so that a step of several micro-batches says what it
    would in one. Nothing waits for the device before ``take``.

    Args:
        layers: names of the layers whose filters are searched, the same in all processes.
        device: where sums are kept.
    """

    def __init__(self, layers: Sequence[str], device: torch.device) -> None:
        self._rows = {layer: row for row, layer in enumerate(layers)}
        self._sums = torch.zeros(len(layers), 2, dtype=torch.float64, device=device)

    def add(self, layer: str, whole: Tensor, without: Tensor) -> None:
        """Add a micro-batch.

        Args:
            layer: whose filters are out.
            whole: what the next layer returns with them.
            without: what it returns without them, in the same shape.
        """
        kind = torch.promote_types(whole.dtype, torch.float32)
        wide = whole.to(kind)
        found = torch.stack([(wide - without.to(kind)).square().sum(), wide.square().sum()])
        self._sums[self._rows[layer]] += found

    def take(self) -> dict[str, float | None]:
        """Return the damage of the step for each layer, the same in all processes, and begin anew.

        It is ``None`` where the next layer returned nothing but zeros, also where none was looked at.
        """
        total = over_ranks(self._sums).tolist()
        self._sums.zero_()
        return {layer: total[row][0] / total[row][1] if total[row][1] else None for layer, row in self._rows.items()}
