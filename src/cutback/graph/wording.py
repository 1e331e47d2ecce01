"""Balances in words: which units of a group must lose equally many."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Group

_MOST = 3
_UNASSIGNED = -1


def worded(
    groups: Sequence[Group], balances: Iterable[list[NDArray[np.int64]]], group_of: NDArray[np.int64]
) -> tuple[Group, ...]:
    """Return the groups with their balances in words.

    Args:
        groups: the groups of a traced model.
        balances: for each balance the components of each block.
        group_of: the group of each component, or -1.
    """
    phrases: list[dict[str, None]] = [{} for _ in groups]
    for parts in balances:
        owner, block = group_of[np.concatenate(parts)], np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        place = (block * len(groups) + owner)[owner != _UNASSIGNED]
        table = np.bincount(place, minlength=len(parts) * len(groups)).reshape(len(parts), len(groups))
        inside = np.flatnonzero(table.any(axis=0)).tolist()
        for number in inside:
            sizes = [size for size in table[:, number].tolist() if size]
            others = [groups[other].name for other in inside if other != number]
            phrases[number][_phrase(sizes, others, len(parts))] = None
    return tuple(
        replace(group, balance=_joined(list(found), "; ")) if found else group
        for group, found in zip(groups, phrases, strict=True)
    )


def _phrase(sizes: Sequence[int], others: Sequence[str], blocks: int) -> str:
    """Say what one balance asks of a group.

    Args:
        sizes: how many units lie in each block that holds any.
        others: names of the groups that share the blocks.
        blocks: how many blocks there are.
    """
    beside = f", with those of {_joined(others, ', ')}" if others else ""
    if len(sizes) == 1:
        return f"as many as in {blocks - 1} other block{'s' if blocks > 2 else ''}{beside}"
    if len(set(sizes)) > 1:
        return f"equally many in blocks of {_joined([str(size) for size in sizes], ', ')}{beside}"
    return f"equally many in each of {len(sizes)} blocks of {sizes[0]}{beside}"


def _joined(items: Sequence[str], separator: str) -> str:
    more = len(items) - _MOST
    return separator.join(items[:_MOST]) + (f" and {more} more" if more > 0 else "")
