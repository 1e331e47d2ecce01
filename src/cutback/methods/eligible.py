"""Which groups a method that looks at single layers may cut: not those of streams, unless it is asked to."""

import glob
from collections.abc import Collection, Mapping, Sequence

from cutback.errors import NothingToPrune
from cutback.gates import stream_groups
from cutback.graph.graph import Graph
from cutback.planning.by_hand import settled_by_hand


def eligible(graph: Graph, method: str, *, ignore: Sequence[str], streams: bool, stay: Mapping[str, str]) -> list[str]:
    """Return the names of the groups that may lose units.

    Args:
        graph: the traced model.
        method: name of the method, for the message.
        ignore: patterns of modules whose outputs stay whole.
        streams: whether channels that residual blocks add to may go.
        stay: groups that stay for the method's own reasons, with these.

    Raises:
        NothingToPrune: there are none; says why.
        UnknownName: a pattern matches nothing.
    """
    groups = graph.groups
    whole = {groups[number].name: "ignore names it" for number in settled_by_hand(graph, ignore, None)} | dict(stay)
    if not streams:
        whole |= dict.fromkeys(stream_groups(graph), "residual blocks add to it (streams=yes lets it go)")
    for system in graph.systems:
        names = [groups[number].name for number in system.groups]
        first = next((name for name in names if name in whole), None)
        whole |= {name: f"it is balanced with {first}" for name in names if first is not None and name not in whole}
    found = [group.name for group in groups if group.name not in whole]
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(whole.items())[:3])
        raise NothingToPrune(f"{method} may remove no filter of this model: {reasons or 'it has no groups'}")
    return found


def kept_whole(graph: Graph, eligible: Collection[str]) -> dict[str, str]:
    """Return what keeps all other groups whole, as ``keep`` of ``cutback.plan``."""
    layers = {layer for group in graph.groups if group.name not in eligible for layer in group.layers}
    return {glob.escape(layer): "100%" for layer in layers}
