"""What a network costs as a function of how many units of each group stay."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Size

from cutback.graph.graph import Graph, Slot
from cutback.measure.macs import mac_terms


class CostModel:
    """MACs and parameters of a graph's network for any widths, without building it.

    A weight's size is the product of the widths of its sliced dimensions, and each width is linear in the numbers of
    units that stay.

    Args:
        graph: the traced model.
    """

    def __init__(self, graph: Graph) -> None:
        shapes: dict[str, Size] = {name: parameter.shape for name, parameter in graph.model.named_parameters()}
        self._total = np.array([group.units for group in graph.groups], dtype=np.int64)
        sliced: dict[str, list[Slot]] = {name: [] for name in shapes}
        self._fixed: list[int] = []
        self._blocks: list[int] = []
        self._per_unit: list[NDArray[np.int64]] = []
        numbers: dict[Slot, int] = {}
        for slot, owners in graph.slots.items():
            if slot.state in shapes and (owners.group >= 0).any():
                numbers[slot] = len(numbers)
                sliced[slot.state].append(slot)
                owned = np.bincount(owners.group[owners.group >= 0], minlength=len(self._total))
                self._fixed.append(int((owners.group < 0).sum()))
                self._per_unit.append(owned // np.maximum(self._total, 1))
                self._blocks.append(slot.blocks)
        most = max((len(slots) for slots in sliced.values()), default=0)
        self._names = list(shapes)
        self._static = np.ones(len(shapes), dtype=np.int64)
        self._factors = np.full((len(shapes), most), len(numbers))
        for row, (name, shape) in enumerate(shapes.items()):
            moving = {slot.dimension for slot in sliced[name]}
            self._static[row] = math.prod(size for dimension, size in enumerate(shape) if dimension not in moving)
            self._factors[row, : len(sliced[name])] = [numbers[slot] for slot in sliced[name]]
        positions: Mapping[str, float] = {}
        constant = 0.0
        if graph.captures:
            positions, constant = _positions(graph)
        self._positions = np.array([positions.get(name, 0) for name in shapes], dtype=np.float64)
        self._constant = constant
        self._matrix = np.array(self._per_unit, dtype=np.int64).reshape(len(numbers), len(self._total))
        self._offsets = np.array(self._fixed, dtype=np.int64)
        self._divisors = np.array(self._blocks, dtype=np.int64)

    @property
    def groups(self) -> int:
        """How many groups the graph has."""
        return len(self._total)

    def sizes(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elements of each parameter, ``(parameters,)``, given how many units of each group stay."""
        widths = np.append((self._matrix @ kept + self._offsets) // self._divisors, 1)
        return self._static * widths[self._factors].prod(axis=1)

    def of(self, quantity: str, kept: NDArray[np.int64]) -> int:
        """Return ``macs`` (batch 1) or ``params``."""
        sizes = self.sizes(kept)
        if quantity == "params":
            return int(sizes.sum())
        return round(float((sizes * self._positions).sum() + self._constant))

    def macs_of(self, state_names: set[str], kept: NDArray[np.int64]) -> int:
        """Return the MACs (batch 1) spent in the given weights."""
        inside = np.array([name in state_names for name in self._names])
        return round(float((self.sizes(kept) * self._positions)[inside].sum()))

    def dense(self, quantity: str) -> int:
        """Return the quantity for the uncut network."""
        return self.of(quantity, self._total)


def _positions(graph: Graph) -> tuple[dict[str, float], float]:
    """Return how often each weight is used in eval mode, and the MACs that have no weight."""
    uses: dict[str, float] = {}
    for term in mac_terms(graph.captures[0]):
        uses[term.state] = uses.get(term.state, 0.0) + float(term.positions)
    return uses, uses.pop("", 0.0)
