"""Convolution and linear: their inputs end here and fresh labels leave."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import NONE, spread, varies
from cutback.graph.rules.multihead import equal_widths
from cutback.graph.rules.tokens import mixes_positions, past_positions
from cutback.graph.rules.vectors import vector_along
from cutback.graph.states import State
from cutback.graph.weights import ComputedWeight

Weight = State | ComputedWeight


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
    _tie(call, incoming, weight, 1, "column")
    outgoing = _made(call, weight, 0)
    equal_widths(call, incoming, outgoing, part=isinstance(weight, ComputedWeight))
    _tie_bias(call, outgoing)
    if isinstance(weight, ComputedWeight):
        call.width(nn.Linear, "in_features", incoming)
        call.width(nn.Linear, "out_features", outgoing)
    return spread(outgoing, len(call.shape) - 1, call.shape)


def _convolve(call: Call, weight: Weight, labels: Tensor, *, out_dimension: int, in_dimension: int) -> Labels:
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
        # A grouped weight has blocks along its first dimension, each with slices of its own along the other.
        alike = 1 if call.whole_blocks else groups
        call.tie_blocks(incoming, 0, alike, moves=False)
        _tie(call, incoming, weight, in_dimension, "column", groups)
        outgoing = _made(call, weight, out_dimension, groups)
        call.tie_blocks(outgoing, 0, alike, moves=False)
        if call.whole_blocks and groups > 1:
            blocks = call.join(torch.cat([incoming.view(groups, -1), outgoing.view(groups, -1)], 1))
            call.width(_ConvNd, "groups", blocks)
            call.width(_ConvNd, "in_channels", incoming)
            call.width(_ConvNd, "out_channels", outgoing)
    _tie_bias(call, outgoing)
    if isinstance(weight, ComputedWeight):  # the layer's widths do not follow from a parameter of its own
        call.width(_ConvNd, "in_channels", incoming)
        call.width(_ConvNd, "out_channels", outgoing)
        if call.decide(groups == channels > 1):
            call.width(_ConvNd, "groups", incoming)
    return spread(outgoing, channel, call.shape)


def _check_window(call: Call, labels: Tensor, channel: int, window: Sequence[int]) -> None:
    """Check that a convolution that leaves channels alone does not slide over the dimension they lie along.

    Raises:
        Refused: it does.
    """
    for dimension, size in enumerate(window, start=channel + 1):
        still = size == 1 and call.shape[dimension] == labels.size(dimension)
        if call.decide(varies(labels, dimension) and not still):
            raise Refused(
                "slides over channels as though they lay side by side in space: each would meet other neighbours"
            )


def _depthwise(call: Call, weight: Weight, incoming: Tensor) -> Tensor:
    """Tie each channel to its own filters; a transposed weight's second dimension is the multiplier, not a channel."""
    if call.operator.startswith("aten::conv_transpose"):
        _tie(call, incoming, weight, 0, "depthwise")
        return incoming.repeat_interleave(weight.shape[1])
    repeated = incoming.repeat_interleave(weight.shape[0] // len(incoming))
    _tie(call, repeated, weight, 0, "depthwise")
    return repeated


def _weight(call: Call) -> Weight:
    """Return the weight as a parameter, or as computed from parameters."""
    weight = call.arguments.get("weight")
    if isinstance(weight, ComputedWeight):
        return weight
    weight = call.state("weight")
    if weight is None:
        raise Refused("has no weight")
    return weight


def _tie(call: Call, labels: Tensor, weight: Weight, dimension: int, role: str, groups: int = 1) -> None:
    """Let the slices of a weight, which has blocks of its own along dimension 1, go with the channels behind labels."""
    blocks = groups if dimension == 1 else 1
    if isinstance(weight, State):
        call.tie(labels, weight, dimension, role, blocks)
        return
    own = _made(call, weight, dimension)  # of a computed weight every block has the same slices
    call.unite(labels, own.repeat(blocks))
    call.keep(own[labels[: len(own)] == NONE], "goes with something constant")
    if role == "column":
        shown = [-1 if d == dimension else 1 for d in range(len(weight.shape))]
        call.silence("weight", own.view(shown))


def _made(call: Call, weight: Weight, dimension: int, groups: int = 1) -> Tensor:
    """Return the labels of the channels that the slices of a weight make."""
    blocks = groups if dimension == 1 else 1
    if isinstance(weight, State):
        return call.made(weight, dimension, "filter", blocks)
    labels = weight.along(dimension)
    if labels is not None:
        return vector_along(call, labels, dimension).repeat(blocks)
    if weight.shape[dimension] > 1:
        raise Refused("has a weight whose channels do not follow from a parameter")
    alone = call.fresh()
    call.keep(alone, "the only channel of a computed weight")
    return alone


def _tie_bias(call: Call, outgoing: Tensor) -> None:
    """Tie the bias to the outgoing labels; it may be laid together from several parameters."""
    bias = call.arguments.get("bias")
    if isinstance(bias, Tensor):
        call.unite(outgoing, bias)
        call.keep(outgoing[bias == NONE], "goes with something constant")
        return
    bias = call.state("bias")
    if bias is not None:
        call.tie(outgoing, bias, 0, "bias")
