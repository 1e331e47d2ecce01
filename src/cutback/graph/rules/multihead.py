"""What torch's own ``nn.MultiheadAttention`` asks for: a width inside that equals the embedding's."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cutback.graph.call import Call
from cutback.graph.capture import module_kind, operator_of
from cutback.graph.labels import compact, spread, varying_dimensions
from cutback.graph.scales import is_movement

_PROJECTIONS = 3
"""Query, key and value."""
_REGROUPS = ("aten::view", "aten::reshape", "aten::unflatten", "aten::flatten")


def equal_widths(call: Call, incoming: Tensor, outgoing: Tensor, *, part: bool) -> None:
    """Let the projections of ``nn.MultiheadAttention`` lose as many channels as the embedding.

    Args:
        call: a linear layer.
        incoming: the labels of its input.
        outgoing: the labels it makes; of query, key and value, one after the other, or of some of them.
        part: whether its weight is a part of that of all three.
    """
    if not issubclass(module_kind(call.node), nn.MultiheadAttention):
        return
    made, rest = call.decide(divmod(len(outgoing), len(incoming)))
    if not rest and (made == _PROJECTIONS or part):
        call.balance([incoming, *outgoing.chunk(made)])


def whole_heads(call: Call, heads: Tensor, width: int) -> None:
    """Note how many heads ``nn.MultiheadAttention`` has where whole ones go; each keeps its width.

    Args:
        call: the call that tells them apart.
        heads: the label of each head.
        width: the width of a head.
    """
    call.width(nn.MultiheadAttention, "num_heads", heads)
    call.width(nn.MultiheadAttention, "head_dim", torch.zeros(width, dtype=torch.int64))


def holds_heads(call: Call, shape: torch.Size, dimension: int, factors: Sequence[int], factor: int) -> bool:
    """Whether what ``nn.MultiheadAttention`` splits off is itself split into heads later: query, key and value are.

    Args:
        call: the call that splits a dimension.
        shape: of what it splits.
        dimension: the dimension it splits.
        factors: the sizes it splits it into.
        factor: which of them to look at.
    """
    if not issubclass(module_kind(call.node), nn.MultiheadAttention):
        return False
    within = torch.arange(math.prod(factors)) // math.prod(factors[factor + 1 :]) % factors[factor]
    places = spread(within, dimension, shape)
    waiting = [(call.node, call.node.args[0], places)]
    while waiting:
        node, source, given = waiting.pop()
        if not is_movement(node) or node.all_input_nodes != [source]:
            continue
        if operator_of(node) in _REGROUPS:  # places lie in memory otherwise than values do
            moved = given.reshape(node.meta["val"].shape)
        else:
            moved = node.target(*(given if value is source else value for value in node.args), **node.kwargs)  # type: ignore[operator]
        if isinstance(moved, Tensor):
            moved = compact(moved)
            if len(varying_dimensions(moved)) > 1:
                return True
        waiting += [(user, node, moved) for user in node.users]
    return False
