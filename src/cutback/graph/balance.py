"""Balance: blocks of channels that may lose any of their members, but equally many each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Counts = NDArray[np.int64]
"""How many units of each cell stay, shape ``(cells,)``."""

_FINEST = 32
"""Levels of a system that does not shrink in one proportion."""
_SECONDS = 2.0
"""For one level; it takes a tenth of a second."""
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
    def levels(self) -> NDArray[np.int64]:
        """Balanced counts from the whole system to the least, fewer in all at each; shape ``(levels, cells)``.

        Where all cells can shrink in one proportion only, or finely enough, that is all; else the balanced counts
        nearest to equal shares are found by integer programming (HiGHS).
        """
        divisor = math.gcd(*self.sizes.tolist())
        if self._in_proportion or (not self.offsets.any() and divisor >= _FINEST // 4):
            return np.arange(divisor, 0, -1)[:, None] * (self.sizes // divisor)
        steps = min(int(self.sizes.sum()), _FINEST)
        found = [self.sizes]
        for step in range(1, steps):
            counts = self.nearest(self.sizes * (1 - step / steps))
            if counts is not None and counts.sum() < found[-1].sum():
                found.append(counts)
        return np.stack(found)

    @cached_property
    def _in_proportion(self) -> bool:
        """Whether all cells can shrink in one proportion only."""
        return not self.offsets.any() and bool(np.linalg.matrix_rank(self.matrix) == len(self.cells) - 1)

    def nearest(self, wanted: NDArray[np.floating[Any]], at_most: Mapping[int, int] | None = None) -> Counts | None:
        """Return the balanced counts nearest to wanted ones; ``None`` if there are none.

        Args:
            wanted: how many units of each cell should stay, shape ``(cells,)``.
            at_most: how many units of whole groups may stay, by the group's number.
        """
        if self._in_proportion:
            return self._nearest_in_proportion(wanted, at_most or {})
        # Variables: the counts, then how far each lies from what is wanted.
        number = len(self.cells)
        unit = np.eye(number)
        owner = np.array([cell.group for cell in self.cells])
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
            options={"time_limit": _SECONDS},
        )
        if result.x is None:
            return None
        counts = np.rint(result.x[:number]).astype(np.int64)
        return counts if self.balanced(counts) else None

    def _nearest_in_proportion(self, wanted: NDArray[np.floating[Any]], at_most: Mapping[int, int]) -> Counts | None:
        """Return the same where all balanced counts are multiples of one."""
        divisor = math.gcd(*self.sizes.tolist())
        owner = np.array([cell.group for cell in self.cells])
        counts = np.arange(divisor, 0 if self.together else -1, -1)[:, None] * (self.sizes // divisor)
        for group, most in at_most.items():
            counts = counts[counts[:, owner == group].sum(axis=1) <= most]
        return counts[np.abs(counts - wanted).sum(axis=1).argmin()] if len(counts) else None


def _beside(left: NDArray[np.generic], right: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.concatenate([left, right], axis=1)


def nontrivial(parts: Sequence[Tensor], components: NDArray[np.int64]) -> list[NDArray[np.int64]] | None:
    """Return the components of each block, sorted; ``None`` where all blocks hold the same and so lose the same."""
    found = [np.sort(components[part.numpy()]) for part in parts]
    return None if all(np.array_equal(found[0], other) for other in found[1:]) else found


def systems(
    blocks: Iterable[list[NDArray[np.int64]]],
    group_of: NDArray[np.int64],
    unit_of: NDArray[np.int64],
    units: Sequence[int],
    layers: Iterable[frozenset[int]],
) -> tuple[System, ...]:
    """Gather groups that some balance links.

    Args:
        blocks: for each balance the components of each block.
        group_of: the group of each component, or -1.
        unit_of: its number in the group.
        units: how many units each group has.
        layers: for each layer none of whose channels stays anyway, the groups its channels are of.
    """
    distinct = {b"|".join(part.tobytes() for part in parts): parts for parts in blocks}
    if not distinct:
        return ()
    starts = np.concatenate([[0], np.cumsum(units)])
    membership, fixed, equations = _membership(list(distinct.values()), group_of, unit_of, starts)
    owner = np.repeat(np.arange(len(units)), units)
    by_group = csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(len(units), len(owner)))
    touched = (by_group @ membership.T).tocoo()  # groups x blocks
    # A group and the balances it lies in are one system: connect groups and balances as one graph.
    total = len(units)
    _, part = connected_components(
        coo_matrix(
            (np.ones(len(touched.row)), (touched.row, total + equations[touched.col])),
            shape=(total + len(distinct),) * 2,
        ),
        directed=False,
    )
    found: list[System] = []
    apart = set(layers)
    for number in np.unique(part[np.unique(touched.row)]):
        groups = np.flatnonzero(part[:total] == number)
        rows = np.flatnonzero(part[total + equations] == number)
        together = tuple(groups_of for groups_of in apart if groups_of <= set(groups.tolist()))
        found.append(_system(groups, membership[rows], fixed[rows], equations[rows], starts, together))
    return tuple(found)


def _membership(
    balances: Sequence[Sequence[NDArray[np.int64]]],
    group_of: NDArray[np.int64],
    unit_of: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> tuple[csr_matrix, NDArray[np.int64], NDArray[np.int64]]:
    """Return how often each unit lies in each block, how many fixed channels do, and the balance each block is of."""
    parts = [(number, part) for number, balance in enumerate(balances) for part in balance]
    row = np.repeat(np.arange(len(parts)), [len(part) for _, part in parts])
    component = np.concatenate([part for _, part in parts])
    free = group_of[component] != _UNASSIGNED
    column = starts[group_of[component[free]]] + unit_of[component[free]]
    shape = (len(parts), int(starts[-1]))
    membership = csr_matrix((np.ones(len(column), dtype=np.int64), (row[free], column)), shape=shape)
    fixed = np.bincount(row[~free], minlength=len(parts))
    return membership, fixed, np.array([number for number, _ in parts])


def _system(
    groups: NDArray[np.int64],
    membership: csr_matrix,
    fixed: NDArray[np.int64],
    balance: NDArray[np.int64],
    starts: NDArray[np.int64],
    together: tuple[frozenset[int], ...],
) -> System:
    """Divide the units of linked groups into cells and write the equations."""
    cells: list[Cell] = []
    columns: list[NDArray[np.int64]] = []
    by_unit: Any = membership.tocsc()  # its annotations know no arrays
    bounds = by_unit.indptr.tolist()
    for group in groups.tolist():
        alike: dict[bytes, list[int]] = {}
        for unit in range(starts[group], starts[group + 1]):
            inside = slice(bounds[unit], bounds[unit + 1])
            key = by_unit.indices[inside].tobytes() + by_unit.data[inside].tobytes()
            alike.setdefault(key, []).append(unit)
        for found in alike.values():
            cells.append(Cell(group, tuple(unit - int(starts[group]) for unit in found)))
            inside = slice(bounds[found[0]], bounds[found[0] + 1])
            column = np.zeros(len(balance), dtype=np.int64)
            column[by_unit.indices[inside]] = by_unit.data[inside]
            columns.append(column)
    table = np.stack(columns, axis=1)
    first = np.searchsorted(balance, balance)  # the first block of each block's balance
    equations = np.concatenate([table - table[first], (fixed[first] - fixed)[:, None]], axis=1)
    equations = np.unique(equations, axis=0)
    equations = equations[equations.any(axis=1)]
    return System(tuple(groups.tolist()), tuple(cells), equations[:, :-1], equations[:, -1], together)
