"""Channels: the share of each group that stays."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cutback.planning.quantity import Quantity, quantities


@quantities.register("channels")
class Channels(Quantity):
    """The share of units that stays: in each group where a budget bounds it, over all groups as a figure."""

    units: ClassVar[Mapping[str, int]] = {}
    example = "channels=50%"

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return how many units stay in all."""
        return int(kept.sum())
