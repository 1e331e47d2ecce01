"""Operators that read pictures at computed positions, each channel at the same ones: warping, unpooling by indices."""

from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import core, varies


@rules.register("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")
def sampled(call: Call) -> Labels:
    """Carry the channels of ``(N, C, ...)``; the positions ``(N, ..., 2 or 3)`` are coordinates and stay."""
    labels = call.labels("input")
    _only_channels(labels)
    call.keep(call.labels("grid"), "reads positions from these channels")
    return core(labels).expand(call.shape)


@rules.register("aten::affine_grid_generator")
def positions(call: Call) -> Labels:
    """Make positions of a transformation, both of which stay; of the sizes channels do not count."""
    call.keep(call.labels("theta"), "is the transformation that positions are made of")
    return call.kept_result("holds coordinates")


@rules.register("aten::max_unpool2d", "aten::max_unpool3d")
def unpooled(call: Call) -> Labels:
    """Carry the channels of ``(N, C, ...)`` to the places that the pooling of the same channels noted."""
    labels, places = call.labels("self"), call.labels("indices")
    _only_channels(labels)
    channels = (1, labels.size(1), *[1] * (labels.dim() - 2))
    call.unite(core(labels).expand(channels), core(places).expand(channels))
    return core(labels).expand(call.shape)


def _only_channels(labels: Tensor) -> None:
    """Check that labels vary along dimension 1 alone.

    Raises:
        Refused: they do not.
    """
    if any(varies(labels, dimension) for dimension in range(labels.dim()) if dimension != 1):
        raise Refused("reads positions along a dimension that carries channels")
