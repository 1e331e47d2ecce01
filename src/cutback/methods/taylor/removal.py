"""Which units go next: of all layers together the lowest, as many as were asked for, and those that are equal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cutback.planning.allocation import by_key
from cutback.planning.select import Choice, Levels

Array = NDArray[np.float64]


def in_blocks(choice: Choice, size: int) -> Choice:
    """Return a choice of which at least so many units go at a time: widths that hardware likes."""
    totals = choice.counts.sum(axis=1).tolist()
    taken = [0]
    for level, total in enumerate(totals):
        if total <= totals[taken[-1]] - size:
            taken.append(level)
    return replace(choice, counts=choice.counts[taken])


def block_scores(choice: Choice, level: int, penalty: Mapping[int, float]) -> Array:
    """Return what each further step of a choice would cost, never falling, ``(levels - 1 - level,)``.

    It is the mean over the units that go: of each cell the lowest of those that are left.

    Args:
        choice: what may happen to a group, or to several that a balance links. Units that are gone score lowest.
        level: how far down it is.
        penalty: what is taken off the score of each unit of a group, by its number.
    """
    left = choice.counts[level:]
    sums = np.zeros(len(left) - 1)
    for cell, scores, counts in zip(choice.cells, choice.scores, left.T, strict=True):
        alive = np.sort(scores)[len(scores) - counts[0] :] - penalty.get(cell.group, 0.0)
        sums += [alive[start:end].sum() for start, end in pairwise((counts[0] - counts).tolist())]
    return np.maximum.accumulate(sums / -np.diff(left.sum(axis=1)))


def lowest_removed(
    choices: Sequence[Choice],
    at: Levels,
    *,
    most: int,
    enough: Callable[[Levels], bool],
    penalty: Mapping[int, float],
) -> Levels:
    """Return the levels after one removal.

    The threshold is the score of the last unit that has to go; what scores no more than that goes.

    Args:
        choices: what may happen to each group; they hold the scores.
        at: the present level of each.
        most: so many units go, of blocks as many as that holds, but one at least.
        enough: whether no more has to go at some levels; so that the last removal takes no more than it must.
        penalty: what is taken off the score of each unit of a group, by its number.
    """
    keys = [block_scores(choice, level, penalty) for choice, level in zip(choices, at.tolist(), strict=True)]
    order, after = by_key(keys), at.copy()
    taken = [0] * len(choices)
    gone, threshold = 0, -np.inf
    for number in order:
        choice, score = choices[number], float(keys[number][taken[number]])
        units = int((choice.counts[after[number]] - choice.counts[after[number] + 1]).sum())
        full = gone > 0 and (gone + units > most or enough(after))
        if full and score > threshold:
            break
        threshold = max(threshold, score)
        gone += units
        after[number] += 1
        taken[number] += 1
    return after
