"""Attention whose head width cannot shrink: the heads whose module is to lose whole ones instead."""

import numpy as np
from torch import fx

from cutback.graph.capture import module_path, operator_of
from cutback.graph.compensation import labels_of
from cutback.graph.graph import Graph
from cutback.graph.labels import NONE, core, varies

_ATTENTION = "aten::scaled_dot_product_attention"
_HEADS, _WIDTH = -3, -1


def of_fixed_width(graph: Graph) -> frozenset[fx.Node]:
    """Return the calls of all modules with several heads in each of which every channel stays.

    So it is with rotary position embeddings, whose table has the width of a head, and where the width is divided by and
    no parameter can be multiplied to make up for that.

    Args:
        graph: a traced model in which everything that cannot follow a cut is known.
    """
    found: set[fx.Node] = set()
    for recorded, labelling in zip(graph.captures, graph.coupling.labellings, strict=True):
        calls = [node for node in recorded.nodes if node.op == "call_function"]
        attention = [node for node in calls if operator_of(node) == _ATTENTION and node not in graph.coupling.whole]
        if not attention:
            continue
        labels = labels_of(recorded, labelling)
        paths = {module_path(node) for node in attention if _stay(graph, labels[node.args[0]])}  # type: ignore[index]
        found |= {node for node in calls if module_path(node) in paths}
    return frozenset(found)


def _stay(graph: Graph, queries: object) -> bool:
    """Whether no channel of queries ``(..., heads, tokens, width)`` belongs to a group."""
    labels = queries[0]  # type: ignore[index]
    heads, width = (labels.dim() + dimension for dimension in (_HEADS, _WIDTH))
    if heads < 0 or labels.size(heads) == 1 or (varies(labels, heads) and not varies(labels, width)):
        return False
    every = np.unique(core(labels).numpy())
    return bool((graph.coupling.owners.group[graph.coupling.components[every[every != NONE]]] < 0).all())
