"""The widths that keep the highest total score, by integer programming."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.sparse import csr_matrix

from cutback.planning.allocation import Allocation, Task, allocations, by_key, mean_lost, scores_lost, shares_left
from cutback.planning.select import Levels

_WINDOW = 17
"""So many levels of each choice are variables of one programme."""
_NODES = 100
"""Nodes of the search; most programmes need one. Not seconds: these would let a plan depend on the machine."""
_GAP = 1e-3


@allocations.register("knapsack")
class Knapsack(Allocation):
    """The highest sum of scores that the budgets permit, by integer programming (HiGHS); scores as with ``global``.

    A choice of one level for each group is a knapsack, but a layer's cost is a product of widths of two groups.
    Costs are therefore linearised: the programme adds up what changing each group alone would change. It is solved
    again from each solution, among levels around the last one, in a window that halves; then from the best solution
    that meets the budgets as they really are, as long as that helps.
    """

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps to the best levels found, and the globally lowest scores after them."""
        lost = [np.concatenate([[0.0], np.cumsum(scores_lost(c, normalised=True))]) for c in task.choices]
        levels = _best(task, lost).tolist()
        steps = by_key([-shares_left(choice)[:level] for choice, level in zip(task.choices, levels, strict=True)])
        rest = [mean_lost(c, normalised=True)[level:] for c, level in zip(task.choices, levels, strict=True)]
        return [*steps, *by_key(rest)]


def _best(task: Task, lost: Sequence[NDArray[np.float64]]) -> Levels:
    """Return the levels found that lose the least and meet the budgets; the last ones found where none do."""

    def total(at: Levels) -> float:
        fits = task.fits(at)
        return sum(float(values[level]) for values, level in zip(lost, at.tolist(), strict=True)) if fits else np.inf

    at = np.array([(len(values) - 1) // 2 for values in lost], dtype=np.int64)
    found, radius = [at], max(map(len, lost))
    while radius >= _WINDOW // 4:
        at = _solved(task, lost, at, radius)
        found.append(at)
        radius //= 2
    best = min(reversed(found), key=total)
    while radius and np.isfinite(total(best)):
        at = _solved(task, lost, best, radius)
        if total(at) < total(best):
            best = at
        else:
            radius //= 2
    return best


def _solved(task: Task, lost: Sequence[NDArray[np.float64]], at: Levels, radius: int) -> Levels:
    """Return the levels within a radius that lose the least, costs linearised at ``at``; ``at`` if none fit."""
    levels: list[int] = []
    owner: list[int] = []
    for number, values in enumerate(lost):
        low, high = max(int(at[number]) - radius, 0), min(int(at[number]) + radius, len(values) - 1)
        window = np.unique(np.append(np.linspace(low, high, _WINDOW).round().astype(np.int64), at[number]))
        levels += window.tolist()
        owner += [number] * len(window)
    here, widths = task.costs(at), task.widths(at)
    change = np.zeros((len(task.limits), len(levels)))
    for column, (number, level) in enumerate(zip(owner, levels, strict=True)):
        if level != at[number]:
            moved = task.moved(widths, number, int(at[number]), level)
            for row, (name, quantity) in enumerate(task.measured.items()):
                change[row, column] = (quantity.of(moved) - here[name]) / quantity.dense
    room = [(task.limits[name] - here[name]) / quantity.dense for name, quantity in task.measured.items()]
    one_each = csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(len(lost), len(owner)))
    solver: Any = optimize  # its annotations forbid arrays as bounds
    result = solver.milp(
        np.array([lost[number][level] for number, level in zip(owner, levels, strict=True)]),
        integrality=np.ones(len(owner)),
        bounds=solver.Bounds(0, 1),
        constraints=[solver.LinearConstraint(one_each, 1, 1), solver.LinearConstraint(change, -np.inf, room)],
        options={"node_limit": _NODES, "mip_rel_gap": _GAP},
    )
    chosen = np.asarray(levels)[result.x > 0.5] if result.x is not None else at
    return chosen if len(chosen) == len(lost) else at
