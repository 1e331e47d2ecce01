"""What stays of each slice: from units of groups to indices along dimensions, and back."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import fx

from cutback.errors import IllegalCut
from cutback.graph.capture import module_path, operator_of
from cutback.graph.compensation import multiplied_rows
from cutback.graph.graph import Graph
from cutback.graph.replay import Illegal, Orders
from cutback.graph.scales import Rows
from cutback.graph.second_pass import kept_labels, natural_orders, second_pass
from cutback.planning.plan import Kept, Plan, Scaled


def kept_masks(graph: Graph, kept: Sequence[Sequence[int]]) -> list[NDArray[np.bool_]]:
    """Return for each group which of its units stay, shape ``(units,)``."""
    masks = [np.zeros(group.units, dtype=bool) for group in graph.groups]
    for mask, numbers in zip(masks, kept, strict=True):
        mask[list(numbers)] = True
    return masks


def planned_masks(graph: Graph, plan: Plan) -> list[NDArray[np.bool_]]:
    """Return for each group of a graph which of its units a plan keeps, shape ``(units,)``, as most slices have it."""
    masks: list[NDArray[np.bool_]] = []
    for group in graph.groups:
        votes = np.zeros(group.units)
        for slot, indices in group.slices.items():
            kept = plan.slices.get(slot.state, {}).get(slot.dimension)
            votes += 1 if kept is None else np.isin(indices, kept.indices).all(axis=1)
        masks.append(2 * votes >= len(group.slices))
    return masks


def kept_orders(graph: Graph, stays: list[NDArray[np.bool_]]) -> tuple[Orders, dict[Rows, float]]:
    """Return what stays of each slot, in the order the second pass finds where one is needed, and what is multiplied.

    Raises:
        IllegalCut: these units cannot go together.
    """
    numbers: dict[fx.Node, float] = {}
    try:
        orders = second_pass(graph, stays, numbers=numbers)[0] if graph.coupling.assumes else natural_orders(graph, stays)
        return orders, multiplied_rows(graph.coupling.labellings, kept_labels(graph, stays), numbers)
    except Illegal as reason:
        where = f"{module_path(reason.node) or '(model)'} : {operator_of(reason.node)}"
        raise IllegalCut(
            f"{where}: {reason}; this choice of units would send channels where they do not belong; ignore the layers "
            "concerned or choose others"
        ) from reason


def kept_slices(graph: Graph, orders: Orders) -> dict[str, dict[int, Kept]]:
    """Return what stays along each dimension that loses something."""
    slices: dict[str, dict[int, Kept]] = {}
    for slot, owners in graph.slots.items():
        indices, total = orders[slot.state, slot.dimension], len(owners.group)
        if len(indices) < total:
            slices.setdefault(slot.state, {})[slot.dimension] = Kept(total, tuple(indices.tolist()))
    return slices


def planned_scales(rows: Mapping[Rows, float]) -> dict[str, tuple[Scaled, ...]]:
    """Return what is multiplied, by the name of the state."""
    scales: dict[str, tuple[Scaled, ...]] = {}
    for (name, indices), factor in rows.items():
        scales[name] = (*scales.get(name, ()), Scaled(0, indices, factor))
    return scales
