"""What each unit of a layer costs as the network is now: the regularised ranking takes its share off the score."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from cutback.graph.graph import Graph
from cutback.measure import LatencySetting
from cutback.measure.latency_model import LatencyModel
from cutback.planning.assemble import producers_macs
from cutback.planning.cost import CostModel
from cutback.scores.data import device_of, over_ranks

COSTS = ("macs", "latency")
"""What a regularised ranking can take into account."""


class UnitCost(ABC):
    """Says what one more unit of each group costs, given how many there are."""

    @abstractmethod
    def at(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cost of a unit of each group, ``(groups,)``, given how many units of each stay."""


class MacsOfUnit(UnitCost):
    """MACs (batch 1) of all layers that make a group's channels, per unit that is left."""

    def __init__(self, graph: Graph, cost: CostModel) -> None:
        self._graph, self._cost = graph, cost

    def at(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return MACs."""
        macs = self._cost.macs_by_weight(widths)
        whole = np.array([producers_macs(group, macs) for group in self._graph.groups], dtype=np.float64)
        return whole / np.maximum(widths, 1)


class LatencyOfUnit(UnitCost):
    """What all units but one of a group add to a forward pass (batch 1), by this machine's measured layers, per unit.

    Between steps of the kernels one unit more or less often changes nothing: the mean over all is what is left of that.
    """

    def __init__(self, graph: Graph) -> None:
        self._model, self._device = LatencyModel(graph, LatencySetting()), device_of(graph)

    def at(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return milliseconds, the mean over the processes that train together."""
        narrow = np.minimum(np.tile(widths, (len(widths), 1)), np.where(np.eye(len(widths), dtype=bool), 1, widths))
        saved = self._model.totals(widths[None]) - self._model.totals(narrow)
        own = from_numpy(np.append(saved / np.maximum(widths - 1, 1), 1.0)).to(self._device)
        shared = over_ranks(own).cpu().numpy()
        return shared[:-1] / shared[-1]
