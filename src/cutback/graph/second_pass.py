"""Checking a cut on labels before it is planned, and finding the order of what stays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Size, Tensor, fx

from cutback.graph.attributes import Changes, attribute_changes, held_value
from cutback.graph.capture import Capture
from cutback.graph.clone import state_tensors
from cutback.graph.compensation import multiplied_rows
from cutback.graph.graph import Graph
from cutback.graph.replay import KeptLabels, Orders, narrowed_capture, replay
from cutback.graph.weights import ComputedWeight


def kept_labels(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> KeptLabels:
    """Return which labels stay, given for each group which units stay."""
    return KeptLabels(graph.coupling.components, graph.coupling.owners.everything.stays(list(kept)))


def first_of_each_cell(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Return a cut to the same widths in which the blocks of a balance keep the same positions, as far as they can.

    Where equally many stay in each block but at other positions, only the count tells how wide the blocks are, and how
    many there are shows at no position.
    """
    first = [mask.copy() for mask in kept]
    for system in graph.systems:
        for cell, count in zip(system.cells, system.counts_of(kept).tolist(), strict=True):
            first[cell.group][list(cell.units)] = np.arange(len(cell.units)) < count
    return first


def natural_orders(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> Orders:
    """Return for each slot the indices that stay, ascending."""
    stays = list(kept)
    found = {units: np.flatnonzero(units.stays(stays)) for units in dict.fromkeys(graph.slots.values())}
    return {(slot.state, slot.dimension): found[units] for slot, units in graph.slots.items()}


def narrowed_shapes(graph: Graph, orders: Orders, before: Mapping[str, Size] | None = None) -> dict[str, Size]:
    """Return the shapes of all states after a cut; ``before`` are those of now, if at hand."""
    if before is None:
        before = {name: tensor.shape for name, tensor in state_tensors(graph.model).items()}
    shapes = {name: list(shape) for name, shape in before.items()}
    for slot in graph.slots:
        order = orders[slot.state, slot.dimension]
        inside = shapes[slot.state][slot.dimension]  # of each block, where there are several
        blocks = 1 if slot.blocks == 1 else len(np.unique(order // inside))
        shapes[slot.state][slot.dimension] = len(order) // blocks
    return {name: Size(shape) for name, shape in shapes.items()}


def changed_attributes(graph: Graph, shapes: Mapping[str, Size], kept: Sequence[NDArray[np.bool_]]) -> Changes:
    """Return the width attributes of torch's layers that change with a cut.

    Args:
        graph: the traced model.
        shapes: the shapes of all states after the cut.
        kept: for each group which units stay.
    """
    changes = {(path, attribute): value for path, attribute, value in attribute_changes(graph.model, shapes)}
    coupling = graph.coupling
    widths = [width for labelling in coupling.labellings for trail in labelling.trails for width in trail.widths]
    if widths:
        labels = kept_labels(graph, kept)
        for path, attribute, along in widths:
            sizes = tuple(labels.count(vector) for vector in along)
            held = getattr(graph.model.get_submodule(path), attribute)
            value = sizes if isinstance(held, tuple) else sizes[0]
            changes[path, attribute] = value
            if held == value:  # whatever the shapes of the parameters say
                del changes[path, attribute]
    if coupling.followed:
        aligned = kept_labels(graph, first_of_each_cell(graph, kept))
        for followed in coupling.followed:
            value, held = followed.value(aligned), held_value(graph.model, followed.path, followed.attribute)
            if value != (tuple(held) if followed.listed else held):  # type: ignore[arg-type]
                changes[followed.path, followed.attribute] = value
    return [(path, attribute, value) for (path, attribute), value in changes.items()]


def second_pass(
    graph: Graph,
    kept: Sequence[NDArray[np.bool_]],
    wanted: Orders | None = None,
    captures: Iterable[Capture] | None = None,
    numbers: dict[fx.Node, float] | None = None,
) -> tuple[Orders, list[list[Tensor | ComputedWeight]]]:
    """Run the narrowed model's graph on the labels that stay, in each mode.

    Args:
        graph: the traced model.
        kept: for each group which units stay, shape ``(units,)``.
        wanted: the order in which what makes channels is to have its slices; ascending where nothing is said.
        captures: the narrowed model's captures, if they were made already; see ``narrowed_captures``.
        numbers: receives by how much products with a number must be made up for.

    Returns:
        The order of the slices of each state, and for each capture the labels of its results.

    Raises:
        Illegal: the cut would send channels where they do not belong.
    """
    orders = {**natural_orders(graph, kept), **(wanted or {})}
    labels = kept_labels(graph, kept)
    found: Orders = {}
    numbers = {} if numbers is None else numbers
    results: list[list[Tensor | ComputedWeight]] = []
    narrowed = narrowed_captures(graph, kept) if captures is None else captures
    for whole, narrow, labelling in zip(graph.captures, narrowed, graph.coupling.labellings, strict=True):
        results.append(replay(whole, narrow, labelling, graph.coupling.states, labels, found, wanted or {}, numbers))
    multiplied_rows(graph.coupling.labellings, labels, numbers)
    return {**orders, **found}, results


def narrowed_captures(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> Iterator[Capture]:
    """Capture the narrowed model, in each mode; one that follows from widths alone, not from which units stay.

    Raises:
        Illegal: its forward pass fails.
    """
    shapes = narrowed_shapes(graph, natural_orders(graph, kept))
    changes = changed_attributes(graph, shapes, kept)
    for whole in graph.captures:
        yield narrowed_capture(graph.model, whole, shapes, changes)
