"""Norms of filters: what a filter weighs, without any data.

H. Li et al., "Pruning Filters for Efficient ConvNets", 2016 (ICLR 2017): section 3.1 (``s_j = sum |W[j]|``); the
Euclidean norm, and the largest first as a control, are compared with it there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.scores.catalogue import About, scores
from cutback.scores.filters import FilterScore

_CACHED = 1 << 17
"""So many weights at a time fit into a processor core's cache."""


class FilterNorm(FilterScore):
    """A norm of each filter: not finite where a weight is not."""

    @property
    def reads_filters(self) -> bool:
        """Whether every filter that makes a channel is read."""
        return self.aggregate != "leader"


@scores.register("l1")
@dataclass(frozen=True)
class L1(FilterNorm):
    """Sum of the absolute weights of each filter.

    Published with the aggregate ``leader``, which is not the default: it leaves out what the other layers weigh.
    """

    about = About("Li 2016, section 3.1", lowest=("dead",))

    def rate(self, filters: Tensor) -> Tensor:
        """Return ``sum |w|`` of each filter ``(C, K)``."""
        return _absolute_sums(filters)


@scores.register("l2")
@dataclass(frozen=True)
class L2(FilterNorm):
    """Euclidean norm of each filter."""

    about = About("Li 2016, compared with the L2 norm", lowest=("dead",))

    def rate(self, filters: Tensor) -> Tensor:
        """Return ``sqrt(sum w^2)`` of each filter ``(C, K)``."""
        return torch.linalg.vector_norm(filters, dim=1, dtype=torch.float64)


@scores.register("linf")
@dataclass(frozen=True)
class LInf(FilterNorm):
    """Largest absolute weight of each filter."""

    about = About("after Li 2016, L-infinity", lowest=("dead",))

    def rate(self, filters: Tensor) -> Tensor:
        """Return ``max |w|`` of each filter ``(C, K)``."""
        return filters.abs().amax(1).double()


@scores.register("largest")
@dataclass(frozen=True)
class Largest(FilterScore):
    """Minus the sum of absolute weights: a control."""

    about = About("Li 2016, random and largest filters")

    def rate(self, filters: Tensor) -> Tensor:
        """Return ``-sum |w|`` of each filter ``(C, K)``."""
        return -_absolute_sums(filters)


def _absolute_sums(filters: Tensor) -> Tensor:
    """Return ``sum |w|`` of each filter ``(C, K)`` in double precision."""
    # Thrice as fast as by vector_norm: absolute values that never leave the cache, added up in single precision.
    precision = torch.promote_types(filters.dtype, torch.float32)
    pieces = filters.split(max(_CACHED // max(filters.shape[1], 1), 1))
    return torch.cat([piece.abs().sum(1, dtype=precision) for piece in pieces]).double()
