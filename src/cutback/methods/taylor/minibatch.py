"""What one minibatch of a training loop says about each unit: squared first, so that means are taken of squares."""

import torch
from torch import Tensor

from cutback.scores.data import over_ranks


class Minibatch:
    """Gathers the gradients of gates over the micro-batches of one step.

    The gradient of the whole minibatch is their sum, and its mean over the processes that train together: only that is
    squared.

    Args:
        each_sample: square the derivative of each sample's own loss instead, and take the mean over samples.
    """

    def __init__(self, *, each_sample: bool) -> None:
        self._each_sample = each_sample
        self._sum: Tensor | None = None
        self._samples = 0

    def add(self, rows: Tensor) -> None:
        """Add a micro-batch.

        Args:
            rows: for each sample the derivative of what ``backward`` was called on by each gate, ``(N, units)``.
        """
        rows = rows.double()
        found = rows.square().sum(0) if self._each_sample else rows.sum(0)
        self._sum = found if self._sum is None else self._sum + found
        self._samples += len(rows)

    def take(self, scale: float) -> tuple[int, Tensor] | None:
        """Return how many samples all processes had and what they say of each unit ``(units,)``, and begin anew.

        Args:
            scale: what the loss was multiplied by before it was differentiated.

        Returns:
            ``None`` where there was no micro-batch.
        """
        if self._sum is None:
            return None
        counts = torch.tensor([self._samples, 1], dtype=torch.float64, device=self._sum.device)
        whole = over_ranks(torch.cat([self._sum, counts]))
        self._sum, self._samples = None, 0
        found, samples, ranks = whole[:-2], int(whole[-2]), whole[-1]
        if self._each_sample:  # each derivative is a sample's share of a mean
            return samples, samples * found / (ranks * scale) ** 2
        return samples, (found / (ranks * scale)).square()
