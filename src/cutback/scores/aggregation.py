"""From what each coupled slice is worth to what a unit is worth.

Sum and mean: G. Fang et al., "DepGraph", CVPR 2023, section 3.3 (sum) and its library (mean). Leader: H. Li et al.,
"Pruning Filters for Efficient ConvNets", 2016 (ICLR 2017), section 3.3: the filters of the projection shortcut rank a
stream.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from cutback.errors import UserMistake
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
    """
    if how == "leader":
        return parts[min(range(len(parts)), key=depths.__getitem__)].sum(1)
    table = torch.cat(list(parts), dim=1)
    return table.amax(1) if how == "max" else getattr(table, how)(1)


def layers_before(graph: Graph) -> Mapping[str, int]:
    """Return for each parameter and buffer how many layers its first use comes after, on the longest way from an input.

    What produces channels (a convolution, a linear layer) counts as a layer; norms and activations do not.
    """
    producing = {slot.state for slot in graph.slots if slot.role in ("filter", "depthwise")}
    found: dict[str, int] = {}
    for capture in graph.captures:
        states = dict(zip(capture.nodes, capture.states, strict=False))  # the first placeholders, in order
        carried: dict[fx.Node, set[str]] = {}  # for what is computed from states alone, those states
        depth: dict[fx.Node, int] = {}
        for node in capture.nodes:
            sources = node.all_input_nodes
            if node in states:
                carried[node] = {states[node]}
            elif node.op == "get_attr" or (node.op == "call_function" and all(s in carried for s in sources)):
                carried[node] = set().union(*(carried[source] for source in sources))
            else:
                used = set().union(*(carried.get(source, set()) for source in sources))
                before = max((depth.get(source, 0) for source in sources), default=0)
                depth[node] = before + (not producing.isdisjoint(used))
                for name in used:
                    found.setdefault(name, before)
    return found
