"""Operators that change the spatial dimensions of ``(N, C, ...)`` and leave each channel to itself."""

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import core, varying_dimensions
from cutback.graph.rules.vectors import merged_over

_SPATIAL_RANK = {
    **{f"aten::{kind}_pool{n}d": n for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)},
    **{f"aten::max_pool{n}d_with_indices": n for n in (2, 3)},
    **{f"aten::upsample_{kind}": n for kind, n in (("linear1d", 1), ("bilinear2d", 2), ("bicubic2d", 2))},
    **{f"aten::_upsample_{kind}_aa": 2 for kind in ("bilinear2d", "bicubic2d")},
    "aten::upsample_trilinear3d": 3,
    **{f"aten::upsample_nearest{n}d": n for n in (1, 2, 3)},
    **{f"aten::_upsample_nearest_exact{n}d": n for n in (1, 2, 3)},
}


@rules.register(*_SPATIAL_RANK)
def resample(call: Call) -> Labels:
    """Carry the labels of the leading dimensions; the spatial ones change size."""
    labels = call.as_labels(next(iter(call.arguments.values())))
    leading = labels.dim() - _SPATIAL_RANK[call.operator]
    spatial = [dimension for dimension in varying_dimensions(labels) if dimension >= leading]
    if call.decide(bool(spatial) and len(varying_dimensions(labels)) == len(spatial)):
        raise Refused("resamples a dimension that carries channels")
    labels = merged_over(call, labels, spatial)
    vectors = core(labels)[(slice(None),) * leading + (slice(0, 1),) * (labels.dim() - leading)]

    def of(value: object) -> Tensor:
        shape = value.shape if isinstance(value, Tensor) else torch.Size()
        return vectors.expand(shape)

    return [of(value) for value in call.values] if isinstance(call.values, list | tuple) else of(call.values)
