"""Activation memory as a sum."""

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Graph
from cutback.measure.memory import ELEMENT_BYTES, convolution_outputs
from cutback.planning.activations import Activations, rounded_up
from cutback.planning.cost import CostModel
from cutback.planning.quantity import Bytes, quantities


@quantities.register("memory")
class Memory(Bytes):
    """Outputs of all convolutions, four bytes an element, batch 1 (Liu 2021, Group Fisher, ``Delta M``)."""

    example = "memory=20MiB"
    everywhere = False  # a cut between linear layers saves nothing: only outputs of convolutions count

    def __init__(self, graph: Graph, cost: CostModel) -> None:
        super().__init__(graph, cost)
        activations = Activations(graph)
        outputs = convolution_outputs(graph.captures[0]) if graph.captures else []
        rows = [activations.elements(output) for output in outputs]
        self._row = ELEMENT_BYTES * np.sum([np.zeros(len(graph.groups) + 1), *rows], axis=0)

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the bytes, given how many units of each group stay."""
        return rounded_up(float(self._row[:-1] @ kept + self._row[-1]))
