"""What the game costs, told before it begins."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from cutback.gates import find_places
from cutback.gates.calls import matters
from cutback.graph.capture import Capture
from cutback.graph.graph import Graph
from cutback.measure.macs import MacTerm, count_macs, mac_terms
from cutback.methods.snpfi.elimination import block_of


@dataclass(frozen=True)
class Forecast:
    """What is at most done; coalitions that come twice are tried once, and passes are filled up to powers of two.

    Attributes:
        coalitions: how many coalitions are tried, of all groups.
        passes: on how many pictures, in all: coalitions times calibration pictures.
        macs: what these passes take, each from the first layer that consumes the group on, and what runs up to there.
        groups: coalitions of each group.
    """

    coalitions: int
    passes: int
    macs: int
    groups: Mapping[str, int]


def coalitions_of(units: int, pairs: int, block: int | None, triples: int) -> int:
    """Return how many coalitions one group needs.

    Each estimate walks ``pairs`` orders in both directions through the ``m - 1`` coalitions between none and all of the
    ``m`` that are left; the nested sets and the ends come once. Interactions are compared three times, in four
    coalitions each: the original's, and the cut network's before and after recovery.

    Args:
        units: how many units the group has.
        pairs: orders drawn at each estimate.
        block: units that go before the next estimate, ``None`` for what the number of units suggests.
        triples: pairs in contexts that interactions are compared in; 0 where there is no recovery.
    """
    left, walks, step = units, 0, block_of(units, block)
    while left > 1:
        walks += 2 * pairs * (left - 1)
        left -= min(step, left - 1)
    return walks + units + 1 + (3 * 4 * triples if units > 1 else 0)


def forecast(
    graph: Graph, groups: Sequence[str], images: int, *, pairs: int, block: int | None, triples: int
) -> Forecast:
    """Return what trying coalitions of groups costs.

    Args:
        graph: the traced model.
        groups: names of the groups that are played.
        images: how many calibration pictures there are.
        pairs: see ``coalitions_of``.
        block: see ``coalitions_of``.
        triples: see ``coalitions_of``.
    """
    each = {g.name: coalitions_of(g.units, pairs, block, triples) for g in graph.groups if g.name in groups}
    macs = sum(count * macs_from(graph, name) for name, count in each.items()) + count_macs(graph.captures[0])
    total = sum(each.values())
    return Forecast(total, total * images, macs * images, each)


def macs_from(graph: Graph, group: str) -> int:
    """Return the MACs of a forward pass from the first layer that consumes a group on, for one picture."""
    recorded = graph.captures[0]
    calls = [node for node in recorded.nodes if matters(node)]
    places = find_places(graph, 0, "consumer", [group])
    order = {node: place for place, node in enumerate(recorded.nodes)}
    start = min((order[calls[place.call]] for place in places), default=len(order))
    return int(sum(_macs(term, recorded) for term in mac_terms(recorded) if _last(term, recorded, order) >= start))


def _macs(term: MacTerm, recorded: Capture) -> int:
    sizes = {name: node.meta["val"].numel() for name, node in zip(recorded.states, recorded.nodes, strict=False)}
    return math.ceil(term.positions * (sizes[term.state] if term.state else 1))


def _last(term: MacTerm, recorded: Capture, order: Mapping[fx.Node, int]) -> int:
    """Return the place of the last call that may be the one of a term."""
    weight = next((n for n, name in zip(recorded.nodes, recorded.states, strict=False) if name == term.state), None)
    users = [*(weight.users if weight is not None else ()), *(user for node in term.factors for user in node.users)]
    own = [user for user in users if weight is None or weight in user.all_input_nodes]
    return max((order[user] for user in own or users), default=len(order))
