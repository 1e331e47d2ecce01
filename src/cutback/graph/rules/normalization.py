"""Normalisation of each channel by itself: its parameters and statistics go with the channel."""

from torch import Tensor

from cutback.graph.interpret import Call, Labels, Refused, rules
from cutback.graph.labels import spread, varying_dimensions


@rules.register("aten::batch_norm", "aten::instance_norm")
def batch_norm(call: Call) -> Labels:
    """Tie scale, shift and running statistics to dimension 1 of ``(N, C, ...)``."""
    labels = call.labels("input")
    if any(dimension != 1 for dimension in varying_dimensions(labels)):
        raise Refused("normalises over a dimension that carries channels")
    channels = _vector(labels)
    for name in ("weight", "bias", "running_mean", "running_var"):
        state = call.state(name)
        if state is not None:
            call.tie(channels, state, 0, "norm")
    return spread(channels, 1, call.shape)


def _vector(labels: Tensor) -> Tensor:
    """Return the labels along dimension 1, shape ``(C,)``."""
    index = [0] * labels.dim()
    return labels[(index[0], slice(None), *index[2:])]
