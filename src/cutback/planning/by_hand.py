"""What users settle by hand (``ignore`` and ``keep``), and where they contradict themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cutback.errors import InvalidBudget
from cutback.graph.graph import Graph, Group, layer_of
from cutback.planning.patterns import as_patterns, matching, nameable, output_paths
from cutback.planning.shares import Share, share_of


@dataclass(frozen=True)
class ByHand:
    """What one pattern says about a group.

    Attributes:
        argument: ``ignore`` or ``keep``.
        pattern: as the user wrote it.
        units: how many units it leaves.
    """

    argument: str
    pattern: str
    units: int


def settled_by_hand(graph: Graph, ignore: object, keep: object) -> dict[int, ByHand]:
    """Return what is settled about groups, by their number.

    Args:
        graph: the traced model.
        ignore: patterns of what stays whole.
        keep: what stays, by pattern.

    Raises:
        UnknownName: a pattern matches nothing.
        UserMistake: ``ignore`` holds no patterns.
        InvalidBudget: ``keep`` is no mapping, a share cannot be read, or two patterns ask different things of a group.
    """
    ignored = {pattern: set(matching(pattern, nameable(graph), "ignore")) for pattern in as_patterns("ignore", ignore)}
    layers = [layer for group in graph.groups for layer in group.layers]
    kept = {pattern: set(matching(pattern, layers, "keep")) for pattern in _as_shares(keep)}
    settled: dict[int, ByHand] = {}
    for number, group in enumerate(graph.groups if ignored or kept else ()):
        inside = output_paths(group)
        said = [ByHand("ignore", pattern, group.units) for pattern, paths in ignored.items() if paths & inside]
        for pattern, paths in kept.items():
            named = [layer for layer in group.layers if layer in paths]
            if named:
                units = share_of(group.units, _channels_a_unit(group, named[0]), _as_shares(keep)[pattern])
                said.append(ByHand("keep", pattern, units))
        if said:
            settled[number] = _agreed(group, said)
    return settled


def _as_shares(keep: object) -> Mapping[str, Share]:
    """Check that shares come by pattern."""
    if keep is None:
        return {}
    if not isinstance(keep, Mapping) or not all(isinstance(pattern, str) for pattern in keep):
        raise InvalidBudget(
            f"keep={keep!r} does not say what stays of which layer; write for example keep={{'layer1.*': '50%'}}"
        )
    return keep


def _agreed(group: Group, said: Sequence[ByHand]) -> ByHand:
    """Return what all patterns say about a group."""
    first = said[0]
    other = next((more for more in said if more.units != first.units), None)
    if other is not None:
        raise InvalidBudget(
            f"{first.argument} pattern {first.pattern!r} leaves {first.units} of the {group.units} units of group "
            f"{group.name}, {other.argument} pattern {other.pattern!r} leaves {other.units}: a group "
            f"({', '.join(group.layers[:4])}) goes together; drop one or write equal shares"
        )
    return first


def _channels_a_unit(group: Group, layer: str) -> int:
    """Return how many channels of a layer one unit stands for."""
    return next(
        (
            indices.shape[1]
            for slot, indices in group.slices.items()
            if slot.role in ("filter", "depthwise") and (layer_of(slot.state) or slot.state) == layer
        ),
        1,
    )
