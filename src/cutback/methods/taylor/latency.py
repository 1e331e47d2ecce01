"""A budget on latency while a network is being pruned: predicted at each removal, measured before it is believed."""

from collections.abc import Sequence

import numpy as np
from torch import distributed

from cutback.errors import InvalidBudget
from cutback.graph.graph import Graph
from cutback.measure import LatencySetting
from cutback.measure.latency_model import Calibration, LatencyModel
from cutback.planning.cost import CostModel
from cutback.planning.plan import Plan
from cutback.planning.quantities.latency import PER_MILLISECOND, LatencyQuantity
from cutback.scores.data import device_of
from cutback.trials.copies import cut_copy
from cutback.trials.latency import clock_in


class MeasuredLatency:
    """One forward pass of a network (batch 1, in eval mode) on this machine.

    Args:
        graph: the traced model.
        cost: its MACs and parameters for any widths.

    Attributes:
        quantity: predicts the latency of widths, from a measured table of the layers and a whole pass.
        notes: what was measured last, in words.

    Raises:
        InvalidBudget: several processes train together: each would measure something else.
    """

    def __init__(self, graph: Graph, cost: CostModel) -> None:
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise InvalidBudget(
                "a budget on latency cannot be met by several processes together, as each measures something else; "
                "give a budget on macs, or train in one process"
            )
        setting = LatencySetting()
        self._graph, self._clock = graph, clock_in(graph, setting)
        self._told = setting.describe(device_of(graph))
        self._model = LatencyModel(graph, setting)
        self._dense = self._clock({"dense": cut_copy(graph.model, None)})["dense"].median_ms
        whole = np.array([group.units for group in graph.groups], dtype=np.int64)
        self._model.calibration = Calibration.through([self._model.total(whole)], [self._dense])
        self.quantity = LatencyQuantity(graph, cost, self._model, self._dense)
        self.notes: Sequence[str] = ()

    def within(self, plan: Plan, limit: int) -> bool:
        """Measure a cut copy; where that takes longer than allowed, predictions are brought in line with it.

        Args:
            plan: the cut.
            limit: nanoseconds.
        """
        taken = self._clock({"cut": cut_copy(self._graph.model, plan)})["cut"].median_ms
        kept = np.array([len(group.kept) for group in plan.groups], dtype=np.int64)
        allowed = limit / PER_MILLISECOND
        told = f"measured {taken:.4g} ms, the budget is {allowed:.4g} ms; before this cut {self._dense:.4g} ms"
        self.notes = (f"latency: {told}; {self._told}",)
        if taken * PER_MILLISECOND <= limit:
            return True
        self._model.calibration = self._model.calibration.moved_through(self._model.total(kept), taken)
        return False
