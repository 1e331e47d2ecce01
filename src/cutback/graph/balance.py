"""Balance: blocks of channels that may lose any of their members, but equally many each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from cutback.graph.labels import unlike_previous

Counts = NDArray[np.int64]
"""How many units of each cell stay, shape ``(cells,)``."""

Blocks = list[NDArray[np.int64]]
"""The components of each block of a balance."""

_FINEST = 32
"""Levels of a system that does not shrink in one proportion."""
_NODES = 1000
"""Of the search for one level, which takes a few. Not seconds: these would let levels depend on the machine."""
_UNASSIGNED = -1


@dataclass(frozen=True)
class Cell:
    """Units of one group that lie in the same blocks, so that any of them may stand for another.

    Attributes:
        group: number of the group.
        units: their numbers.
    """

    group: int
    units: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class System:
    """Groups whose blocks must keep equally many: a cut is legal only where ``matrix @ counts == offsets``.

    Attributes:
        groups: numbers of the groups.
        cells: all their units, by the blocks they lie in.
        matrix: one equation a row, shape ``(equations, cells)``.
        offsets: its right side, shape ``(equations,)``; not zero where channels that stay anyway lie in the blocks.
        together: sets of groups of which at least one unit must stay: some layer would be empty else.
    """

    groups: tuple[int, ...]
    cells: tuple[Cell, ...]
    matrix: NDArray[np.int64]
    offsets: NDArray[np.int64]
    together: tuple[frozenset[int], ...]

    @cached_property
    def sizes(self) -> Counts:
        """How many units each cell has."""
        return np.array([len(cell.units) for cell in self.cells], dtype=np.int64)

    def counts_of(self, kept: Sequence[NDArray[np.bool_]]) -> Counts:
        """Return how many units of each cell stay, given for each group which do."""
        return np.array([kept[cell.group][list(cell.units)].sum() for cell in self.cells], dtype=np.int64)

    def balanced(self, counts: Counts) -> bool:
        """Whether every block keeps equally many."""
        return bool((self.matrix @ counts == self.offsets).all())

    @cached_property
    def _rigid(self) -> bool:
        """Whether all cells shrink in one proportion only."""
        return not self.offsets.any() and bool(np.linalg.matrix_rank(self.matrix) == len(self.cells) - 1)

    @cached_property
    def _in_proportion(self) -> NDArray[np.int64]:
        """The counts in proportion to the whole, from all to the least, shape ``(levels, cells)``."""
        divisor = math.gcd(*self.sizes.tolist())
        return np.arange(divisor, 0, -1)[:, None] * (self.sizes // divisor)

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """Balanced counts from the whole system to the least, fewer in all at each; shape ``(levels, cells)``.

        Where all cells can shrink in one proportion only, or finely enough, that is all; else the balanced counts
        nearest to equal shares are found by integer programming (HiGHS).
        """
        divisor = math.gcd(*self.sizes.tolist())
        if self._rigid or (not self.offsets.any() and divisor >= _FINEST // 4):
            return self._in_proportion
        steps = min(int(self.sizes.sum()), _FINEST)
        found = [self.sizes]
        for step in range(1, steps):
            counts = self.nearest(self.sizes * (1 - step / steps))
            if counts is not None and counts.sum() < found[-1].sum():
                found.append(counts)
        return np.stack(found)

    def nearest(self, wanted: NDArray[np.floating[Any]], at_most: Mapping[int, int] | None = None) -> Counts | None:
        """Return the balanced counts nearest to wanted ones; ``None`` if there are none.

        Args:
            wanted: how many units of each cell should stay, shape ``(cells,)``.
            at_most: how many units of whole groups may stay, by the group's number.
        """
        owner = np.array([cell.group for cell in self.cells])
        if self._rigid:
            permitted = self._in_proportion
            for group, most in (at_most or {}).items():
                permitted = permitted[permitted[:, owner == group].sum(axis=1) <= most]
            far = np.abs(permitted - wanted).sum(axis=1)
            return permitted[far.argmin()] if len(far) else None
        # Variables: the counts, then how far each lies from what is wanted.
        number = len(self.cells)
        unit = np.eye(number)
        limited = dict(at_most or {})
        highest = np.array([limited[group] for group in limited] + [np.inf] * len(self.together))
        lowest = np.repeat([0, 1], [len(limited), len(self.together)])
        inner = [np.isin(owner, list(groups)) for groups in [*({group} for group in limited), *self.together]]
        inside = np.array(inner, dtype=np.float64).reshape(len(inner), number)
        solver: Any = optimize  # its annotations forbid arrays as bounds
        limits = [
            solver.LinearConstraint(_beside(self.matrix, 0 * self.matrix), self.offsets, self.offsets),
            solver.LinearConstraint(_beside(unit, -unit), -np.inf, wanted),
            solver.LinearConstraint(_beside(unit, unit), wanted, np.inf),
            solver.LinearConstraint(_beside(inside, 0 * inside), lowest, highest),
        ]
        result = solver.milp(
            np.repeat([0.0, 1.0], number),
            integrality=np.repeat([1, 0], number),
            bounds=solver.Bounds(np.zeros(2 * number), np.concatenate([self.sizes, np.full(number, np.inf)])),
            constraints=limits,
            options={"node_limit": _NODES},
        )
        if result.x is None:
            return None
        counts = np.rint(result.x[:number]).astype(np.int64)
        return counts if self.balanced(counts) else None


def _beside(left: NDArray[np.generic], right: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.concatenate([left, right], axis=1)


def nontrivial(parts: Sequence[Tensor], components: NDArray[np.int64]) -> Blocks | None:
    """Return the components of each block, sorted; ``None`` where all blocks hold the same and so lose the same."""
    together = components[np.concatenate([part.numpy() for part in parts])]
    if len({len(part) for part in parts}) > 1:
        bounds = np.cumsum([len(part) for part in parts[:-1]])
        return [np.sort(part) for part in np.split(together, bounds)]
    table = np.sort(together.reshape(len(parts), -1), axis=1)
    return None if (table == table[0]).all() else list(table)


def distinct(balances: Iterable[Blocks]) -> list[Blocks]:
    """Return balances without those that ask the same as another."""
    return list({b"|".join(part.tobytes() for part in parts): parts for parts in balances}.values())


def systems(
    balances: Sequence[Blocks],
    group_of: NDArray[np.int64],
    unit_of: NDArray[np.int64],
    units: Sequence[int],
    layers: Iterable[frozenset[int]],
) -> tuple[System, ...]:
    """Gather groups that some balance links.

    Args:
        balances: for each balance the components of each block.
        group_of: the group of each component, or -1.
        unit_of: its number in the group.
        units: how many units each group has.
        layers: for each layer none of whose channels stays anyway, the groups its channels are of.
    """
    if not balances or not units:
        return ()
    parts = [part for balance in balances for part in balance]
    balance_of = np.repeat(np.arange(len(balances)), [len(balance) for balance in balances])
    block = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    component = np.concatenate(parts)
    free = group_of[component] != _UNASSIGNED
    fixed = np.bincount(block[~free], minlength=len(parts))
    starts = np.concatenate([[0], np.cumsum(units)])
    cells = _cells(starts[group_of[component[free]]] + unit_of[component[free]], block[free], starts)
    # A group and the balances it lies in are one system: connect groups and balances as one graph.
    group = np.repeat([cell.group for cell, _ in cells], [len(blocks) for _, blocks in cells])
    asked = balance_of[np.concatenate([blocks for _, blocks in cells])] if cells else group
    total = len(units)
    edges = coo_matrix((np.ones(len(group)), (group, total + asked)), shape=(total + len(balances),) * 2)
    _, system_of = connected_components(edges, directed=False)
    inside: dict[int, list[tuple[Cell, NDArray[np.int64]]]] = {}
    for cell, blocks in cells:
        inside.setdefault(int(system_of[cell.group]), []).append((cell, blocks))
    found: list[System] = []
    apart = set(layers)
    for number, members in sorted(inside.items()):
        rows = np.flatnonzero(system_of[total + balance_of] == number)
        groups = tuple(dict.fromkeys(cell.group for cell, _ in members))
        together = tuple(of_layer for of_layer in apart if of_layer <= set(groups))
        column = np.repeat(np.arange(len(members)), [len(blocks) for _, blocks in members])
        place = np.searchsorted(rows, np.concatenate([blocks for _, blocks in members])) * len(members) + column
        table = np.bincount(place, minlength=len(rows) * len(members)).reshape(len(rows), -1)
        matrix, offsets = _equations(table, fixed[rows], balance_of[rows])
        found.append(System(groups, tuple(cell for cell, _ in members), matrix, offsets, together))
    return tuple(found)


def _cells(
    unit: NDArray[np.int64], block: NDArray[np.int64], starts: NDArray[np.int64]
) -> list[tuple[Cell, NDArray[np.int64]]]:
    """Divide the units of all groups that lie in some block into cells; return these with their blocks.

    Args:
        unit: the units that lie in blocks, numbered through all groups.
        block: the block of each, ascending.
        starts: the number of each group's first unit, and at the end how many units there are.
    """
    block = block[np.argsort(unit, kind="stable")]
    lengths = np.bincount(unit, minlength=int(starts[-1]))
    ends = np.cumsum(lengths)
    changes = unlike_previous(lengths, block)
    changes[starts[:-1]] = True
    first = np.flatnonzero(changes)
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    linked = {int(group) for group in np.unique(owner[unit])}
    alike: dict[tuple[int, bytes], list[int]] = {}
    for begin, end in zip(first.tolist(), [*first[1:].tolist(), int(starts[-1])], strict=True):
        group = int(owner[begin])
        if group in linked:
            key = block[ends[begin] - lengths[begin] : ends[begin]].tobytes()
            alike.setdefault((group, key), []).extend(range(begin - int(starts[group]), end - int(starts[group])))
    return [(Cell(group, tuple(of)), np.frombuffer(key, dtype=np.int64)) for (group, key), of in alike.items()]


def _equations(
    table: NDArray[np.int64], fixed: NDArray[np.int64], balance: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the matrix and the offsets of a system.

    Args:
        table: how often each cell's units lie in each block, shape ``(blocks, cells)``.
        fixed: how many channels of each block stay anyway.
        balance: the balance each block is of, ascending.
    """
    first = np.searchsorted(balance, balance)  # the first block of each block's balance
    equations = np.concatenate([table - table[first], (fixed[first] - fixed)[:, None]], axis=1)
    distinct_rows = {row.tobytes(): row for row in equations[equations.any(axis=1)]}
    equations = np.array(list(distinct_rows.values()), dtype=np.int64).reshape(-1, equations.shape[1])
    equations = equations[np.lexsort(equations.T[::-1])]
    return equations[:, :-1], equations[:, -1]
