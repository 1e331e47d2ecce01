"""Taking as few steps of an allocation as meet every budget, and as close below as steps allow."""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from cutback.errors import BudgetUnreachable
from cutback.planning.allocation import Allocation, Task, by_key, shares_left
from cutback.planning.quantity import shown
from cutback.planning.select import Levels

_TOLERANCE = Fraction(1, 100)
"""How far below the budget, as a share of the dense cost, a plan may end where finer steps exist."""


def choose_levels(task: Task, allocation: Allocation) -> Levels:
    """Return the level of each choice at which as much stays as the budgets permit.

    Steps are taken in the allocation's order until every budget is met; where the last step overshot by more than 1 %
    of the dense cost, earlier ones are taken back as far as they fit, or another choice's next step takes its place.
    That some levels meet the budgets is for ``require_reachable`` to see to.
    """
    start = np.zeros(len(task.choices), dtype=np.int64)
    if task.fits(start):
        return start
    search = _Search(task)
    steps = _completed(task, allocation.order(task))
    few, many = 0, len(steps)
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if task.fits(_after(start, steps[:middle])) else (middle + 1, many)
    taken = steps[:few]
    at = search.refilled(_after(start, taken), taken)
    found = [at]
    # A large step is left over: undo one, and let some other choice go down, by its own steps, as far as it must.
    for up in dict.fromkeys(number for number in reversed(taken) if at[number]):
        for down in dict.fromkeys([*steps[few:], *taken]):
            if search.near(found[-1]):
                return found[-1]
            if down != up:
                wider = at.copy()
                wider[up] -= 1
                found += search.lowered(wider, down)
    return min(found, key=lambda at: search.gap(at) // _TOLERANCE)


def require_reachable(task: Task) -> None:
    """Refuse budgets that no levels meet; choices need no scores for that.

    Raises:
        BudgetUnreachable: even the lowest permitted widths are over a budget.
    """
    lowest = np.array([len(choice.counts) - 1 for choice in task.choices], dtype=np.int64)
    if not task.fits(lowest) and not task.fits(np.zeros_like(lowest)):
        raise _unreachable(task, lowest)


class _Search:
    """How near levels come to the limits."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._everywhere = all(quantity.everywhere for quantity in task.measured.values())

    def gap(self, at: Levels) -> Fraction:
        """Return how far below the binding budget levels end, as a share of the dense cost."""
        task = self._task
        return min(Fraction(task.limits[q] - cost, task.measured[q].dense) for q, cost in task.costs(at).items())

    def near(self, at: Levels) -> bool:
        """Whether some budget is met within tolerance."""
        return self.gap(at) <= _TOLERANCE

    def refilled(self, at: Levels, steps: Sequence[int]) -> Levels:
        """Take back the latest steps that still fit, until the binding budget is within tolerance.

        Where a cut may leave what is bounded as it is, all that fit are taken back: they were for nothing.
        """
        blocked: set[int] = set()
        for number in reversed(steps):
            if number in blocked or not at[number]:
                continue
            if self._everywhere and self.near(at):
                break
            at[number] -= 1
            if not self._task.fits(at):
                at[number] += 1
                blocked.add(number)
        return at

    def lowered(self, at: Levels, number: int) -> list[Levels]:
        """Return the levels at which one choice has gone down just as far as fits; none if that is not enough."""
        lower = at.copy()

        def fits(level: int) -> bool:
            lower[number] = level
            return self._task.fits(lower)

        levels = range(int(at[number]) + 1, len(self._task.choices[number].counts))
        place = bisect_left(levels, True, key=fits)
        if place == len(levels):
            return []
        lower[number] = levels[place]
        return [lower]


def _completed(task: Task, order: Sequence[int]) -> list[int]:
    """Return an order with every step that it left out, the largest share first, at its end."""
    given = np.bincount(np.asarray(order, dtype=np.int64), minlength=len(task.choices)).tolist()
    rest = [-shares_left(choice)[number:] for choice, number in zip(task.choices, given, strict=True)]
    return [*order, *by_key(rest)]


def _after(start: Levels, steps: Sequence[int]) -> Levels:
    return start + np.bincount(np.asarray(steps, dtype=np.int64), minlength=len(start))


def _unreachable(task: Task, lowest: Levels) -> BudgetUnreachable:
    """Return the error that says what is the lowest there is."""
    reachable = task.costs(lowest)
    over = ", ".join(
        f"{quantity} at most {shown(quantity, limit)}, lowest reachable {shown(quantity, reachable[quantity])} "
        f"({reachable[quantity] / task.measured[quantity].dense:.1%} of the dense network)"
        for quantity, limit in task.limits.items()
        if reachable[quantity] > limit
    )
    return BudgetUnreachable(
        f"no permitted cut meets the budget: {over}; ask for more, or permit more (ignore, round_to, min_channels, "
        "max_removed)",
        reachable,
    )
