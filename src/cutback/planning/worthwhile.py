"""Widths that are worth having: kernels work on blocks of channels, so most widths cost what a greater one costs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cutback.planning.select import Choice

NEIGHBOURHOOD = 32
"""How many units up and down are looked at: two blocks of sixteen channels."""
SLOWEST = 0.5
"""A step must save at least this share of what its units save on average in the neighbourhood."""


def worthwhile(
    choice: Choice, whole: NDArray[np.int64], costs_of: Callable[[NDArray[np.int64]], NDArray[np.float64]]
) -> Choice:
    """Return a choice without the levels that save too little next to a wider one.

    The first and the lowest level stay. Another goes if a wider one within reach costs no more, or so little more that
    removing the units between saves less than half of what they save on average in the neighbourhood.

    Args:
        choice: what may happen to a group, or to several that a balance links.
        whole: units of each group before a cut, shape ``(groups,)``; all other groups stay whole.
        costs_of: what several cuts cost, ``(cuts,)``, given how many units of each group stay, ``(cuts, groups)``.
    """
    units = choice.counts.sum(axis=1)
    if len(units) < 3:
        return choice
    widths = np.tile(whole, (len(units), 1))
    widths[:, [cell.group for cell in choice.cells]] = 0
    for level, row in enumerate(widths):
        choice.add(row, level)
    costs = costs_of(widths)
    kept = [level for level in range(len(units)) if level in (0, len(units) - 1) or _saves(units, costs, level)]
    return replace(choice, counts=choice.counts[kept])


def _saves(units: NDArray[np.int64], costs: NDArray[np.float64], level: int) -> bool:
    """Whether a level is enough cheaper than each wider one within reach."""
    near = np.flatnonzero(np.abs(units - units[level]) <= NEIGHBOURHOOD)
    first, last = near[0], near[-1]
    span = units[first] - units[last]
    slope = max((costs[first] - costs[last]) / span, 0.0) if span else 0.0
    wider = np.arange(first, level)
    wider = wider[units[wider] > units[level]]
    saved, gone = costs[wider] - costs[level], units[wider] - units[level]
    return bool(((saved > 0) & (saved >= SLOWEST * slope * gone)).all())
