"""Units that go in an order settled for each group, and widths by one threshold over all groups: what methods share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import NothingToPrune
from cutback.graph.graph import Graph
from cutback.planning.allocation import Allocation, Task, by_key, shares_left
from cutback.planning.limits import Limits
from cutback.planning.select import Choice

ROUNDING = 1e-12
"""So far above a threshold a key still is at it."""


@dataclass(frozen=True)
class Leaving:
    """In which order the units of a group go, and when.

    Attributes:
        order: all units, the first to go first.
        keys: the threshold from which on so many are gone: ``keys[j]`` is that of ``j + 1`` units, ``(units,)``. Where
            it falls, the lower one is not reached before the higher.
    """

    order: Sequence[int]
    keys: NDArray[np.float64]

    def width(self, threshold: float) -> int:
        """Return how many units stay at a threshold, one at least."""
        gone = int((np.maximum.accumulate(self.keys) <= threshold + ROUNDING).sum())
        return max(1, len(self.keys) - gone)


def ranks(graph: Graph, leaving: Mapping[str, Leaving]) -> dict[str, Tensor]:
    """Return scores ``(units,)`` by which the units that go last are the highest; of other groups all are equal."""
    found = {group.name: torch.ones(group.units, dtype=torch.float64) for group in graph.groups}
    for name, group in leaving.items():
        found[name][list(group.order)] = torch.arange(len(group.order), dtype=torch.float64)
    return found


def widths_at(
    graph: Graph, leaving: Mapping[str, Leaving], threshold: float, limits: Limits, called: str
) -> dict[str, int]:
    """Return how many units of each group stay at a threshold.

    Args:
        graph: the traced model.
        leaving: of each group by name.
        threshold: the same for all.
        limits: what must stay anyway.
        called: name of the threshold, for the message.

    Raises:
        NothingToPrune: all of all groups.
    """
    units = {group.name: group.units for group in graph.groups}
    widths = {
        name: min(units[name], max(own.width(threshold), limits.min_channels, limits.least(units[name])))
        for name, own in leaving.items()
    }
    if all(width == units[name] for name, width in widths.items()):
        raise NothingToPrune(f"no layer may lose a filter at {called}={threshold:g}; write a larger one")
    return widths


class ByThreshold(Allocation):
    """One threshold for all groups: each has lost what its keys say.

    Args:
        leaving: of each group by name; may be filled in after it was made. Groups without stay as long as others go.
    """

    def __init__(self, leaving: Mapping[str, Leaving]) -> None:
        self.leaving = leaving

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps of the lowest keys first; of equal ones those of the largest share left."""
        keys = [self._keys(task, choice) for choice in task.choices]
        return by_key(keys, [-shares_left(choice) for choice in task.choices])

    def _keys(self, task: Task, choice: Choice) -> NDArray[np.float64]:
        """Return the key of each step: of several groups that go together the highest of theirs."""
        keys = np.zeros(len(choice.counts) - 1)
        owner = np.array([cell.group for cell in choice.cells])
        for number in np.unique(owner).tolist() if len(keys) else ():
            group = task.graph.groups[number]
            gone = group.units - choice.counts[1:, owner == number].sum(axis=1)
            own = self.leaving.get(group.name)
            each = np.append(0.0, np.full(group.units, np.inf) if own is None else np.maximum.accumulate(own.keys))
            keys = np.maximum(keys, each[gone])
        return keys
