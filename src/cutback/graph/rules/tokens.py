"""Layers that mix positions of a dimension without channels: the channels along the others pass through."""

from torch import Tensor

from cutback.graph.call import Call
from cutback.graph.labels import core, varies, varying_dimensions
from cutback.graph.states import State


def mixes_positions(call: Call, labels: Tensor, dimension: int) -> bool:
    """Whether what a layer contracts carries no channels while another dimension does."""
    others = [d for d in varying_dimensions(labels) if d != dimension]
    return call.decide(bool(others) and not varies(labels, dimension))


def past_positions(call: Call, labels: Tensor, dimension: int) -> Tensor:
    """Return the labels of what such a layer makes: those of its input; its parameters stay whole.

    What the layer makes of positions could be pruned only beside the channels, with two labels an element.
    """
    reason = "mixes positions of a dimension that carries no channels"
    for value in call.arguments.values():
        if isinstance(value, State):
            call.keep_state(value, reason)
    return core(labels).narrow(dimension, 0, 1).expand(call.shape)
