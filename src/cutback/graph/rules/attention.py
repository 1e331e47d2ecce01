"""Attention: two products of computed tensors, with a softmax between them that leaves channels alone."""

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import varies
from cutback.graph.rules.pointwise import paired
from cutback.graph.rules.sums import Operand, product


@rules.register("aten::scaled_dot_product_attention")
def attention(call: Call) -> Labels:
    """Unite query and key along the width of a head; the result carries the value's labels.

    Without a scale of its own the operator divides by the square root of the head width, which a cut changes.
    """
    query, key, value = (call.labels(name) for name in ("query", "key", "value"))
    heads = query.size(-3) if query.dim() > 2 else 1
    if call.arguments.get("enable_gqa"):
        key, value = (_for_each_query(labels, heads) for labels in (key, value))
    shape = [*torch.broadcast_shapes(query.shape[:-2], key.shape[:-2]), query.size(-2), key.size(-2)]
    if call.arguments.get("scale") is None and call.decide(varies(query, query.dim() - 1)):
        call.rescale(("query", "key"), query)
    # The query alone is silenced: the product sees nothing of the key's removed channels either.
    scores = product(call, Operand(query, "", "query"), Operand(key.transpose(-2, -1), ""), shape)
    mask = call.arguments.get("attn_mask")
    if mask is not None:
        scores = paired(call, [scores, call.as_labels(mask)], torch.Size(shape))
    return product(call, Operand(scores, ""), Operand(value, "", "value"), call.shape)


def _for_each_query(labels: Tensor, heads: int) -> Tensor:
    """Repeat each head of the key or the value for the queries that share it."""
    if heads % labels.size(-3):
        raise Refused("shares heads unevenly")
    return labels.repeat_interleave(heads // labels.size(-3), -3)
