"""Greedy oracle pruning as an allocation: the unit that is missed least goes, all others are tried again."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.methods.removals import Removals, cheapest
from cutback.planning.allocation import Allocation, Task
from cutback.planning.select import Levels
from cutback.scores.catalogue import Score

Rate = Callable[[Sequence[NDArray[np.bool_]]], dict[int, NDArray[np.float64]]]
"""Returns by how much the loss rises without each unit that lives, by the number of its group."""


class Greedy(Allocation):
    """Removes the least missed unit, rates all others anew, and so on until the budgets are met.

    Args:
        rate: rates units.
        removed: so many go before all are rated anew.
    """

    def __init__(self, rate: Rate, removed: int) -> None:
        self._rate, self._removed = rate, removed
        self._gone: list[NDArray[np.float64]] = []

    def order(self, task: Task) -> Sequence[int]:
        """Return in which order choices went down a level."""
        removals, order = Removals(task, None), list[int]()
        never = float(sum(group.units for group in task.graph.groups))
        self._gone = [np.full(group.units, never) for group in task.graph.groups]
        while not removals.enough:
            rises = self._rate(removals.alive)
            for _ in range(self._removed):
                candidates = removals.candidates(rises)
                if removals.enough or not candidates:
                    break
                removal = cheapest(candidates)
                removals.remove(removal)
                for group, units in removal.units.items():
                    self._gone[group][list(units)] = len(order)
                order.append(removal.choice)
        return order

    def rescored(self, task: Task, score: str | Score | type[Score], at: Levels) -> list[NDArray[np.float64]]:  # noqa: ARG002
        """Return for each unit when it went, later being higher, so that what is taken back is what went last."""
        return self._gone
