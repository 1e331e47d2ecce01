"""Weights that forward computes from parameters: labels for their rows and, apart from them, for their columns.

An element of a weight belongs to a filter and to an input channel at once, so one label an element cannot describe it.
A computed weight therefore has several layers of labels, and an element stays where all of its labels stay. Only what
is computed from parameters alone and ends as the weight of a contraction is followed this way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

_MARK = "cutback_weight"
_PLAIN = (*(f"aten::conv{n}d" for n in (1, 2, 3)), "aten::linear")
_TRANSPOSED = tuple(f"aten::conv_transpose{n}d" for n in (1, 2, 3))


@dataclass(frozen=True, eq=False)
class Layer:
    """Labels of a computed weight along some of its dimensions.

    Attributes:
        labels: in the shape of the value, constant along all other dimensions.
        dimensions: those they vary along before a cut.
    """

    labels: Tensor
    dimensions: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ComputedWeight:
    """What stands for a weight, or a part of one, that is computed from parameters.

    Attributes:
        layers: no two of them share a dimension.
        shape: shape of the value.
    """

    layers: tuple[Layer, ...]
    shape: torch.Size

    def along(self, dimension: int) -> Tensor | None:
        """Return the labels that vary along a dimension, ``None`` where none do."""
        return next((layer.labels for layer in self.layers if dimension in layer.dimensions), None)


def mark_weights(nodes: list[fx.Node], states: set[fx.Node]) -> None:
    """Mark the calls that compute a weight from parameters alone.

    Args:
        nodes: a captured graph, in execution order.
        states: its parameters and buffers.
    """
    pure = set(states)
    for node in nodes:
        if node.op in ("call_function", "get_attr") and all(source in pure for source in node.all_input_nodes):
            pure.add(node)
    if not any(node.op == "call_function" for node in pure):
        return
    for role, consumers in (("plain", _PLAIN), ("transposed", _TRANSPOSED)):
        waiting = [node.args[1] for node in nodes if _name(node) in consumers and len(node.args) > 1]
        found = [node for node in waiting if isinstance(node, fx.Node) and node in pure]
        while found:
            node = found.pop()
            if node.op == "call_function" and _MARK not in node.meta:
                node.meta[_MARK] = role
                found += node.all_input_nodes


def computes_weight(node: fx.Node) -> str:
    """Return of what kind of contraction a call computes the weight: ``plain``, ``transposed`` or (of none) empty."""
    return node.meta.get(_MARK, "")


def source_of(weight: fx.Node, states: set[fx.Node]) -> fx.Node | None:
    """Return the parameter that a weight is computed from and has the shape of."""
    waiting, seen = [weight], {weight}
    while waiting:
        node = waiting.pop(0)
        if node in states and node.meta["val"].shape == weight.meta["val"].shape:
            return node
        waiting += [source for source in node.all_input_nodes if source not in seen]
        seen.update(waiting)
    return None


def _name(node: fx.Node) -> str:
    return node.target._schema.name if isinstance(node.target, OpOverload) else ""
