"""What several rules need: the labels along one dimension."""

import torch
from torch import Tensor

from cutback.graph.call import Call, Refused
from cutback.graph.labels import NONE, core, varies, varying_dimensions


def vector_along(call: Call, labels: Tensor, channel: int) -> Tensor:
    """Return the labels found at each index of a dimension, several at one index united; shape ``(C,)``."""
    others = [dimension for dimension in varying_dimensions(labels) if dimension != channel]
    if call.decide(bool(others) and not varies(labels, channel)):
        raise Refused("mixes positions of a dimension other than the one that carries channels")
    if not others:
        return labels.as_strided((labels.size(channel),), (labels.stride(channel),))
    table = core(labels).movedim(channel, 0).flatten(1)
    if table.shape[0] != labels.size(channel):
        table = table.expand(labels.size(channel), -1)
    if table.shape[1] == 1:
        return table.flatten()
    first = _representative(table, 1)
    call.unite(first.expand(table.shape), table)
    return first.flatten()


def merged_over(call: Call, labels: Tensor, dimensions: list[int]) -> Tensor:
    """Return labels made constant along dimensions by uniting what lies along them, which then goes together."""
    table = core(labels)
    for dimension in dimensions:
        first = _representative(table, dimension)
        call.unite(first.expand(table.shape), table)
        table = first
    return table.expand(labels.shape)


def _representative(table: Tensor, dimension: int) -> Tensor:
    """Return the first labels along a dimension, or others where those are of a constant."""
    first = table.narrow(dimension, 0, 1)
    if bool((first == NONE).any()):
        first = torch.where(first == NONE, table.amax(dimension, keepdim=True), first)
    return first
