"""Comparing what two networks compute, at the channels that both have."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.graph.graph import LayeredUnits, UnitMap

_SMALL = 1e-2
"""Values below this are compared absolutely: of a constant channel a batch norm in train mode returns rounding errors,
and whatever small values hide shows on well-conditioned ones."""


def kept_part(tensor: Tensor, owners: UnitMap | LayeredUnits, kept: list[NDArray[np.bool_]]) -> Tensor:
    """Return a reference tensor at its kept channels."""
    stays = owners.stays(kept)
    for dimension in range(stays.ndim):
        if stays.shape[dimension] > 1:
            along = stays.any(axis=tuple(d for d in range(stays.ndim) if d != dimension))
            if not along.all():
                tensor = tensor.index_select(dimension, torch.from_numpy(np.flatnonzero(along)).to(tensor.device))
    return tensor


def relative_error(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference over the largest magnitude, the latter at least 0.01.

    Infinite where shapes differ, where something is not a number (of two such values nothing can be said), and where
    infinities (masks) are not the same.
    """
    if expected.shape != found.shape:
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else float("inf")
    if expected.numel() == 0:
        return 0.0
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()) or not torch.equal(expected[~finite], found[~finite]):
        return float("inf")
    expected, found = expected.masked_fill(~finite, 0), found.masked_fill(~finite, 0)
    scale = float(expected.abs().max())
    return float((expected - found).abs().max()) / max(scale, _SMALL)
