"""What torch's own ``nn.MultiheadAttention`` asks for: a width inside that equals the embedding's."""

from torch import Tensor, nn

from cutback.graph.call import Call
from cutback.graph.capture import module_kind


def equal_widths(call: Call, incoming: Tensor, outgoing: Tensor) -> None:
    """Let the projections of ``nn.MultiheadAttention`` lose as many channels as the embedding.

    Args:
        call: a linear layer.
        incoming: the labels of its input.
        outgoing: the labels it makes; of query, key and value, one after the other.
    """
    if not issubclass(module_kind(call.node), nn.MultiheadAttention):
        return
    if call.decide(len(outgoing) == 3 * len(incoming)):
        call.balance([incoming, *outgoing.chunk(3)])
