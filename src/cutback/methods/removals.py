"""What may be removed next, what it saves with the widths at hand, and the cheapest of it (Liu 2021, section 3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cutback.gates import mixed_groups
from cutback.graph.graph import Graph
from cutback.planning.allocation import Task
from cutback.planning.quantity import Quantity
from cutback.planning.select import Choice


@dataclass(frozen=True)
class Removal:
    """Units that go together: one, or those that a balance lets go only together.

    Attributes:
        choice: the number of the choice that goes down a level.
        units: their numbers, by the number of their group.
        importance: the sum of their importances.
        saved: what the network costs less without them, in the units of the normaliser; 1 without one.
    """

    choice: int
    units: Mapping[int, tuple[int, ...]]
    importance: float
    saved: int


class Removals:
    """The units of a graph that are alive, and what may be removed of them.

    Args:
        task: the graph, what may happen to each group or to several that a balance links, and the budgets.
        saving: the quantity whose saving divides the importance; ``None`` to divide by none.

    Attributes:
        alive: for each group which of its units are, ``(units,)``.
        levels: for each choice how far down it has gone.
        at_once: numbers of the groups that masks silence otherwise than a cut does, and of those that a balance links,
            where a cut may prefer other units: no unit of these is masked for long.
    """

    def __init__(self, task: Task, saving: Quantity | None) -> None:
        graph = task.graph
        self.alive = [np.ones(group.units, dtype=bool) for group in graph.groups]
        self.levels = np.zeros(len(task.choices), dtype=np.int64)
        mixed = mixed_groups(graph)
        linked = {number for system in graph.systems for number in system.groups}
        self.at_once = linked | {number for number, group in enumerate(graph.groups) if group.name in mixed}
        self._task, self._saving = task, saving

    @property
    def enough(self) -> bool:
        """Whether what is alive meets every budget."""
        return self._task.fits(self.levels)

    @property
    def costs(self) -> dict[str, int]:
        """Each budgeted figure of the network without what is dead."""
        return self._task.costs(self.levels)

    @property
    def shrinking(self) -> set[int]:
        """The numbers of the groups that may lose units."""
        return {cell.group for choice in self._task.choices if len(choice.counts) > 1 for cell in choice.cells}

    def candidates(self, importances: Mapping[int, NDArray[np.float64]]) -> list[Removal]:
        """Return what each choice would lose next; none that saves nothing.

        Args:
            importances: of the units of each group that may lose some, ``(units,)``.
        """
        widths = self._task.widths(self.levels)
        before = 0 if self._saving is None else self._saving.of(widths)
        found: list[Removal] = []
        for number, (choice, level) in enumerate(zip(self._task.choices, self.levels.tolist(), strict=True)):
            if level + 1 == len(choice.counts):
                continue
            saved = 1
            if self._saving is not None:
                saved = before - self._saving.of(self._task.moved(widths, number, level, level + 1))
            if saved > 0:
                found.append(self._removal(number, importances, saved))
        return found

    def remove(self, removal: Removal) -> None:
        """Let units be dead."""
        for group, units in removal.units.items():
            self.alive[group][list(units)] = False
        self.levels[removal.choice] += 1

    def _removal(self, number: int, importances: Mapping[int, NDArray[np.float64]], saved: int) -> Removal:
        """Return the removal by which a choice goes down a level: of every cell the least important units that live."""
        choice, level = self._task.choices[number], int(self.levels[number])
        units: dict[int, tuple[int, ...]] = {}
        importance = 0.0
        for cell, fewer in zip(choice.cells, (choice.counts[level] - choice.counts[level + 1]).tolist(), strict=True):
            living = np.array(cell.units)[self.alive[cell.group][list(cell.units)]]
            order = living[np.argsort(importances[cell.group][living], kind="stable")][:fewer]
            units[cell.group] = (*units.get(cell.group, ()), *order.tolist())
            importance += float(importances[cell.group][order].sum())
        return Removal(number, units, importance, saved)


def cheapest(candidates: Sequence[Removal]) -> Removal:
    """Return the removal of the least importance for what it saves; of equals the first."""
    return min(candidates, key=lambda removal: removal.importance / removal.saved)


def saving_choices(graph: Graph, choices: Sequence[Choice], saving: Quantity | None) -> list[Choice]:
    """Return choices of which those stay whole that could save nothing, as a layer between linear ones saves memory."""
    if saving is None:
        return list(choices)
    task = Task(graph, choices, {}, {})
    whole = task.widths(np.zeros(len(choices), dtype=np.int64))
    return [
        choice
        if saving.of(task.moved(whole, number, 0, len(choice.counts) - 1)) < saving.of(whole)
        else replace(choice, counts=choice.counts[:1])
        for number, choice in enumerate(choices)
    ]
