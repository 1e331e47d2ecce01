"""What several rules need: the labels along one dimension."""

from torch import Tensor

from cutback.graph.call import Call, Refused
from cutback.graph.labels import core, varies, varying_dimensions


def vector_along(call: Call, labels: Tensor, channel: int) -> Tensor:
    """Return the labels found at each index of a dimension, several at one index united; shape ``(C,)``."""
    others = [dimension for dimension in varying_dimensions(labels) if dimension != channel]
    if call.decide(bool(others) and not varies(labels, channel)):
        raise Refused("mixes positions of a dimension other than the one that carries channels")
    table = core(labels).movedim(channel, 0).flatten(1)
    if table.shape[0] != labels.size(channel):
        table = table.expand(labels.size(channel), -1)
    call.unite(table[:, :1].expand(-1, table.shape[1] - 1), table[:, 1:])
    return table[:, 0]


def merged_over(call: Call, labels: Tensor, dimensions: list[int]) -> Tensor:
    """Return labels made constant along dimensions by uniting what lies along them, which then goes together."""
    table = core(labels)
    for dimension in dimensions:
        first = table.narrow(dimension, 0, 1)
        call.unite(first.expand(table.shape), table)
        table = first
    return table.expand(labels.shape)
