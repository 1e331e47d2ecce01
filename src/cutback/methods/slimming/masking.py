"""The mask variant: pruned channels have scale and shift zero, and no gradient, while shapes stay as they are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.planning.plan import Plan
from cutback.planning.slices import planned_masks
from cutback.scores.scales import BATCH_NORM, norm_scales, scale_slices


def silenced_places(graph: Graph, plan: Plan) -> dict[str, Tensor]:
    """Return for each scale and shift of a batch norm the places that belong to units a plan removes."""
    slices, found = scale_slices(graph, BATCH_NORM), dict[str, set[int]]()
    for group, stays in zip(graph.groups, planned_masks(graph, plan), strict=True):
        for own in slices[group.name]:
            for name in (own.scale, own.shift):
                if name is not None:
                    found.setdefault(name, set()).update(own.indices[~stays].flatten().tolist())
    return {name: torch.tensor(sorted(places)) for name, places in found.items() if places}


def scales_of(graph: Graph, plan: Plan) -> dict[str, Tensor]:
    """Return of these places those of the scales: without one a channel is the constant that its shift makes."""
    places = silenced_places(graph, plan)
    return {name: places[name] for name in norm_scales(graph, BATCH_NORM) if name in places}


def mask_(graph: Graph, places: Mapping[str, Tensor]) -> None:
    """Set scales and shifts to zero in the traced model.

    Args:
        graph: the traced model.
        places: which, see ``silenced_places``.
    """
    parameters = parameters_by_name(graph.model)
    with torch.no_grad():
        for name, own in places.items():
            parameters[name][own.to(parameters[name].device)] = 0


def mask_gradients_(graph: Graph, places: Mapping[str, Tensor]) -> None:
    """Set the gradients of masked scales and shifts to zero.

    Args:
        graph: the traced model.
        places: which, see ``silenced_places``.
    """
    parameters = parameters_by_name(graph.model)
    for name, own in places.items():
        gradient = parameters[name].grad
        if gradient is not None:
            gradient[own.to(gradient.device)] = 0
