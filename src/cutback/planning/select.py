"""Choosing widths that meet every budget, and the units that stay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cutback.errors import BudgetUnreachable, InvalidBudget, NothingToPrune
from cutback.planning.budget import Budget
from cutback.planning.cost import CostModel

ALLOCATIONS = ("uniform", "global")
_TOLERANCE = Fraction(1, 100)
"""How far below the budget, as a share of the dense cost, a plan may end where finer steps exist."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What selection may do with one group.

    Attributes:
        scores: importance of each unit, shape ``(units,)``.
        widths: permitted numbers of units, falling, the first being where the group starts.
    """

    scores: NDArray[np.float64]
    widths: tuple[int, ...]


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


def choose_widths(
    choices: Sequence[Choice], cost: CostModel, budgets: Sequence[Budget], allocate: str
) -> NDArray[np.int64]:
    """Return how many units of each group stay, shape ``(groups,)``: as many as the budgets permit.

    Steps are taken in one order (uniform: the group with the largest share left; global: the units of the lowest score)
    until every budget is met; where the last step overshot by more than 1 % of the dense cost, earlier ones are taken
    back as far as they fit, or another group's next step takes its place.

    Args:
        choices: one a group.
        cost: the network's cost for given widths.
        budgets: bounds on ``macs`` and ``params``.
        allocate: ``uniform`` or ``global``.

    Raises:
        InvalidBudget: ``allocate`` is unknown.
        BudgetUnreachable: even the lowest permitted widths are over a budget.
    """
    if allocate not in ALLOCATIONS:
        raise InvalidBudget(f"no allocation is called {allocate!r}; write allocate='uniform' or allocate='global'")
    start = np.array([choice.widths[0] for choice in choices], dtype=np.int64)
    lowest = np.array([choice.widths[-1] for choice in choices], dtype=np.int64)
    limits = {budget.quantity: budget.limit(cost.dense(budget.quantity)) for budget in budgets}

    def fits(kept: NDArray[np.int64]) -> bool:
        return all(cost.of(quantity, kept) <= limit for quantity, limit in limits.items())

    if not fits(lowest):
        reachable = {quantity: cost.of(quantity, lowest) for quantity in limits}
        over = ", ".join(
            f"{quantity} at most {limit:,}, lowest reachable {reachable[quantity]:,} "
            f"({reachable[quantity] / max(cost.dense(quantity), 1):.1%} of the dense network)"
            for quantity, limit in limits.items()
            if reachable[quantity] > limit
        )
        raise BudgetUnreachable(
            f"no permitted cut meets the budget: {over}; ask for more, or permit more (ignore, round_to, min_channels)",
            reachable,
        )
    if fits(start):
        return start
    steps = _steps(choices, allocate)
    few, many = 0, len(steps)
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if fits(_after(start, steps[:middle])) else (middle + 1, many)
    kept = _refilled(_after(start, steps[:few]), steps[:few], cost, limits, fits)
    if not few or _near(kept, cost, limits):
        return kept
    # The last step was a large one: some other group's next step may end nearer to the budget, by a point or more.
    found = [kept]
    for number, removed in dict(reversed(steps[few:])).items():
        taken = [*steps[: few - 1], (number, removed)]
        if fits(_after(start, taken)):
            found.append(_refilled(_after(start, taken), taken, cost, limits, fits))
    return min(found, key=lambda kept: _gap(kept, cost, limits) // _TOLERANCE)


def _steps(choices: Sequence[Choice], allocate: str) -> list[tuple[int, int]]:
    """Return the order in which groups shrink: ``(group, units removed)``."""
    keyed: list[tuple[float | Fraction, int, int, int]] = []
    for number, choice in enumerate(choices):
        ascending = np.sort(choice.scores)
        scale = float(np.abs(ascending).mean()) or 1.0
        key: float | Fraction = -math.inf
        for place, (width, below) in enumerate(zip(choice.widths, choice.widths[1:], strict=False)):
            if allocate == "uniform":
                key = -Fraction(width, len(ascending))
            else:
                gone = ascending[len(ascending) - width : len(ascending) - below]
                key = max(float(key), float(gone.mean()) / scale)
            keyed.append((key, number, place, width - below))
    return [(number, removed) for _, number, _, removed in sorted(keyed)]


def _after(start: NDArray[np.int64], steps: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    kept = start.copy()
    for number, removed in steps:
        kept[number] -= removed
    return kept


def _refilled(
    kept: NDArray[np.int64],
    steps: Sequence[tuple[int, int]],
    cost: CostModel,
    limits: dict[str, int],
    fits: Callable[[NDArray[np.int64]], bool],
) -> NDArray[np.int64]:
    """Take back the latest steps that still fit, until the binding budget is within tolerance."""
    blocked: set[int] = set()
    for number, removed in reversed(steps):
        if _near(kept, cost, limits):
            break
        if number in blocked:
            continue
        kept[number] += removed
        if not fits(kept):
            kept[number] -= removed
            blocked.add(number)
    return kept


def _near(kept: NDArray[np.int64], cost: CostModel, limits: dict[str, int]) -> bool:
    """Whether some budget is met within tolerance."""
    return not limits or _gap(kept, cost, limits) <= _TOLERANCE


def _gap(kept: NDArray[np.int64], cost: CostModel, limits: dict[str, int]) -> Fraction:
    """Return how far below the binding budget widths end, as a share of the dense cost."""
    return min(
        Fraction(limit - cost.of(quantity, kept), max(cost.dense(quantity), 1)) for quantity, limit in limits.items()
    )


def best_units(scores: NDArray[np.float64], keep: int) -> tuple[int, ...]:
    """Return the ``keep`` units of highest score in ascending order; of equals the first stays."""
    order = np.argsort(-scores, kind="stable")
    return tuple(sorted(order[:keep].tolist()))


def require_groups(choices: Sequence[Choice], reasons: Callable[[], str]) -> None:
    """Refuse to plan where nothing can go; ``reasons`` says what keeps it.

    Raises:
        NothingToPrune: no group has more than one permitted width.
    """
    if all(choice.widths == (len(choice.scores),) for choice in choices):
        raise NothingToPrune(f"no channel of this model may be removed: {reasons()}")
