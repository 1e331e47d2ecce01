"""What an allocation is: it says in which order groups lose units, until every budget is met."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cutback.errors import InvalidBudget
from cutback.graph.graph import Graph
from cutback.planning.quantity import Quantity
from cutback.planning.select import Choice, Levels
from cutback.planning.sensitivity import Sensitivity
from cutback.registry import Registry
from cutback.scores.catalogue import Score


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be allocated.

    Attributes:
        graph: the traced model.
        choices: what may happen to each group, or to several that a balance links; together they hold every group.
        measured: the quantities that budgets bound.
        limits: the largest permitted figure of each.
    """

    graph: Graph
    choices: Sequence[Choice]
    measured: Mapping[str, Quantity]
    limits: Mapping[str, int]

    @cached_property
    def _single(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Of the choices of one cell: their numbers, their groups, all their counts, and where those of each begin."""
        numbers = [number for number, choice in enumerate(self.choices) if len(choice.cells) == 1]
        groups = [self.choices[number].cells[0].group for number in numbers]
        counts = [self.choices[number].counts[:, 0] for number in numbers]
        starts = np.cumsum([0, *map(len, counts)])[:-1]
        return np.array(numbers, int), np.array(groups, int), np.concatenate([*counts, np.empty(0, int)]), starts

    def widths(self, at: Levels) -> NDArray[np.int64]:
        """Return how many units of each group stay with every choice at a level, ``(groups,)``."""
        numbers, groups, counts, starts = self._single
        widths = np.zeros(len(self.graph.groups), dtype=np.int64)
        widths[groups] = counts[starts + at[numbers]]
        for choice, level in zip(self.choices, at.tolist(), strict=True):
            if len(choice.cells) > 1:
                choice.add(widths, level)
        return widths

    def moved(self, widths: NDArray[np.int64], number: int, level: int, to: int) -> NDArray[np.int64]:
        """Return the widths of all groups after one choice goes from a level to another."""
        choice, found = self.choices[number], widths.copy()
        for cell, change in zip(choice.cells, (choice.counts[to] - choice.counts[level]).tolist(), strict=True):
            found[cell.group] += change
        return found

    def costs(self, at: Levels) -> dict[str, int]:
        """Return each bounded figure with every choice at a level."""
        widths = self.widths(at)
        return {name: quantity.of(widths) for name, quantity in self.measured.items()}

    def fits(self, at: Levels) -> bool:
        """Whether every limit is met."""
        widths = self.widths(at)
        return all(quantity.of(widths) <= self.limits[name] for name, quantity in self.measured.items())


class Allocation(ABC):
    """Decides how much each group loses. To add one, write a file in ``planning/allocations`` that registers it."""

    @abstractmethod
    def order(self, task: Task) -> Sequence[int]:
        """Return in which order choices go down one level, by their number.

        The plan takes as few of these steps as meet the budgets; what follows after that does not matter, nor does
        leaving it out.
        """

    def rescored(self, task: Task, score: str | Score | type[Score], at: Levels) -> list[NDArray[np.float64]] | None:  # noqa: ARG002
        """Return other scores to choose the units by, once it is settled how many stay; ``None`` for the same."""
        return None


allocations: Registry[Callable[[], Allocation]] = Registry("allocation", "cutback.planning.allocations")
"""Allocations by name; an entry called without arguments gives the allocation as published."""


def ready(allocate: str | Allocation | Sensitivity) -> Allocation:
    """Return the allocation a user means.

    Raises:
        InvalidBudget: nothing is called that, or it is something else.
    """
    if isinstance(allocate, Allocation):
        return allocate
    if isinstance(allocate, Sensitivity):
        guided = cast("Callable[[Sensitivity], Allocation]", allocations.get("sensitivity"))
        return guided(allocate)
    if not isinstance(allocate, str) or allocations.find(allocate) is None:
        raise InvalidBudget(
            f"no allocation is called {allocate!r}; write for example allocate='global'; there are "
            f"{', '.join(allocations)}"
        )
    return allocations.get(allocate)()


def shares_left(choice: Choice) -> NDArray[np.float64]:
    """Return for each step the share of units that stays before it, ``(levels - 1,)``."""
    return choice.counts[:-1].sum(axis=1) / choice.units


def units_gone(choice: Choice) -> NDArray[np.int64]:
    """Return how many units each step removes, ``(levels - 1,)``."""
    return -np.diff(choice.counts.sum(axis=1))


def scores_lost(choice: Choice, *, normalised: bool) -> NDArray[np.float64]:
    """Return the sum of the scores that each step loses, ``(levels - 1,)``.

    Args:
        choice: of every cell the units of the lowest score go first.
        normalised: divide the scores of each group by their mean magnitude.
    """
    totals = np.zeros(len(choice.counts) - 1)
    for cell, scores, counts in zip(choice.cells, choice.scores, choice.counts.T, strict=True):
        scale = 1.0
        if normalised:
            group = [own for other, own in zip(choice.cells, choice.scores, strict=True) if other.group == cell.group]
            scale = float(np.abs(np.concatenate(group)).mean()) or 1.0
        removed = np.concatenate([[0.0], np.cumsum(np.sort(scores) / scale)])
        totals += removed[len(scores) - counts[1:]] - removed[len(scores) - counts[:-1]]
    return totals


def mean_lost(choice: Choice, *, normalised: bool) -> NDArray[np.float64]:
    """Return the mean score of the units that each step removes, never falling, ``(levels - 1,)``."""
    means = scores_lost(choice, normalised=normalised) / np.maximum(units_gone(choice), 1)
    return np.maximum.accumulate(means)


def by_key(keys: Sequence[NDArray[np.float64]], then: Sequence[NDArray[np.float64]] | None = None) -> list[int]:
    """Return the order of steps of the lowest key first.

    Args:
        keys: for each choice the key of each of its steps, never falling.
        then: keys to compare where the first are equal. Of equal steps that of the lower choice goes first.
    """
    numbers = np.repeat(np.arange(len(keys)), [len(key) for key in keys])
    first = np.concatenate([*keys, np.empty(0)])
    second = np.zeros(len(first)) if then is None else np.concatenate([*then, np.empty(0)])
    return numbers[np.lexsort((np.arange(len(first)), second, first))].tolist()
