"""What selection may do with each group, and the units that stay of so many."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cutback.errors import NothingToPrune
from cutback.graph.balance import Cell

Levels = NDArray[np.int64]
"""For each choice, how far down its levels it is; shape ``(choices,)``."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What selection may do with one group, or with several that a balance links.

    Attributes:
        cells: the units that may stand for each other; one cell for a group that no balance restricts.
        scores: importance of the units of each cell; empty until ``scored_by`` gives them.
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

    def scored_by(self, scores: Sequence[NDArray[np.float64]]) -> "Choice":
        """Return the same choice with other scores, given for each group those of its units."""
        whole = len(self.cells) == 1 and len(self.cells[0].units) == len(scores[self.cells[0].group])
        own = [scores[c.group] if whole else scores[c.group][list(c.units)] for c in self.cells]  # in ascending order
        return replace(self, scores=tuple(own))

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
