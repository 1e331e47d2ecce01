"""How many elements of each activation stay, as a linear function of how many units of each group stay."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from cutback.graph.capture import operator_of
from cutback.graph.graph import Graph
from cutback.graph.labels import core
from cutback.measure.batch import samples
from cutback.measure.memory import Buffer


class Activations:
    """The sizes of a graph's activations for any widths, in eval mode and for a batch of one.

    An element goes with the channel it came from, which its label tells; what has other labels than its shape asks for
    counts whole.

    Args:
        graph: the traced model.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._units = np.array([group.units for group in graph.groups], dtype=np.int64)
        self._labels: dict[fx.Node, list[Tensor]] = {}
        self._samples = 1
        if graph.captures:
            recorded, trails = graph.captures[0], graph.coupling.labellings[0].trails
            self._samples = samples(recorded)
            calls = [node for node in recorded.nodes if node.op == "call_function" and operator_of(node) != "getitem"]
            self._labels = {node: trail.results for node, trail in zip(calls, trails, strict=True)}

    def elements(self, buffer: Buffer) -> NDArray[np.float64]:
        """Return the elements that each group's unit brings and, last, those that stay anyway, ``(groups + 1,)``."""
        row = np.zeros(len(self._units) + 1)
        found = self._labels.get(buffer.node, [])
        size = buffer.value.numel() / self._samples
        labels = found[buffer.number] if buffer.number < len(found) else None
        if labels is None or labels.shape != buffer.value.shape:
            row[-1] = size
            return row
        distinct = core(labels)
        owners = self._graph.coupling.owners.of(self._graph.coupling.components[distinct.numpy().reshape(-1)])
        for group, count in owners.sizes.items():
            if group < 0:
                row[-1] += count
            else:
                row[group] += count / self._units[group]
        return row * (size / max(distinct.numel(), 1))

    def shares(self, factors: Sequence[fx.Node]) -> NDArray[np.float64] | None:
        """Return what share of a product's work each group's unit brings and, last, what stays, ``(groups + 1,)``.

        Args:
            factors: the computed tensors that are multiplied; the one that carries the most channels tells.

        Returns:
            ``None`` where none of them loses elements.
        """
        found: list[NDArray[np.float64]] = []
        for node in factors:
            part = operator_of(node) == "getitem"
            source, number = node.args if part else (node, 0)
            row = self.elements(Buffer(source, number, node.meta["val"]))  # type: ignore[arg-type]
            dense = np.append(row[:-1] * self._units, row[-1])
            found.append(row / max(float(dense.sum()), 1.0))
        most = max(found, key=lambda row: row[:-1] @ self._units, default=None)
        return most if most is not None and most[:-1].any() else None


def rounded_up(figure: float) -> int:
    """Round up what is not a whole number but for its last digits."""
    return math.ceil(figure - 1e-9 * max(figure, 1.0))
