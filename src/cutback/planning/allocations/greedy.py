"""Each layer's channels are chosen knowing which of its inputs are gone."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.graph.clone import independent_copy, state_tensors
from cutback.graph.graph import Graph, Group
from cutback.planning.allocation import Allocation, Task, allocations, by_key, shares_left
from cutback.planning.select import Choice, Levels, best_units
from cutback.scores.catalogue import Score, score_groups


@allocations.register("greedy")
class Greedy(Allocation):
    """The same share of each group, scored from input to output with what was removed before at zero (Li 2016, greedy).

    H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.3: a filter's norm is summed over the
    input channels that are still there. Here every score is taken of a copy of the model whose weights for removed
    input channels are zero, which gives norms the same sums. The scores are computed once for each group.
    """

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps of the largest share left first."""
        return by_key([-shares_left(choice) for choice in task.choices])

    def rescored(self, task: Task, score: str | Score | type[Score], at: Levels) -> list[NDArray[np.float64]]:
        """Return the scores of each group's units after the choices before it, ``(units,)`` for each group."""
        graph, choices = task.graph, task.choices
        copied = dataclasses.replace(graph, model=independent_copy(graph.model))
        states = state_tensors(copied.model)
        current = score_groups(copied, score)
        final = list(current)
        for choice, level in sorted(zip(choices, at.tolist(), strict=True), key=lambda pair: _first(graph, pair[0])):
            removed: dict[int, list[int]] = {}
            for cell, count in zip(choice.cells, choice.counts[level].tolist(), strict=True):
                final[cell.group] = current[cell.group]
                stays = best_units(current[cell.group][list(cell.units)], count)
                gone = set(range(len(cell.units))) - set(stays)
                removed.setdefault(cell.group, []).extend(cell.units[place] for place in gone)
            if any(removed.values()):
                for group, units in removed.items():
                    _silence(graph.groups[group], units, states)
                current = score_groups(copied, score)
        return final


def _first(graph: Graph, choice: Choice) -> int:
    """Return where the first layer that makes a choice's channels stands in the order of execution."""
    groups = {cell.group for cell in choice.cells}
    making = ("filter", "depthwise", "element", "selection")
    slots = [slot for number in groups for slot in graph.groups[number].slices if slot.role in making]
    places = {slot: place for place, slot in enumerate(graph.slots)}
    return min((places[slot] for slot in slots), default=len(places))


def _silence(group: Group, units: Sequence[int], states: dict[str, Tensor]) -> None:
    """Set the weights for some units of a group to zero in the layers that consume them."""
    for slot, indices in group.slices.items():
        if slot.role != "column":
            continue
        blocks = states[slot.state].detach().chunk(slot.blocks)  # each block of rows has columns of its own
        gone, size = torch.from_numpy(indices[list(units)].reshape(-1)), blocks[0].shape[slot.dimension]
        for number, block in enumerate(blocks):
            block.index_fill_(slot.dimension, gone[gone // size == number] % size, 0)
