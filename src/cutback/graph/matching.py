"""Which units can take which places: a narrowed model labelled afresh and matched with the whole one, unit by unit.

Where channels are interleaved and divided again, as in a stack of shuffle units, how many stay in each block does not
settle which do: that follows from the places the narrowed model has. Its units are found as the whole model's are; one
that is used in the same places, equally often and in the same blocks, may take the place.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import fx

from cutback.graph.capture import Capture
from cutback.graph.graph import Graph
from cutback.graph.groups import slots_of
from cutback.graph.interpret import Labelling, label
from cutback.graph.labels import NONE, LabelStore
from cutback.graph.replay import Illegal, Orders, effective_calls, has_effect, positions
from cutback.graph.second_pass import narrowed_captures, second_pass
from cutback.graph.states import StateLabels

Signature = tuple[tuple[int, int], ...]
"""Where a component is found: slots of states and blocks, each with how often."""


def legal_cut(
    graph: Graph,
    kept: Sequence[NDArray[np.bool_]],
    scores: Sequence[NDArray[np.float64]] | None,
    numbers: dict[fx.Node, float] | None = None,
) -> tuple[list[NDArray[np.bool_]], Orders]:
    """Return the units that stay and the order of the slices of each state.

    Args:
        graph: the traced model.
        kept: for each group which units should stay; settles the widths.
        scores: for each group the scores of its units, by which others are chosen to stay where the places ask for it;
            ``None`` to accept only the units of ``kept``.
        numbers: receives by how much products with a number must be made up for.

    Raises:
        Illegal: no cut to these widths was found that sends every channel where it belongs.
    """
    captures = [*narrowed_captures(graph, kept)]
    try:
        return list(kept), second_pass(graph, kept, captures=captures, numbers=numbers)[0]
    except Illegal:
        found = _matched(graph, kept, scores, captures, numbers) if graph.systems else None
        if found is None:
            raise
        return found


def _matched(
    graph: Graph,
    kept: Sequence[NDArray[np.bool_]],
    scores: Sequence[NDArray[np.float64]] | None,
    captures: Sequence[Capture],
    numbers: dict[fx.Node, float] | None,
) -> tuple[list[NDArray[np.bool_]], Orders] | None:
    """Return a legal cut to the same widths, and the order of the slices of each state; ``None`` if none was found."""
    again = _labelled_again(graph, captures)
    if again is None:
        return None
    coupling = graph.coupling
    whole = _Places(graph.captures, coupling.labellings, coupling.states, coupling.components)
    rank = _ranks(graph, kept, scores)
    taken: dict[int, int] = {}
    available = whole.components(shared := whole.names & again.names)
    for signature, wanted in again.components(shared).items():
        free = available.get(signature, [])
        if len(wanted) > len(free):
            return None
        best = sorted(range(len(free)), key=lambda place: -rank[free[place]])[: len(wanted)]
        taken.update(zip(wanted, [free[place] for place in sorted(best)], strict=True))
    masks = [np.zeros(group.units, dtype=bool) for group in graph.groups]
    for component in taken.values():
        if coupling.owners.group[component] >= 0:
            masks[coupling.owners.group[component]][coupling.owners.unit[component]] = True
    if scores is None and any((mask != was).any() for mask, was in zip(masks, kept, strict=True)):
        return None
    wanted_orders: Orders = {}
    for key, vector in again.vectors.items():
        order = positions(whole.vectors[key], np.array([taken[component] for component in vector.tolist()]))
        if order is None:
            return None
        wanted_orders[key] = order
    try:
        return masks, second_pass(graph, masks, wanted_orders, captures, numbers)[0]
    except Illegal:
        return None


class _Places:
    """Where the components of a labelled model are found.

    Attributes:
        vectors: the component of each slice of each state, by state and dimension.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        labellings: Sequence[Labelling],
        states: StateLabels,
        components: NDArray[np.int64],
    ) -> None:
        slots, _ = slots_of(states, components)
        self.vectors = {(slot.state, slot.dimension): vector for slot, vector in slots.items()}
        places: dict[tuple[object, ...], NDArray[np.int64]] = {**self.vectors}
        for mode, (capture, labelling) in enumerate(zip(captures, labellings, strict=True)):
            for call, trail in enumerate(effective_calls(capture, labelling.trails)[1]):
                for number, balance in enumerate(trail.balanced):
                    for block, labels in enumerate(balance.parts):
                        places[mode, call, number, block] = components[labels.numpy()]
        self._places = places
        self._constant = int(components[NONE])

    @property
    def names(self) -> set[tuple[object, ...]]:
        """The names of all places. A block that is down to one channel may have none."""
        return set(self._places)

    def components(self, names: set[tuple[object, ...]]) -> dict[Signature, list[int]]:
        """Return the components found in the same ones of some places equally often, in order, by signature."""
        number_of = {name: number for number, name in enumerate(sorted(names, key=repr))}
        found: dict[int, list[tuple[int, int]]] = {}
        first: dict[int, int] = {}
        for name, vector in self._places.items():
            for component, start, count in zip(*np.unique(vector, return_index=True, return_counts=True), strict=True):
                if name in names:
                    found.setdefault(int(component), []).append((number_of[name], int(count)))
                    first.setdefault(int(component), int(start))
        alike: dict[Signature, list[int]] = {}
        for component in sorted(found, key=lambda component: first[component]):
            if component != self._constant:
                alike.setdefault(tuple(sorted(found[component])), []).append(component)
        return alike


def _labelled_again(graph: Graph, captures: Sequence[Capture]) -> _Places | None:
    """Label the narrowed model afresh, boundaries where the whole one has them; ``None`` if it makes other calls."""
    store = LabelStore()
    states = StateLabels(store)
    labellings: list[Labelling] = []
    for whole, narrow, labelling in zip(graph.captures, captures, graph.coupling.labellings, strict=True):
        calls, trails = effective_calls(whole, labelling.trails)
        ours = [node for node in narrow.nodes if has_effect(node)]
        if [node.target for node in calls] != [node.target for node in ours]:
            return None
        same = dict(zip(calls, ours, strict=True))
        decided = {node: trail.decided for node, trail in zip(ours, trails, strict=True)}
        refused = {same[node]: why for node, why in graph.coupling.refused.items() if node in same}
        whole_blocks = {same[node] for node in graph.coupling.whole if node in same}
        held = {same[node]: why for node, why in graph.coupling.held.items() if node in same}
        labellings.append(label(narrow, store, states, refused, whole_blocks, held, decided))
    return _Places(captures, labellings, states, store.components())


def _ranks(
    graph: Graph, kept: Sequence[NDArray[np.bool_]], scores: Sequence[NDArray[np.float64]] | None
) -> NDArray[np.float64]:
    """Return the score of each component; infinite where it stays whatever the plan."""
    owners = graph.coupling.owners
    rank = np.full(len(owners.group), np.inf)
    for number, stays in enumerate(kept):
        own = owners.group == number
        values = scores[number] if scores is not None else np.where(stays, 1.0, -1.0)
        rank[own] = values[owners.unit[own]]
    return rank
