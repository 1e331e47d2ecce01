"""What stays of each slice: from units of groups to indices along dimensions, and back."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import fx

from cutback.errors import IllegalCut
from cutback.graph.capture import module_path, operator_of
from cutback.graph.compensation import multiplied_rows
from cutback.graph.graph import Graph
from cutback.graph.matching import legal_cut
from cutback.graph.replay import Illegal, Orders
from cutback.graph.scales import Rows
from cutback.graph.second_pass import kept_labels, natural_orders
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


def planned_orders(graph: Graph, plan: Plan, stays: list[NDArray[np.bool_]]) -> Orders:
    """Return the order a plan gives the slices of each state, where it keeps the same ones as ``stays``."""
    found: Orders = {}
    for (name, dimension), natural in natural_orders(graph, stays).items():
        kept = plan.slices.get(name, {}).get(dimension)
        if kept is not None and sorted(kept.indices) == natural.tolist():
            found[name, dimension] = np.array(kept.indices, dtype=np.int64)
    return found


def settled(
    graph: Graph, kept: Sequence[Sequence[int]], scores: Sequence[NDArray[np.float64]] | None = None
) -> tuple[list[tuple[int, ...]], Orders, dict[Rows, float]]:
    """Return a legal cut: the units that stay, the order of the slices of each state, and what is multiplied.

    Args:
        graph: the traced model.
        kept: for each group the units that should stay.
        scores: for each group the scores of its units; where they are given, other units of the same number may stay
            instead where the movement of channels asks for it.

    Raises:
        IllegalCut: these units cannot go together.
    """
    stays = kept_masks(graph, kept)
    for system in graph.systems:
        if not system.balanced(system.counts_of(stays)):
            names = ", ".join(graph.groups[number].name for number in system.groups[:4])
            raise IllegalCut(
                f"{names}: unequal numbers of channels would stay in blocks that must keep equally many (groups of a "
                "convolution or norm, halves of a split, heads); keep as many in each, or let cutback.plan choose"
            )
    orders = natural_orders(graph, stays)
    emptied = [state for (state, _), order in orders.items() if not len(order)]
    if emptied:
        raise IllegalCut(f"nothing would be left of {emptied[0]}; keep at least one channel of every layer")
    numbers: dict[fx.Node, float] = {}
    try:
        if graph.coupling.assumes:
            stays, orders = legal_cut(graph, stays, scores, numbers)
        rows = multiplied_rows(graph.coupling.labellings, kept_labels(graph, stays), numbers)
    except Illegal as reason:
        where = f"{module_path(reason.node) or '(model)'} : {operator_of(reason.node)}"
        raise IllegalCut(
            f"{where}: {reason}; this choice of units would send channels where they do not belong; ignore the layers "
            "concerned or choose others"
        ) from reason
    return [tuple(np.flatnonzero(mask).tolist()) for mask in stays], orders, rows


def kept_slices(graph: Graph, orders: Orders) -> dict[str, dict[int, Kept]]:
    """Return what stays along each dimension that loses something."""
    slices: dict[str, dict[int, Kept]] = {}
    made: dict[tuple[bytes, int, int], Kept] = {}
    for slot, owners in graph.slots.items():
        indices, total = orders[slot.state, slot.dimension], len(owners.group)
        if len(indices) < total or (np.diff(indices) < 0).any():
            key = indices.tobytes(), total, slot.blocks
            if key not in made:
                made[key] = Kept(total, tuple(indices.tolist()), slot.blocks)
            slices.setdefault(slot.state, {})[slot.dimension] = made[key]
    return slices


def planned_scales(rows: Mapping[Rows, float]) -> dict[str, tuple[Scaled, ...]]:
    """Return what is multiplied, by the name of the state."""
    scales: dict[str, tuple[Scaled, ...]] = {}
    for (name, indices), factor in rows.items():
        scales[name] = (*scales.get(name, ()), Scaled(0, indices, factor))
    return scales
