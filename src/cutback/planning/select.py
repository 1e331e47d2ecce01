"""Choosing widths that meet every budget, and the units that stay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cutback.errors import BudgetUnreachable, InvalidBudget, NothingToPrune
from cutback.graph.balance import Cell
from cutback.planning.budget import Budget
from cutback.planning.cost import CostModel

ALLOCATIONS = ("uniform", "global")
_TOLERANCE = Fraction(1, 100)
"""How far below the budget, as a share of the dense cost, a plan may end where finer steps exist."""

Levels = NDArray[np.int64]
"""For each choice, how far down its levels it is; shape ``(choices,)``."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What selection may do with one group, or with several that a balance links.

    Attributes:
        cells: the units that may stand for each other; one cell for a group that no balance restricts.
        scores: importance of the units of each cell.
        counts: permitted numbers of units of each cell, falling, the first being where they start; shape
            ``(levels, cells)``.
    """

    cells: tuple[Cell, ...]
    scores: tuple[NDArray[np.float64], ...]
    counts: NDArray[np.int64]

    @property
    def units(self) -> int:
        """How many units there are in all cells."""
        return sum(len(cell.units) for cell in self.cells)

    def add(self, widths: NDArray[np.int64], level: int) -> None:
        """Add what stays at a level to the widths of all groups, shape ``(groups,)``."""
        for cell, count in zip(self.cells, self.counts[level].tolist(), strict=True):
            widths[cell.group] += count


def permitted_widths(units: int, narrower: Sequence[int], most: int | None = None) -> tuple[int, ...]:
    """Return the permitted widths of a group, falling.

    Args:
        units: how many units it has; staying whole is always permitted unless ``most`` forbids it.
        narrower: the other permitted widths, falling.
        most: at most so many stay, if any permitted width is that low; else the lowest permitted one is all there is.
    """
    widths = (units, *narrower)
    if most is None:
        return widths
    return tuple(width for width in widths if width <= most) or (widths[-1],)


def widths_at(choices: Sequence[Choice], at: Levels, groups: int) -> NDArray[np.int64]:
    """Return how many units of each group stay, shape ``(groups,)``, with every choice at a level."""
    widths = np.zeros(groups, dtype=np.int64)
    for choice, level in zip(choices, at.tolist(), strict=True):
        choice.add(widths, level)
    return widths


def choose_levels(choices: Sequence[Choice], cost: CostModel, budgets: Sequence[Budget], allocate: str) -> Levels:
    """Return the level of each choice at which as much stays as the budgets permit.

    Steps are taken in one order (uniform: the choice with the largest share left; global: the units of the lowest
    score) until every budget is met; where the last step overshot by more than 1 % of the dense cost, earlier ones are
    taken back as far as they fit, or another choice's next step takes its place.

    Args:
        choices: together they hold every group.
        cost: the network's cost for given widths.
        budgets: bounds on ``macs`` and ``params``.
        allocate: ``uniform`` or ``global``.

    Raises:
        InvalidBudget: ``allocate`` is unknown.
        BudgetUnreachable: even the lowest permitted widths are over a budget.
    """
    if allocate not in ALLOCATIONS:
        raise InvalidBudget(f"no allocation is called {allocate!r}; write allocate='uniform' or allocate='global'")
    start = np.zeros(len(choices), dtype=np.int64)
    lowest = np.array([len(choice.counts) - 1 for choice in choices], dtype=np.int64)
    search = _Search(choices, cost, {budget.quantity: budget.limit(cost.dense(budget.quantity)) for budget in budgets})
    if search.fits(start):
        return start
    if not search.fits(lowest):
        raise search.unreachable(lowest)
    steps = _steps(choices, allocate)
    few, many = 0, len(steps)
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if search.fits(_after(start, steps[:middle])) else (middle + 1, many)
    at = search.refilled(_after(start, steps[:few]), steps[:few])
    if not few or search.near(at):
        return at
    # The last step was a large one: some other choice's next step may end nearer to the budget, by a point or more.
    found = [at]
    for number in dict.fromkeys(steps[few:]):
        taken = [*steps[: few - 1], number]
        if search.fits(_after(start, taken)):
            found.append(search.refilled(_after(start, taken), taken))
    return min(found, key=lambda at: search.gap(at) // _TOLERANCE)


class _Search:
    """Costs of levels against limits."""

    def __init__(self, choices: Sequence[Choice], cost: CostModel, limits: dict[str, int]) -> None:
        self._choices, self._cost, self._limits = choices, cost, limits

    def costs(self, at: Levels) -> dict[str, int]:
        """Return each limited quantity."""
        widths = widths_at(self._choices, at, self._cost.groups)
        return {quantity: self._cost.of(quantity, widths) for quantity in self._limits}

    def fits(self, at: Levels) -> bool:
        """Whether every limit is met."""
        return all(cost <= self._limits[quantity] for quantity, cost in self.costs(at).items())

    def gap(self, at: Levels) -> Fraction:
        """Return how far below the binding budget levels end, as a share of the dense cost."""
        return min(
            Fraction(self._limits[quantity] - cost, max(self._cost.dense(quantity), 1))
            for quantity, cost in self.costs(at).items()
        )

    def near(self, at: Levels) -> bool:
        """Whether some budget is met within tolerance."""
        return not self._limits or self.gap(at) <= _TOLERANCE

    def refilled(self, at: Levels, steps: Sequence[int]) -> Levels:
        """Take back the latest steps that still fit, until the binding budget is within tolerance."""
        blocked: set[int] = set()
        for number in reversed(steps):
            if self.near(at):
                break
            if number in blocked:
                continue
            at[number] -= 1
            if not self.fits(at):
                at[number] += 1
                blocked.add(number)
        return at

    def unreachable(self, lowest: Levels) -> BudgetUnreachable:
        """Return the error that says what is the lowest there is."""
        reachable = self.costs(lowest)
        over = ", ".join(
            f"{quantity} at most {limit:,}, lowest reachable {reachable[quantity]:,} "
            f"({reachable[quantity] / max(self._cost.dense(quantity), 1):.1%} of the dense network)"
            for quantity, limit in self._limits.items()
            if reachable[quantity] > limit
        )
        return BudgetUnreachable(
            f"no permitted cut meets the budget: {over}; ask for more, or permit more (ignore, round_to, min_channels)",
            reachable,
        )


def _steps(choices: Sequence[Choice], allocate: str) -> list[int]:
    """Return the order in which choices go down a level, by number."""
    keys = [_shares(choice) if allocate == "uniform" else _lost(choice) for choice in choices]
    numbers = np.repeat(np.arange(len(choices)), [len(key) for key in keys])
    # Of equal keys the lower choice goes first, and of one choice the levels in turn: both as they stand.
    return numbers[np.argsort(np.concatenate(keys), kind="stable")].tolist()


def _shares(choice: Choice) -> NDArray[np.float64]:
    """Return for each step minus the share of units that stays before it; shape ``(levels - 1,)``."""
    return -choice.counts[:-1].sum(axis=1) / choice.units


def _lost(choice: Choice) -> NDArray[np.float64]:
    """Return for each step the mean score of the units it removes, never falling; shape ``(levels - 1,)``."""
    totals = np.zeros(len(choice.counts) - 1)
    for cell, scores, counts in zip(choice.cells, choice.scores, choice.counts.T, strict=True):
        group = [own for other, own in zip(choice.cells, choice.scores, strict=True) if other.group == cell.group]
        scale = float(np.abs(np.concatenate(group)).mean()) or 1.0
        removed = np.concatenate([[0.0], np.cumsum(np.sort(scores) / scale)])
        totals += removed[len(scores) - counts[1:]] - removed[len(scores) - counts[:-1]]
    gone = -np.diff(choice.counts.sum(axis=1))
    return np.maximum.accumulate(totals / np.maximum(gone, 1))


def _after(start: Levels, steps: Sequence[int]) -> Levels:
    return start + np.bincount(np.asarray(steps, dtype=np.int64), minlength=len(start))


def best_units(scores: NDArray[np.float64], keep: int) -> tuple[int, ...]:
    """Return the ``keep`` units of highest score in ascending order; of equals the first stays."""
    order = np.argsort(-scores, kind="stable")
    return tuple(sorted(order[:keep].tolist()))


def best_of(choices: Sequence[Choice], at: Levels, groups: int) -> list[tuple[int, ...]]:
    """Return the units of each group that stay, ascending: of every cell those of the highest score."""
    kept: list[list[int]] = [[] for _ in range(groups)]
    for choice, level in zip(choices, at.tolist(), strict=True):
        for cell, scores, count in zip(choice.cells, choice.scores, choice.counts[level].tolist(), strict=True):
            kept[cell.group] += [cell.units[place] for place in best_units(scores, count)]
    return [tuple(sorted(numbers)) for numbers in kept]


def require_groups(choices: Sequence[Choice], reasons: Callable[[], str]) -> None:
    """Refuse to plan where nothing can go; ``reasons`` says what keeps it.

    Raises:
        NothingToPrune: no choice has a level at which something goes.
    """
    if all(len(choice.counts) == 1 and choice.counts.sum() == choice.units for choice in choices):
        raise NothingToPrune(f"no channel of this model may be removed: {reasons()}")
