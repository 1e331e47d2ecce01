"""Normalisation: scale, shift and statistics go with the channel; over several channels it mixes them."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.capture import module_kind
from cutback.graph.labels import core, spread, varies, varying_dimensions
from cutback.graph.rules.vectors import vector_along
from cutback.graph.states import State


@rules.register("aten::batch_norm", "aten::instance_norm")
def batch_norm(call: Call) -> Labels:
    """Tie scale, shift and running statistics to dimension 1 of ``(N, C, ...)``."""
    labels = call.labels("input")
    channels = vector_along(call, labels, 1)
    call.width(_NormBase, "num_features", channels)
    for name in ("weight", "bias", "running_mean", "running_var"):
        state = call.state(name)
        if state is not None:
            call.tie(channels, state, 0, "norm")
    return spread(channels, 1, call.shape)


@rules.register("aten::group_norm")
def group_norm(call: Call) -> Labels:
    """Tie scale and shift to dimension 1 of ``(N, C, ...)``; every group loses equally many."""
    labels = call.labels("input")
    if any(dimension != 1 for dimension in varying_dimensions(labels)):
        raise Refused("normalises over a further dimension that carries channels")
    channels = vector_along(call, labels, 1)
    call.tie_blocks(channels, 0, int(call.arguments["num_groups"]), moves=False)  # type: ignore[call-overload]
    call.mix("input", labels, [1], restored=True)
    call.width(nn.GroupNorm, "num_channels", channels)
    for name in ("weight", "bias"):
        state = call.state(name)
        if state is not None:
            call.tie(channels, state, 0, "norm")
            call.mix(name, channels, [0], restored=False)
    return labels


@rules.register("aten::layer_norm", "aten::rms_norm")
def layer_norm(call: Call) -> Labels:
    """Tie scale and shift to the last dimensions, which are mixed if they carry channels."""
    labels = call.labels("input")
    normalised = range(labels.dim() - len(call.arguments["normalized_shape"]), labels.dim())  # type: ignore[arg-type]
    mixed = [dimension for dimension in normalised if varies(labels, dimension)]
    states = {name: state for name in ("weight", "bias") if (state := call.state(name)) is not None}
    if not call.decide(bool(mixed)):
        for state in states.values():
            call.keep_state(state, "scales positions, not channels")
        return labels
    call.mix("input", labels, mixed, restored=True)
    if any(dimension < normalised[0] for dimension in varying_dimensions(labels)) and len(mixed) > 1:
        raise Refused("normalises several dimensions that carry channels")
    constant = torch.zeros((), dtype=torch.int64)
    along = [
        labels.movedim(d, 0).reshape(labels.size(d), -1)[:, 0] if d in mixed else constant.expand(labels.size(d))
        for d in normalised
    ]
    call.width(nn.LayerNorm | nn.RMSNorm, "normalized_shape", *along)
    if not issubclass(module_kind(call.node), nn.LayerNorm | nn.RMSNorm):  # these carry the sizes as an attribute
        call.assume(labels, f"normalises over the literal sizes {tuple(call.shape[d] for d in normalised)}")
    for name, state in states.items():
        _tie_scale(call, name, state, labels, list(normalised))
    return labels


def _tie_scale(call: Call, name: str, state: State, labels: Tensor, normalised: list[int]) -> None:
    """Tie a scale or shift over the normalised dimensions."""
    if len(normalised) == 1:
        channels = vector_along(call, labels, normalised[0])
        call.tie(channels, state, 0, "norm")
        call.mix(name, channels, [0], restored=False)
        return
    if any(dimension < normalised[0] for dimension in varying_dimensions(labels)):
        raise Refused("normalises several dimensions beside one that carries channels")
    shown = core(labels)[(0,) * normalised[0]].expand(state.shape)
    call.tie_elements(shown, state)
    call.mix(name, shown, varying_dimensions(shown), restored=False)
