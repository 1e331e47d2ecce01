"""Which rows are reset: the lowest norms of the whole network, a few more each time, until the budget is met.

X. Ding et al., ICCV 2021, section 3.3; the walk is that of the authors' code.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Norms = Sequence[NDArray[np.float64]]
Meets = Callable[[Sequence[int]], bool]
"""Whether the budget is met when so many rows of each compactor stay."""


def rows_in_order(norms: Norms, least: int) -> list[tuple[int, int]]:
    """Return the rows that may go as ``(compactor, row)``, the one of the lowest norm first.

    Going through all rows by norm, one is skipped when only ``least`` of its compactor are left: those are the largest
    of each. Of equal norms the earlier compactor and row comes first.

    Args:
        norms: of the rows of each compactor, ``(C,)``.
        least: so many rows of each stay.

    Example:
        >>> rows_in_order([np.array([0.3, 0.1]), np.array([0.2, 0.5, 0.4])], least=1)
        [(0, 1), (1, 0), (1, 2)]
    """
    every = [(norm, number, row) for number, own in enumerate(norms) for row, norm in enumerate(own.tolist())]
    left = [len(own) for own in norms]
    found: list[tuple[int, int]] = []
    for _, number, row in sorted(every):
        if left[number] > least:
            left[number] -= 1
            found.append((number, row))
    return found


def how_many(order: Sequence[tuple[int, int]], sizes: Sequence[int], meets: Meets) -> int:
    """Return after how many rows of an order the budget is met; all of them, and one, where it never is.

    Args:
        order: the rows that may go.
        sizes: how many rows each compactor has.
        meets: whether the budget is met; where it is, it is also with fewer rows.
    """

    def met(count: int) -> bool:
        return meets(widths_without(order[:count], sizes))

    return bisect_left(range(len(order) + 1), True, key=met)


def widths_without(rows: Sequence[tuple[int, int]], sizes: Sequence[int]) -> list[int]:
    """Return how many rows of each compactor stay without the given ones."""
    gone = np.bincount([number for number, _ in rows], minlength=len(sizes)) if rows else np.zeros(len(sizes), int)
    return (np.array(sizes) - gone).tolist()


def live_rows(rows: Sequence[tuple[int, int]], sizes: Sequence[int]) -> list[NDArray[np.bool_]]:
    """Return for each compactor which rows are not among the given ones."""
    live = [np.ones(size, dtype=bool) for size in sizes]
    for number, row in rows:
        live[number][row] = False
    return live


def next_reset(
    norms: Norms, live: Sequence[NDArray[np.bool_]], meets: Meets, *, least: int, added: int
) -> list[tuple[int, int]]:
    """Return the rows that are reset from now on, chosen from scratch.

    The rows of the lowest norm are taken until the budget is met; while those that are reset now do not meet it, at
    most ``added`` more than these. So a row whose norm has risen may learn again. Rows that are skipped, the last of
    their compactor, do not count.

    Args:
        norms: of the rows of each compactor, ``(C,)``.
        live: which rows of each compactor are not reset now, ``(C,)``.
        meets: whether the budget is met.
        least: so many rows of each compactor stay.
        added: so many rows more than now at most.
    """
    order, sizes = rows_in_order(norms, least), [len(own) for own in norms]
    widths = [int(own.sum()) for own in live]
    enough = how_many(order, sizes, meets)
    return order[: enough if meets(widths) else min(enough, sum(sizes) - sum(widths) + added)]
