"""Whose filters are searched: convolutions whose channels one layer alone consumes and nothing else makes."""

from collections.abc import Mapping, Sequence

from cutback.errors import NothingToPrune
from cutback.gates import lone_consumers, mixed_groups
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, Group, layer_of
from cutback.measure.macs import mac_terms
from cutback.planning.by_hand import settled_by_hand


def searchable(graph: Graph, ignore: Sequence[str]) -> dict[str, Group]:
    """Return the groups that are searched, by the path of the convolution that makes them, in order of execution.

    Args:
        graph: the traced model.
        ignore: patterns of modules whose outputs stay whole.

    Raises:
        UnknownName: a pattern matches nothing.
    """
    reasons = reasons_against(graph, ignore)
    found = {group.layers[0]: group for group in graph.groups if group.name not in reasons}
    return {layer: found[layer] for layer in convolutions(graph) if layer in found}


def nothing_to_search(graph: Graph, ignore: Sequence[str]) -> NothingToPrune:
    """Return the error that says why no layer of a model is searched."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(reasons_against(graph, ignore).items())[:5])
    return NothingToPrune(
        "aofp judges the filters of a convolution by the one layer that consumes them, and this model has none to "
        f"judge: {reasons or 'all channels stay'}"
    )


def convolutions(graph: Graph) -> tuple[str, ...]:
    """Return the paths of all convolutions, in order of execution."""
    states = state_tensors(graph.model)
    used = (term.state for recorded in graph.captures for term in mac_terms(recorded))
    return tuple(dict.fromkeys(layer_of(state) for state in used if state and states[state].dim() > 2))


def starts(graph: Graph, layers: Sequence[str], warm_up: int, half: int) -> dict[str, int]:
    """Return the iteration at which the search of each layer begins: staggered, so that halves do not end together.

    Args:
        graph: the traced model.
        layers: those that are searched.
        warm_up: the first iteration at which one may begin.
        half: iterations of a half.
    """
    interval, order = half // len(layers), convolutions(graph)
    return {layer: warm_up + interval * order.index(layer) for layer in layers}


def reasons_against(graph: Graph, ignore: Sequence[str]) -> Mapping[str, str]:
    """Return why groups are not searched, by their names."""
    ignored, alone, mixed = settled_by_hand(graph, ignore, None), lone_consumers(graph), mixed_groups(graph)
    linked = {number for system in graph.systems for number in system.groups}
    convolved, makers = set(convolutions(graph)), [layer for group in graph.groups for layer in group.layers]
    found: dict[str, str] = {}
    for number, group in enumerate(graph.groups):
        made = {slot.state: slot.role for slot in group.slices if slot.role in ("filter", "depthwise")}
        first = group.layers[0]
        if number in ignored:
            found[group.name] = "ignore names it"
        elif number in linked:
            found[group.name] = "its channels go only in step with others"
        elif len(made) > 1:
            found[group.name] = "several layers make its channels"
        elif first not in convolved or "filter" not in made.values():
            found[group.name] = "no convolution makes its channels"
        elif makers.count(first) > 1:
            found[group.name] = "the layer that makes its channels makes others too, for other layers"
        elif group.name not in alone:
            found[group.name] = "several layers consume its channels, or one that is no convolution and not linear"
        elif group.name in mixed:
            found[group.name] = "its channels are normalised or compared with one another"
    return found
