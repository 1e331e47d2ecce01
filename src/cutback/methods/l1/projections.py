"""Which groups the method prunes: filters of one convolution, and streams that a projection shortcut leads.

H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.3: the filters of the projection shortcut
decide which feature maps of a stage stay, as the identity maps matter more than what the blocks add to them.
"""

from torch import fx

from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, Group, Slot
from cutback.scores.aggregation import layers_before, states_used


def left_whole(graph: Graph, *, follow_leader: bool) -> dict[str, str]:
    """Return the groups that the method leaves whole whatever is asked for, with the reason.

    Args:
        graph: the traced model.
        follow_leader: whether coupled layers need a projection that decides for them.
    """
    states, before = state_tensors(graph.model), layers_before(graph)
    found: dict[str, str] = {}
    for group in graph.groups:
        makers = [slot for slot in group.slices if slot.role == "filter" and states[slot.state].dim() > 2]
        if not makers:
            found[group.name] = "no convolution makes its channels"
        elif follow_leader and len({slot.state for slot in makers}) > 1:
            leader = min(makers, key=lambda slot: before.get(slot.state, 0))
            if not _runs_beside(graph, leader, makers):
                together = ", ".join(group.layers[:4])
                found[group.name] = f"{together} are added up and no projection leads them (coupled='sum' prunes them)"
    return found


def _runs_beside(graph: Graph, leader: Slot, makers: list[Slot]) -> bool:
    """Say whether some layer that makes the same channels is not computed from what the leader returns.

    So it is where the leader is a projection: its block's own layers read what it reads. A stem, or a first block that
    begins a stream, comes before all others.
    """
    behind: set[fx.Node] = set()
    follows: dict[str, bool] = {}
    for node, used in states_used(graph.captures[0]):
        late = any(source in behind for source in node.all_input_nodes)
        for name in used:
            follows.setdefault(name, late)
        if late or leader.state in used:
            behind.add(node)
    return any(not follows[slot.state] for slot in makers if slot.state != leader.state and slot.state in follows)


def made_by(group: Group) -> set[str]:
    """Return the names of the parameters whose filters make a group's channels."""
    return {slot.state for slot in group.slices if slot.role == "filter"}
