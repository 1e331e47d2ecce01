"""Convolution and linear: their inputs end here and fresh labels leave."""

from collections.abc import Sequence

from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import spread, varies
from cutback.graph.rules.multihead import equal_widths
from cutback.graph.rules.tokens import mixes_positions, past_positions
from cutback.graph.rules.vectors import vector_along
from cutback.graph.states import State


@rules.register(*(f"aten::conv{n}d" for n in (1, 2, 3)))
def convolution(call: Call) -> Labels:
    """Tie input channels to columns and issue the filters' labels; weight ``(C_out, C_in / groups, ...)``."""
    weight = _weight(call)
    return _convolve(call, weight, call.labels("input"), out_dimension=0, in_dimension=1)


@rules.register(*(f"aten::conv_transpose{n}d" for n in (1, 2, 3)))
def transposed_convolution(call: Call) -> Labels:
    """As ``convolution``, for a weight of shape ``(C_in, C_out / groups, ...)``."""
    weight = _weight(call)
    return _convolve(call, weight, call.labels("input"), out_dimension=1, in_dimension=0)


@rules.register("aten::linear")
def linear(call: Call) -> Labels:
    """Tie input features to the weight's columns and issue the rows' labels; weight ``(C_out, C_in)``."""
    weight, labels = _weight(call), call.labels("input")
    if mixes_positions(call, labels, labels.dim() - 1):
        return past_positions(call, labels, labels.dim() - 1)
    incoming = vector_along(call, labels, labels.dim() - 1)
    call.tie(incoming, weight, 1, "column")
    outgoing = call.made(weight, 0, "filter")
    equal_widths(call, incoming, outgoing)
    _tie_bias(call, outgoing)
    return spread(outgoing, len(call.shape) - 1, call.shape)


def _convolve(call: Call, weight: State, labels: Tensor, *, out_dimension: int, in_dimension: int) -> Labels:
    """Label a convolution, dense, depthwise or grouped."""
    channel = labels.dim() - (len(weight.shape) - 2) - 1
    groups = int(call.arguments["groups"])  # type: ignore[call-overload]
    if mixes_positions(call, labels, channel):
        _check_window(call, labels, channel, weight.shape[2:])
        return past_positions(call, labels, channel)
    incoming = vector_along(call, labels, channel)
    channels = len(incoming)
    if call.decide(groups == channels > 1):
        outgoing = _depthwise(call, weight, incoming)
    else:
        # A grouped convolution's weight holds all blocks side by side along one dimension and one for all in the other.
        call.tie_blocks(incoming, 0, groups)
        call.tie(incoming[: weight.shape[in_dimension]], weight, in_dimension, "column")
        filters = call.made(weight, out_dimension, "filter")
        outgoing = filters.repeat(call.shape[channel] // len(filters))
        call.tie_blocks(outgoing, 0, groups)
    _tie_bias(call, outgoing)
    return spread(outgoing, channel, call.shape)


def _check_window(call: Call, labels: Tensor, channel: int, window: Sequence[int]) -> None:
    """Check that a convolution that leaves channels alone does not slide over the dimension they lie along.

    Raises:
        Refused: it does.
    """
    for dimension, size in enumerate(window, start=channel + 1):
        still = size == 1 and call.shape[dimension] == labels.size(dimension)
        if call.decide(varies(labels, dimension) and not still):
            raise Refused("slides over a dimension that carries channels")


def _depthwise(call: Call, weight: State, incoming: Tensor) -> Tensor:
    """Tie each channel to its own filters; a transposed weight's second dimension is the multiplier, not a channel."""
    if call.operator.startswith("aten::conv_transpose"):
        call.tie(incoming, weight, 0, "depthwise")
        return incoming.repeat_interleave(weight.shape[1])
    repeated = incoming.repeat_interleave(weight.shape[0] // len(incoming))
    call.tie(repeated, weight, 0, "depthwise")
    return repeated


def _weight(call: Call) -> State:
    """Return the weight as a parameter."""
    weight = call.state("weight")
    if weight is None:
        raise Refused("has no weight")
    return weight


def _tie_bias(call: Call, outgoing: Tensor) -> None:
    """Tie the bias to the outgoing labels."""
    bias = call.state("bias")
    if bias is not None:
        call.tie(outgoing, bias, 0, "bias")
