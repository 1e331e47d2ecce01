"""What a budget may bound: a figure of the network as a function of how many units of each group stay."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Graph
from cutback.planning.cost import CostModel
from cutback.planning.select import Choice
from cutback.registry import Registry

BYTES: Mapping[str, int] = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G"), start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G"), start=1)},
}
"""Units of a number of bytes, as users write them."""

COUNTS: Mapping[str, int] = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
"""Units of a plain number."""


class Quantity(ABC):
    """A figure that a budget may bound: a whole number, of the network's size, bytes, nanoseconds or the like.

    To add one, write a file in ``planning/quantities`` that registers a subclass under the name users write.

    Attributes:
        units: what may follow an absolute number, and what it multiplies it by; empty where only shares make sense.
        example: an absolute budget, as users write it.
        unit: the unit an absolute budget is shown in, where that is not the one of a single.
        everywhere: whether every cut lowers it. Where not (a maximum, a measured time), a plan takes back the cuts
            that do not help.

    Args:
        graph: the traced model.
        cost: its MACs and parameters for any widths, shared by all quantities.
    """

    units: ClassVar[Mapping[str, int]] = COUNTS
    example: ClassVar[str] = ""
    unit: ClassVar[str] = ""
    everywhere: ClassVar[bool] = True

    def __init__(self, graph: Graph, cost: CostModel) -> None:
        self._whole = np.array([group.units for group in graph.groups], dtype=np.int64)
        self._cost = cost

    @abstractmethod
    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the figure, given how many units of each group stay, shape ``(groups,)``."""

    @cached_property
    def dense(self) -> int:
        """The figure of the uncut network."""
        return self.of(self._whole)

    def worthwhile(self, choices: Sequence[Choice]) -> Sequence[Choice]:
        """Return choices without the levels that are no use for lowering the figure."""
        return choices

    @classmethod
    def shown(cls, figure: int) -> str:
        """Write a figure for people."""
        return f"{figure:,}"


class Bytes(Quantity):
    """A quantity in bytes."""

    units: ClassVar[Mapping[str, int]] = BYTES

    @classmethod
    def shown(cls, figure: int) -> str:
        """Write bytes, many of them in MiB too."""
        exact = f"{figure:,} bytes"
        return exact if figure < 2**17 else f"{figure / 2**20:,.2f} MiB ({exact})"


quantities: Registry[type[Quantity]] = Registry("quantity", "cutback.planning.quantities")
"""Quantities by the name that budgets give them."""


def shown(quantity: str, figure: int) -> str:
    """Write a figure for people; a quantity that nothing is registered for as a plain number."""
    kind = quantities.find(quantity)
    return f"{figure:,}" if kind is None else kind.shown(figure)
