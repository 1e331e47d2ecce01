"""Multiply-accumulates."""

import numpy as np
from numpy.typing import NDArray

from cutback.planning.quantity import Quantity, quantities


@quantities.register("macs")
class Macs(Quantity):
    """MACs of convolutions, linear layers and matrix products, for a batch of one."""

    example = "macs=200M"

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the MACs, given how many units of each group stay."""
        return self._cost.of("macs", kept)
