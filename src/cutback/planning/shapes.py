"""The shapes of parameters and buffers as a function of how many units of each group stay."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Size

from cutback.graph.graph import Graph
from cutback.planning.cost import goes_with_rows


class StateShapes:
    """Shapes for any widths.

    Args:
        graph: the traced model.
        shapes: the uncut shapes of the states to follow, by qualified name.
    """

    def __init__(self, graph: Graph, shapes: Mapping[str, Size]) -> None:
        most = max((len(shape) for shape in shapes.values()), default=0)
        self._dense = np.ones((len(shapes), most), dtype=np.int64)
        for row, shape in enumerate(shapes.values()):
            self._dense[row, : len(shape)] = list(shape)
        rows = {name: row for row, name in enumerate(shapes)}
        entries: list[tuple[int, int, float]] = []
        fixed: list[int] = []
        places: list[tuple[int, int]] = []
        blocks: list[int] = []
        for slot, owners in graph.slots.items():
            if slot.state in rows and owners.sizes.keys() - {-1} and not goes_with_rows(slot, owners):
                sizes = dict(owners.sizes)
                fixed.append(sizes.pop(-1, 0))
                entries += [(len(places), group, count / graph.groups[group].units) for group, count in sizes.items()]
                places.append((rows[slot.state], slot.dimension))
                blocks.append(slot.blocks)
        numbers, groups, values = zip(*entries, strict=True) if entries else ((), (), ())
        self._matrix = csr_matrix((values, (numbers, groups)), shape=(len(places), len(graph.groups)))
        self._fixed, self._blocks = np.array(fixed, dtype=np.int64), np.array(blocks, dtype=np.int64)
        self._places = tuple(np.array(places, dtype=np.int64).reshape(-1, 2).T)

    def of(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes of each state, 1 beyond its dimensions, ``(states, dimensions)``."""
        shapes = self._dense.copy()
        shapes[self._places] = np.rint((self._matrix @ kept + self._fixed) / self._blocks).astype(np.int64)
        return shapes
