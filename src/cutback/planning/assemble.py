"""From the units that stay to a whole plan: slices, widths and costs."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.errors import InvalidBudget, UnknownName
from cutback.graph.architecture import architecture_hash, structure_hashes, unsaved_buffers
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, Group
from cutback.graph.second_pass import changed_attributes, narrowed_shapes
from cutback.planning.budget import Budget
from cutback.planning.cost import CostModel
from cutback.planning.plan import Cost, Plan, PlannedGroup, Width
from cutback.planning.quantity import Quantity
from cutback.planning.slices import kept_masks, kept_slices, planned_scales, settled
from cutback.registry import near_misses


def plan_for(
    graph: Graph,
    units: Mapping[str, Sequence[int]],
    *,
    budgets: Sequence[Budget] = (),
    cost: CostModel | None = None,
    notes: Sequence[str] = (),
    scores: Sequence[NDArray[np.float64]] | None = None,
    measured: Mapping[str, Quantity] | None = None,
) -> Plan:
    """Return the plan that keeps the given units of each named group and all of every other.

    Where ``scores`` are given, other units may stay instead if the movement of channels asks for it, but as many. The
    costs tell MACs and parameters, and the quantities that are ``measured``.

    Raises:
        UnknownName: a group of that name does not exist; the message lists near misses.
        InvalidBudget: a layer would lose all channels, or a unit does not exist.
        IllegalCut: these units cannot go together.
    """
    cost = cost or CostModel(graph)
    names = {group.name: number for number, group in enumerate(graph.groups)}
    linked = {number for system in graph.systems for number in system.groups}
    for name, numbers in units.items():
        if name not in names:
            raise UnknownName(f"no group is called {name!r}; {near_misses(name, list(names))}")
        total = graph.groups[names[name]].units
        least = 0 if names[name] in linked else 1
        if not least <= len(set(numbers)) == len(numbers) or not set(numbers) <= set(range(total)):
            raise InvalidBudget(f"group {name} must keep distinct units between 0 and {total - 1}, at least one")
    kept, orders, rows = settled(graph, [units.get(group.name, range(group.units)) for group in graph.groups], scores)
    counts = np.array([len(numbers) for numbers in kept], dtype=np.int64)
    whole = np.array([group.units for group in graph.groups], dtype=np.int64)
    macs_before, macs_after = cost.macs_by_weight(whole), cost.macs_by_weight(counts)
    planned = tuple(
        PlannedGroup(
            group.name,
            group.layers,
            group.units,
            numbers,
            Cost(producers_macs(group, macs_before), producers_macs(group, macs_after)),
        )
        for group, numbers in zip(graph.groups, kept, strict=True)
    )
    stays = kept_masks(graph, kept)
    before = {name: tensor.shape for name, tensor in state_tensors(graph.model).items()}
    shapes = narrowed_shapes(graph, orders, before)
    attributes: dict[str, dict[str, Width]] = {}
    for path, attribute, value in changed_attributes(graph, shapes, stays):
        attributes.setdefault(path, {})[attribute] = value
    passing = unsaved_buffers(graph.model)
    saved, saved_after = ({n: size for n, size in sizes.items() if n not in passing} for sizes in (before, shapes))
    structure, structure_after = structure_hashes(graph.model, attributes)
    costs = {quantity: Cost(cost.dense(quantity), cost.of(quantity, counts)) for quantity in ("macs", "params")}
    costs |= {name: Cost(quantity.dense, quantity.of(counts)) for name, quantity in (measured or {}).items()}
    return Plan(
        architecture=architecture_hash(structure, saved),
        result=architecture_hash(structure_after, saved_after),
        groups=planned,
        slices=kept_slices(graph, orders),
        attributes=attributes,
        costs=costs,
        budgets=tuple(map(str, budgets)),
        notes=tuple(notes),
        scales=planned_scales(rows),
    )


def producers_macs(group: Group, macs: Mapping[str, float]) -> int:
    """Return the MACs of the layers that produce a group's channels, given those of each parameter."""
    states = dict.fromkeys(slot.state for slot in group.slices if slot.role in ("filter", "depthwise"))
    return round(sum(macs.get(name, 0.0) for name in states))
