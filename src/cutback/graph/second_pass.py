"""Checking a cut on labels before it is planned, and finding the order of what stays."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Size, Tensor, fx

from cutback.graph.attributes import Changes, attribute_changes
from cutback.graph.clone import state_tensors
from cutback.graph.compensation import multiplied_rows
from cutback.graph.graph import Graph
from cutback.graph.replay import KeptLabels, Orders, narrowed_capture, replay


def kept_labels(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> KeptLabels:
    """Return which labels stay, given for each group which units stay."""
    return KeptLabels(graph.coupling.components, graph.coupling.owners.everything.stays(list(kept)))


def natural_orders(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> Orders:
    """Return for each slot the indices that stay, ascending."""
    stays = list(kept)
    return {(slot.state, slot.dimension): np.flatnonzero(units.stays(stays)) for slot, units in graph.slots.items()}


def narrowed_shapes(graph: Graph, orders: Orders) -> dict[str, Size]:
    """Return the shapes of all states after a cut."""
    shapes = {name: list(tensor.shape) for name, tensor in state_tensors(graph.model).items()}
    for (name, dimension), indices in orders.items():
        shapes[name][dimension] = len(indices)
    return {name: Size(shape) for name, shape in shapes.items()}


def changed_attributes(graph: Graph, shapes: Mapping[str, Size], kept: Sequence[NDArray[np.bool_]]) -> Changes:
    """Return the width attributes of torch's layers that change with a cut.

    Args:
        graph: the traced model.
        shapes: the shapes of all states after the cut.
        kept: for each group which units stay.
    """
    changes = {(path, attribute): value for path, attribute, value in attribute_changes(graph.model, shapes)}
    labels = kept_labels(graph, kept)
    for labelling in graph.coupling.labellings:
        for path, attribute, along in (width for trail in labelling.trails for width in trail.widths):
            sizes = tuple(int(labels.mask(vector).sum()) for vector in along)
            held = getattr(graph.model.get_submodule(path), attribute)
            value = sizes if isinstance(held, tuple) else sizes[0]
            if held != value:
                changes[path, attribute] = value
    return [(path, attribute, value) for (path, attribute), value in changes.items()]


def second_pass(
    graph: Graph, kept: Sequence[NDArray[np.bool_]], *, numbers: dict[fx.Node, float] | None = None
) -> tuple[Orders, list[list[Tensor]]]:
    """Capture the narrowed model and run it on the labels that stay, in each mode.

    Args:
        graph: the traced model.
        kept: for each group which units stay, shape ``(units,)``.
        numbers: receives by how much products with a number must be made up for.

    Returns:
        The order of the slices of each state, and for each capture the labels of its results.

    Raises:
        Illegal: the cut would send channels where they do not belong.
    """
    orders = natural_orders(graph, kept)
    shapes = narrowed_shapes(graph, orders)
    changes = changed_attributes(graph, shapes, kept)
    labels = kept_labels(graph, kept)
    found: Orders = {}
    numbers = {} if numbers is None else numbers
    results: list[list[Tensor]] = []
    for whole, labelling in zip(graph.captures, graph.coupling.labellings, strict=True):
        narrow = narrowed_capture(graph.model, whole, shapes, changes)
        results.append(replay(whole, narrow, labelling, graph.coupling.states, labels, found, numbers))
    multiplied_rows(graph.coupling.labellings, labels, numbers)
    return {**orders, **found}, results
