"""Activation memory at its highest."""

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Graph
from cutback.measure.memory import live_buffers
from cutback.planning.activations import Activations, rounded_up
from cutback.planning.cost import CostModel
from cutback.planning.quantity import Bytes, quantities


@quantities.register("peak")
class Peak(Bytes):
    """The most bytes of activations that are live at once, in the captured graph's order, batch 1."""

    example = "peak=8MiB"
    everywhere = False

    def __init__(self, graph: Graph, cost: CostModel) -> None:
        super().__init__(graph, cost)
        activations = Activations(graph)
        steps = live_buffers(graph.captures[0]) if graph.captures else []
        rows = {b: activations.elements(b) * b.value.element_size() for live in steps for b in live}
        table = [sum((rows[b] for b in live), np.zeros(len(graph.groups) + 1)) for live in steps]
        self._rows = np.unique(np.array(table).reshape(len(table), -1), axis=0) if table else np.zeros((1, 1))

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the bytes, given how many units of each group stay."""
        return rounded_up(float((self._rows[:, :-1] @ kept + self._rows[:, -1]).max()))
