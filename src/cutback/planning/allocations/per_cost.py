"""The lowest score for what removing it saves."""

import heapq
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cutback.planning.allocation import Allocation, Task, allocations, scores_lost, units_gone
from cutback.planning.cost import CostModel
from cutback.planning.quantity import Quantity, quantities
from cutback.planning.select import Levels

_STALE = 0.005
"""Savings are computed anew once so large a share of the dense cost has gone."""


class PerCost(Allocation):
    """The lowest score for each unit of cost first: ``S / Delta`` (L. Liu 2021, Group Fisher, section 3.3).

    Scores are taken as they are: they should mean the same everywhere, as a change of the loss does. What a step saves
    is that with the widths at hand, computed anew for every half per cent of the dense cost.

    Attributes:
        quantity: name of the quantity that is the cost.
    """

    quantity: ClassVar[str]

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps of the lowest ratio first, until the budgets are met."""
        quantity = task.measured.get(self.quantity) or quantities.get(self.quantity)(task.graph, CostModel(task.graph))
        lost = [scores_lost(choice, normalised=False) for choice in task.choices]
        gone = [units_gone(choice) for choice in task.choices]
        at = np.zeros(len(task.choices), dtype=np.int64)
        steps: list[int] = []
        while not task.fits(at):
            taken = _cheapest(task, quantity, lost, gone, at)
            if not taken:
                break
            steps += taken
        return steps


@allocations.register("per-macs")
class PerMacs(PerCost):
    """The lowest score for each MAC saved first (Group Fisher's FLOPs normaliser)."""

    quantity = "macs"


@allocations.register("per-params")
class PerParams(PerCost):
    """The lowest score for each parameter saved first."""

    quantity = "params"


@allocations.register("per-memory")
class PerMemory(PerCost):
    """The lowest score for each byte of activations saved first (Group Fisher's memory normaliser)."""

    quantity = "memory"


@allocations.register("per-latency")
class PerLatency(PerCost):
    """The lowest score for each nanosecond saved first; where latency is budgeted."""

    quantity = "latency"


def _cheapest(
    task: Task,
    quantity: Quantity,
    lost: Sequence[NDArray[np.float64]],
    gone: Sequence[NDArray[np.int64]],
    at: Levels,
) -> list[int]:
    """Take steps, in place, until what they save is to be computed anew; return them."""
    widths = task.widths(at)
    before = quantity.of(widths)
    saved_a_unit: dict[int, float] = {}
    for number, level in enumerate(at.tolist()):
        if level < len(lost[number]):
            after = quantity.of(task.moved(widths, number, level, level + 1))
            saved_a_unit[number] = (before - after) / int(gone[number][level])

    def entry(number: int) -> tuple[float, int]:
        saved = saved_a_unit[number] * int(gone[number][at[number]])
        return (float(lost[number][at[number]]) / saved if saved > 0 else np.inf), number

    heap = [entry(number) for number in saved_a_unit]
    heapq.heapify(heap)
    steps: list[int] = []
    saved = 0.0
    while heap and saved <= _STALE * quantity.dense:
        _, number = heapq.heappop(heap)
        steps.append(number)
        saved += max(saved_a_unit[number], 0.0) * int(gone[number][at[number]])
        at[number] += 1
        if at[number] < len(lost[number]):
            heapq.heappush(heap, entry(number))
    return steps
