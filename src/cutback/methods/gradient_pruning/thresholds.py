"""The threshold that is pruned with: predicted from the passes before, so that nothing waits for a whole gradient."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Thresholds:
    """The last thresholds of one site, first in, first out.

    Args:
        depth: how many; 0 to prune with the threshold of the pass itself.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._held: list[Tensor] = []

    def next(self, determined: Tensor) -> Tensor | None:
        """Return the threshold of this pass, the mean of those before; ``None`` while there are too few of them.

        Args:
            determined: what the pass's own gradient asks for; it goes to the end of the queue. One that is zero or not
                finite is not, and that pass is not pruned.
        """
        if not bool(determined.isfinite().all() & (determined > 0).any()):
            return None
        if not self.depth:
            return determined
        if self._held and self._held[0].shape != determined.shape:  # channels have been cut
            self._held.clear()
        full = len(self._held) == self.depth
        predicted = torch.stack([own.to(determined.device) for own in self._held]).mean(0) if full else None
        self._held = [*self._held, determined][-self.depth :]
        return predicted

    def state(self) -> list[Tensor]:
        """Return the thresholds that are held, the oldest first."""
        return [own.clone() for own in self._held]

    def load(self, held: Iterable[Tensor]) -> None:
        """Take up thresholds from before."""
        self._held = [own.clone() for own in held]
