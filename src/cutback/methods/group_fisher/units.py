"""What a unit is in Group Fisher pruning, and which ones may go."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cutback.gates import ungatable_groups
from cutback.graph.graph import Graph, Group
from cutback.graph.trace import retraced
from cutback.planning.by_hand import settled_by_hand
from cutback.planning.cost import goes_with_rows


def with_whole_groups(graph: Graph) -> Graph:
    """Return a graph in which the groups of convolutions go whole; traced again where they did not.

    A unit of a grouped convolution is one whole group, ``C_in / g`` inputs with their ``C_out / g`` outputs (Liu 2021,
    section 3.2). Other blocks (of a group norm, halves of a split, heads) stay as they were traced.

    Raises:
        CutbackError: see ``cutback.trace``.
    """
    layers = dict.fromkeys(
        slot.state.rpartition(".")[0]
        for slot, owners in graph.slots.items()
        if slot.blocks > 1 and owners.sizes.keys() - {-1} and not goes_with_rows(slot, owners)
    )
    if not layers:
        return graph
    asked = graph.granularity if isinstance(graph.granularity, Mapping) else {"*": graph.granularity}
    granularity = {**asked, **dict.fromkeys(layers, "blocks")}
    return replace(retraced(replace(graph, granularity=granularity)), wrappers=graph.wrappers)


def is_internal(group: Group) -> bool:
    """Whether a single layer reads the group's channels: no mask is shared, not even with a depthwise layer."""
    return len({slot.state for slot in group.slices if slot.role in ("column", "depthwise") or slot.consumes}) == 1


def whole_groups(graph: Graph, ignore: Sequence[str], *, internal_only: bool) -> dict[int, int]:
    """Return the groups that stay whole, by number, with their units.

    Args:
        graph: the traced model.
        ignore: patterns of modules whose outputs are not to lose channels.
        internal_only: whether all but internal groups stay.

    Raises:
        UnknownName: a pattern matches nothing.
    """
    ignored, unmasked = settled_by_hand(graph, ignore, None), ungatable_groups(graph, "input")
    return {
        number: group.units
        for number, group in enumerate(graph.groups)
        if number in ignored or group.name in unmasked or (internal_only and not is_internal(group))
    }
