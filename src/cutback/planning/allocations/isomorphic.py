"""The lowest scores first, among groups of the same form only.

G. Fang, X. Ma, M. Bi Mi, X. Wang, "Isomorphic Pruning for Vision Models", ECCV 2024: scores of structures of different
form are distributed differently, so only isomorphic ones are ranked together, and each class loses the same share.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.graph.clone import modules_by_path
from cutback.graph.graph import Graph, layer_of
from cutback.planning.allocation import Allocation, Task, allocations, by_key, mean_lost, units_gone
from cutback.planning.select import Choice

Form = tuple[tuple[str, str, str, int], ...]
"""What a group's slices are: kind of layer, name within it, role, dimension; sorted."""


@allocations.register("isomorphic")
class Isomorphic(Allocation):
    """The same share of every class of groups of one form, the lowest scores of a class first (Fang 2024).

    Scores are divided by the mean of their group, as with ``global``.
    """

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps by the share of its class that is gone after each."""
        forms = [form_of(task.graph, choice) for choice in task.choices]
        keys: list[NDArray[np.float64]] = [np.empty(0)] * len(task.choices)
        for form in dict.fromkeys(forms):
            members = [number for number, other in enumerate(forms) if other == form]
            within = by_key([mean_lost(task.choices[number], normalised=True) for number in members])
            gone = [units_gone(task.choices[number]) for number in members]
            taken = [0] * len(members)
            units = []
            for member in within:
                units.append(int(gone[member][taken[member]]))
                taken[member] += 1
            shares = np.cumsum(units) / sum(task.choices[number].units for number in members)
            for place, number in enumerate(members):
                keys[number] = shares[np.array(within, dtype=np.int64) == place]
        return by_key(keys)


def form_of(graph: Graph, choice: Choice) -> tuple[Form, ...]:
    """Return the form of the groups of a choice: what layers make, normalise and consume their channels.

    Widths, kernel sizes and strides are no part of it.
    """
    modules = modules_by_path(graph.model)
    forms: list[Form] = []
    for number in dict.fromkeys(cell.group for cell in choice.cells):
        found = []
        for slot in graph.groups[number].slices:
            layer = layer_of(slot.state)
            kind = type(modules[layer]).__name__ if layer in modules else ""
            found.append((kind, slot.state.removeprefix(f"{layer}."), slot.role, slot.dimension))
        forms.append(tuple(sorted(found)))
    return tuple(sorted(forms))
