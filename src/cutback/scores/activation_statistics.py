"""Statistics of what a layer returns, before its norm and its activation.

H. Li et al., "Pruning Filters for Efficient ConvNets", 2016 (ICLR 2017), comparison with activation-based feature map
pruning: over the maps ``x_n`` of the images ``n``, with the whole training set as the images. Variance of the norm:
from A. Polyak, L. Wolf, "Channel-level Acceleration of Deep Face Representations", 2015.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.scores.activation import ActivationScore
from cutback.scores.catalogue import About, scores

_NEEDS = ("activations",)


@scores.register("mean-mean")
@dataclass(frozen=True)
class MeanMean(ActivationScore):
    """Mean over images of each map's mean, signed."""

    about = About("Li 2016, activation-based pruning", needs=_NEEDS)
    site = "output"

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n mean(x_n)`` for maps ``(N, C, ...)``."""
        return _positions(maps).mean(2).sum(0)[None]


@scores.register("mean-std")
@dataclass(frozen=True)
class MeanStd(ActivationScore):
    """Mean over images of each map's standard deviation.

    That of all positions of a map, without Bessel's correction: 0 where there is one.
    """

    about = About("Li 2016, activation-based pruning", needs=_NEEDS, lowest=("dead",))
    site = "output"

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n std(x_n)`` for maps ``(N, C, ...)``."""
        return _positions(maps).std(2, correction=0).sum(0)[None]


@scores.register("mean-l1")
@dataclass(frozen=True)
class MeanL1(ActivationScore):
    """Mean over images of each map's sum of |x|."""

    about = About("Li 2016, activation-based pruning", needs=_NEEDS, lowest=("dead",))
    site = "output"

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n |x_n|_1`` for maps ``(N, C, ...)``."""
        return _positions(maps).abs().sum(2).sum(0)[None]


@scores.register("mean-l2")
@dataclass(frozen=True)
class MeanL2(ActivationScore):
    """Mean over images of each map's Euclidean norm."""

    about = About("Li 2016, activation-based pruning", needs=_NEEDS, lowest=("dead",))
    site = "output"

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n |x_n|_2`` for maps ``(N, C, ...)``."""
        return torch.linalg.vector_norm(_positions(maps), dim=2).sum(0)[None]


@scores.register("var-l2")
@dataclass(frozen=True)
class VarL2(ActivationScore):
    """Variance over images of each map's Euclidean norm."""

    about = About("Polyak & Wolf 2015", needs=_NEEDS, lowest=("dead",))
    site = "output"
    sums = 2

    def measure(self, maps: Tensor) -> Tensor:
        """Return ``sum_n |x_n|_2`` and ``sum_n |x_n|_2^2`` for maps ``(N, C, ...)``."""
        norms = torch.linalg.vector_norm(_positions(maps), dim=2)
        return torch.stack([norms.sum(0), norms.square().sum(0)])

    def rate(self, means: Tensor) -> Tensor:
        """Return the mean of the squares less the square of the mean, not below 0."""
        return (means[1] - means[0].square()).clamp_min(0)


def _positions(maps: Tensor) -> Tensor:
    """Return maps ``(N, C, ...)`` as ``(N, C, positions)`` in double precision."""
    return maps[..., None].flatten(2).double()
