"""The time of one forward pass on this machine."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cutback.errors import InvalidBudget
from cutback.graph.graph import Graph
from cutback.measure.latency_model import LatencyModel
from cutback.planning.cost import CostModel
from cutback.planning.quantity import Quantity, quantities
from cutback.planning.select import Choice
from cutback.planning.worthwhile import worthwhile

PER_MILLISECOND = 10**6


class LatencyQuantity(Quantity):
    """Time of one forward pass in nanoseconds, as a measured table of this machine's layers predicts it.

    Args:
        graph: the traced model.
        cost: not used.
        model: predicts the latency of widths.
        dense_ms: measured latency of the uncut network, in milliseconds.
        aim: predictions are divided by this, so that a plan ends that far below its budget.

    Raises:
        InvalidBudget: no model is given: only ``cutback.plan`` measures.
    """

    units: ClassVar[Mapping[str, int]] = {"ns": 1, "us": 1000, "ms": PER_MILLISECOND, "s": 1000 * PER_MILLISECOND}
    example = "latency=8ms"
    unit = "ms"
    everywhere: ClassVar[bool] = False

    def __init__(
        self,
        graph: Graph,
        cost: CostModel,
        model: LatencyModel | None = None,
        dense_ms: float | None = None,
        aim: float = 1.0,
    ) -> None:
        super().__init__(graph, cost)
        if model is None:
            raise InvalidBudget("latency needs measurements; give cutback.plan a budget on it, such as 'latency=60%'")
        self._model, self._dense_ms, self._aim = model, dense_ms, aim

    @classmethod
    def made_by(
        cls, model: LatencyModel, dense_ms: float, aim: float = 1.0
    ) -> Callable[[Graph, CostModel], "LatencyQuantity"]:
        """Return what makes the quantity from a model of the graph at hand, for ``Budget.measure``."""
        return lambda graph, cost: cls(graph, cost, model, dense_ms, aim)

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the predicted nanoseconds, given how many units of each group stay."""
        return round(self._model.of(kept) / self._aim * PER_MILLISECOND)

    @cached_property
    def dense(self) -> int:
        """The nanoseconds of the uncut network, as measured where that was done."""
        return self.of(self._whole) if self._dense_ms is None else round(self._dense_ms * PER_MILLISECOND)

    def worthwhile(self, choices: Sequence[Choice]) -> list[Choice]:
        """Leave out the widths at which a layer is hardly faster than at a greater one."""
        return [worthwhile(choice, self._whole, self._model.totals) for choice in choices]

    @classmethod
    def shown(cls, figure: int) -> str:
        """Write a time in milliseconds."""
        return f"{figure / PER_MILLISECOND:.4g} ms"


quantities.register("latency")(LatencyQuantity)  # as a decorator it would hide what the class has beyond a quantity
