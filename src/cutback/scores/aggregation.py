"""From what each coupled slice is worth to what a unit is worth.

Sum and mean: G. Fang et al., "DepGraph", CVPR 2023, section 3.3 (sum) and its library (mean). Leader: H. Li et al.,
"Pruning Filters for Efficient ConvNets", 2016 (ICLR 2017), section 3.3: the filters of the projection shortcut rank a
stream.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from cutback.errors import UserMistake
from cutback.graph.capture import Capture
from cutback.graph.graph import Graph

AGGREGATES = ("sum", "mean", "max", "leader")
"""How coupled slices are put together.

``leader``: only the slices of the layer with the fewest layers before it count (of several, the first; of its slices,
the sum). That is the projection where a shortcut has one, else the layer that begins the stream.
"""


def check_aggregate(name: str) -> None:
    """Refuse what is no aggregate.

    Raises:
        UserMistake: lists those there are.
    """
    if name not in AGGREGATES:
        raise UserMistake(f"no aggregate is called {name!r}; write one of {', '.join(AGGREGATES)}")


def aggregated(parts: Sequence[Tensor], how: str, depths: Sequence[int]) -> Tensor:
    """Put the scores of coupled slices together.

    Args:
        parts: for each layer the scores of each unit's slices, ``(units, slices)``.
        how: one of ``AGGREGATES``.
        depths: how many layers each layer comes after.

    Returns:
        The scores of the units, ``(units,)``.

    Example:
        >>> branch, projection = torch.tensor([[1.0], [5.0]]), torch.tensor([[4.0], [2.0]])
        >>> {how: aggregated([branch, projection], how, [3, 1]).tolist() for how in ("sum", "max", "leader")}
        {'sum': [5.0, 7.0], 'max': [4.0, 5.0], 'leader': [4.0, 2.0]}
    """
    if how == "leader":
        return parts[min(range(len(parts)), key=depths.__getitem__)].sum(1)
    table = torch.cat(list(parts), dim=1)
    return table.amax(1) if how == "max" else getattr(table, how)(1)


def layers_before(graph: Graph) -> Mapping[str, int]:
    """Return for each parameter and buffer how many layers its first use comes after, on the longest way from an input.

    What produces channels (a convolution, a linear layer) counts as a layer; norms and activations do not.
    """
    found: dict[str, int] = {}
    for number in range(len(graph.captures)):
        for name, count in _counted(graph, number)[1].items():
            found.setdefault(name, count)
    return found


def layers_until(graph: Graph, number: int) -> Mapping[fx.Node, int]:
    """Return for each node of a capture that depends on an input how many layers lie on the longest way to its value.

    Args:
        graph: the traced model.
        number: the number of the capture.
    """
    return _counted(graph, number)[0]


def states_used(capture: Capture) -> Iterator[tuple[fx.Node, set[str]]]:
    """Yield each node that depends on an input, with the names of the states that its call uses.

    What is computed from states alone, such as a weight, is passed over: who uses it uses its states.

    Args:
        capture: a recorded forward pass.
    """
    states = dict(zip(capture.nodes, capture.states, strict=False))  # the first placeholders, in order
    carried: dict[fx.Node, set[str]] = {}  # for what is computed from states alone, those states
    for node in capture.nodes:
        sources = node.all_input_nodes
        if node in states:
            carried[node] = {states[node]}
        elif node.op == "get_attr" or (node.op == "call_function" and all(source in carried for source in sources)):
            carried[node] = set().union(*(carried[source] for source in sources))
        else:
            yield node, set().union(*(carried.get(source, set()) for source in sources))


def _counted(graph: Graph, number: int) -> tuple[dict[fx.Node, int], dict[str, int]]:
    """Count the layers up to each node of a capture, and before the first use of each state."""
    producing = {slot.state for slot in graph.slots if slot.role in ("filter", "depthwise")}
    until: dict[fx.Node, int] = {}
    before: dict[str, int] = {}
    for node, used in states_used(graph.captures[number]):
        count = max((until.get(source, 0) for source in node.all_input_nodes), default=0)
        until[node] = count + (not producing.isdisjoint(used))
        for name in used:
            before.setdefault(name, count)
    return until, before
