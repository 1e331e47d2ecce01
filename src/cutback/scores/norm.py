"""Norms of filters: what a filter weighs, without any data.

L1: H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1: ``s_j = sum |W[j]|``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import UserMistake
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.scores.catalogue import filter_slices, scores

_AGGREGATES = ("sum", "mean", "max")
_CACHED = 1 << 17
"""So many weights at a time fit into a processor core's cache."""


@dataclass(frozen=True)
class FilterNorm:
    """The norm of each filter, over all its weights; bias, normalisation and consumers do not enter.

    Where several filters go together (shortcuts, depthwise layers) their norms are aggregated; Li 2016 states no rule
    for that but ranking by a projection shortcut alone.

    Attributes:
        aggregate: ``sum``, ``mean`` or ``max`` over the filters of a unit.
    """

    aggregate: str = "sum"
    order = 1
    reads_filters = True

    def __post_init__(self) -> None:
        if self.aggregate not in _AGGREGATES:
            raise UserMistake(f"no aggregate is called {self.aggregate!r}; write one of {', '.join(_AGGREGATES)}")

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group."""
        states = state_tensors(graph.model)
        result: dict[str, Tensor] = {}
        for group in graph.groups:
            norms = [
                _norm(weight.reshape(len(weight), -1), self.order)[indices.to(weight.device)]
                for weight, indices in filter_slices(group, states)
            ]
            table = torch.cat(norms, dim=1)
            result[group.name] = table.amax(1) if self.aggregate == "max" else getattr(table, self.aggregate)(1)
        return result


def _norm(filters: Tensor, order: int) -> Tensor:
    """Return the norm of each row, ``(rows,)``, in double precision."""
    if order != 1:
        return torch.linalg.vector_norm(filters, ord=order, dim=1, dtype=torch.float64)
    # Thrice as fast as by vector_norm: absolute values that never leave the cache, added up in single precision.
    precision = torch.promote_types(filters.dtype, torch.float32)
    pieces = filters.split(max(_CACHED // max(filters.shape[1], 1), 1))
    return torch.cat([piece.abs().sum(1, dtype=precision) for piece in pieces]).double()


@scores.register("l1")
class L1(FilterNorm):
    """Sum of absolute weights of each filter (Li 2016)."""

    order = 1


@scores.register("l2")
class L2(FilterNorm):
    """Euclidean norm of each filter (compared with L1 in Li 2016, section 4.1)."""

    order = 2
