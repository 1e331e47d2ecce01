"""Parameters."""

import numpy as np
from numpy.typing import NDArray

from cutback.planning.quantity import Quantity, quantities


@quantities.register("params")
class Params(Quantity):
    """Elements of all parameters, tied ones once; buffers are not parameters."""

    example = "params=3M"

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the elements, given how many units of each group stay."""
        return self._cost.of("params", kept)
