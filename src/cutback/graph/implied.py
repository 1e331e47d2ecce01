"""Which widths stay equal whatever the cut: because they hold the same channels, or because balances make them."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cutback.graph.balance import System
from cutback.graph.equal import equally_long
from cutback.graph.graph import Graph
from cutback.graph.sizes import Width

_EXACT = 1e-6


class Implied:
    """Compares widths of a traced model."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        units = [group.units for group in graph.groups]
        self._starts = np.concatenate([[0], np.cumsum(units, dtype=np.int64)])

    def equal(self, first: Width, second: Width) -> bool:
        """Whether two widths are equal after every cut that the balances permit."""
        component = self._graph.coupling.components
        if first.footprint(component) == second.footprint(component):
            return True
        parts = equally_long(first, second, first.times * second.over, second.times * first.over)
        return parts is not None and self._alike(*parts)

    def _alike(self, first: Tensor, second: Tensor) -> bool:
        """Whether of two label vectors of one length equally many stay after every cut."""
        net = self._count(first) - self._count(second)
        left = set(np.unique(np.searchsorted(self._starts, np.flatnonzero(net), side="right") - 1).tolist())
        for system, free in self._freedoms:
            if left & set(system.groups):
                left -= set(system.groups)
                inside = [net[self._starts[cell.group] + np.array(cell.units)] for cell in system.cells]
                if any((each != each[0]).any() for each in inside):
                    return False
                if np.abs(np.array([each[0] for each in inside]) @ free).max(initial=0.0) > _EXACT:
                    return False
        return not left

    def _count(self, labels: Tensor) -> NDArray[np.int64]:
        """Return how often each unit lies in a label vector, units of all groups one after the other."""
        owners, component = self._graph.coupling.owners, self._graph.coupling.components[labels.numpy()]
        component = component[owners.group[component] >= 0]
        column = self._starts[owners.group[component]] + owners.unit[component]
        return np.bincount(column, minlength=int(self._starts[-1]))

    @cached_property
    def _freedoms(self) -> list[tuple[System, NDArray[np.float64]]]:
        """Each system with an orthonormal basis of the ways its counts may change, shape ``(cells, ways)``.

        All there is now balances; so what no permitted change touches stays equal.
        """
        return [(system, _null_space(system.matrix)) for system in self._graph.systems]


def _null_space(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh((matrix.T @ matrix).astype(np.float64))
    return vectors[:, values < _EXACT * max(float(values.max(initial=1.0)), 1.0)]
