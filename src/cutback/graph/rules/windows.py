"""Windows that slide over space, laid side by side (im2col) or summed back (col2im), and windows of one dimension."""

import math

from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import compact, spread, varies
from cutback.graph.rules.vectors import vector_along


@rules.register("aten::im2col")
def unfolded(call: Call) -> Labels:
    """Turn ``(N, C, H, W)`` to ``(N, C * k * k, L)``: each channel fills a block."""
    labels = call.labels("self")
    channels = vector_along(call, labels, labels.dim() - 3)
    return spread(channels.repeat_interleave(_window(call)), len(call.shape) - 2, call.shape)


@rules.register("aten::col2im")
def folded(call: Call) -> Labels:
    """Turn ``(N, C * k * k, L)`` to ``(N, C, H, W)``: what is summed to one channel goes together."""
    labels = call.labels("self")
    table = vector_along(call, labels, labels.dim() - 2).view(-1, _window(call))
    call.unite(table[:, :1].expand(table.shape), table)
    return spread(table[:, 0], len(call.shape) - 3, call.shape)


@rules.register("aten::unfold")
def windows(call: Call) -> Labels:
    """Lay the windows of one dimension out along a new last one."""
    labels = call.labels("self")
    dimension = int(call.arguments["dimension"]) % max(labels.dim(), 1)  # type: ignore[call-overload]
    if varies(labels, dimension):
        raise Refused("slides a window over channels")
    size, step = int(call.arguments["size"]), int(call.arguments["step"])  # type: ignore[call-overload]
    return compact(labels.unfold(dimension, size, step))


@rules.register("aten::as_strided")
def strided(call: Call) -> Labels:
    """Refuse: memory has no channels."""
    raise Refused("reads memory by literal strides")


@rules.register("aten::meshgrid")
def meshgrid(call: Call) -> Labels:
    """Spread each vector along a dimension of its own."""
    given: list[Tensor] = [call.as_labels(value) for value in call.arguments["tensors"]]  # type: ignore[attr-defined]
    places = list(range(len(given)))
    if call.arguments.get("indexing") == "xy" and len(given) > 1:
        places[:2] = [1, 0]
    shape = call.values[0].shape  # type: ignore[index]
    return [spread(compact(labels.reshape(-1)), place, shape) for labels, place in zip(given, places, strict=True)]


def _window(call: Call) -> int:
    """Return how many places a window has."""
    return math.prod(int(size) for size in call.arguments["kernel_size"])  # type: ignore[attr-defined]
