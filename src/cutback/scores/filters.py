"""What scores that read weights share: the slices of a layer, and one number for each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.clone import parameters_by_name, state_tensors
from cutback.graph.graph import Graph, Group, Slot
from cutback.scores.aggregation import aggregated, check_aggregate, layers_before


def producers(group: Group) -> list[Slot]:
    """Return the slots whose slices make a group's channels: filters, or what holds a learned constant.

    Channels that are selected from others have no weights of their own; what reads them stands for them.
    """
    made = [slot for slot in group.slices if slot.role in ("filter", "depthwise")]
    held = [slot for slot in group.slices if slot.role == "element"]
    return made or held or [slot for slot in group.slices if slot.role != "selection"]


def slices_of(state: Tensor, slot: Slot) -> Tensor:
    """Return the slices of a parameter, flattened: ``(slices, elements of one)``.

    Args:
        state: the parameter or buffer.
        slot: its sliced dimension. Where that falls into blocks (a grouped convolution), the slices of the first block
            come first.
    """
    table = state.detach()[..., None]
    if slot.blocks == 1:
        return table.movedim(slot.dimension, 0).flatten(1)
    blocks = table.unflatten(0, (slot.blocks, -1))
    return blocks.movedim(slot.dimension + 1, 1).flatten(0, 1).flatten(1)


@dataclass(frozen=True)
class FilterScore:
    """One number for each filter of a layer, over all its weights; bias, normalisation and consumers do not enter.

    Attributes:
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the filters of a unit (see ``aggregation``).
    """

    aggregate: str = "sum"

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)

    def rate(self, filters: Tensor) -> Tensor:
        """Return a number for each filter.

        Args:
            filters: all filters of one layer, ``(C, weights of one)``.

        Returns:
            ``(C,)`` in double precision.
        """
        raise NotImplementedError

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group."""
        states = state_tensors(graph.model)
        return over_filters(graph, lambda slot: self.rate(slices_of(states[slot.state], slot)), self.aggregate)


def weights_of(graph: Graph) -> dict[str, Tensor]:
    """Return the parameters that make the channels of groups, by name; no buffers, which have no gradient."""
    parameters = parameters_by_name(graph.model)
    made = dict.fromkeys(slot.state for group in graph.groups for slot in producers(group))
    return {name: parameters[name].detach() for name in made if name in parameters}


def summed(graph: Graph, products: Mapping[str, Tensor], aggregate: str) -> dict[str, Tensor]:
    """Return the scores of units, ``(units,)`` for each group: what each weight is worth, summed over filters.

    Args:
        graph: the traced model.
        products: of the shape of each parameter, by name; what is missing, such as a buffer, is worth nothing.
        aggregate: one of ``AGGREGATES``.
    """
    states = state_tensors(graph.model)

    def rate(slot: Slot) -> Tensor:
        values = products[slot.state] if slot.state in products else torch.zeros_like(states[slot.state]).double()
        return slices_of(values, slot).sum(1)

    return over_filters(graph, rate, aggregate)


def over_filters(graph: Graph, rate: Callable[[Slot], Tensor], aggregate: str) -> dict[str, Tensor]:
    """Return the scores of units, ``(units,)`` for each group, given those of filters.

    Args:
        graph: the traced model.
        rate: returns the scores of the slices of a slot, ``(slices,)``; asked once for each slot.
        aggregate: one of ``AGGREGATES``.
    """
    before = layers_before(graph) if aggregate == "leader" else {}
    rated: dict[Slot, Tensor] = {}
    result: dict[str, Tensor] = {}
    for group in graph.groups:
        made, parts = producers(group), []
        for slot in made:
            if slot not in rated:
                rated[slot] = rate(slot)
            parts.append(rated[slot][torch.from_numpy(group.slices[slot]).to(rated[slot].device)])
        result[group.name] = aggregated(parts, aggregate, [before.get(slot.state, 0) for slot in made])
    return result
