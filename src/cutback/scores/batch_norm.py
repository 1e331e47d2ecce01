"""Scales of the norms that follow.

Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3:
``s_c = |gamma_c|``. Where several norms scale one channel (streams of residual networks, which the paper leaves out)
their scores are aggregated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import InvalidScore
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.scores.aggregation import aggregated, check_aggregate, layers_before
from cutback.scores.catalogue import About, Score, scores
from cutback.scores.scales import ScaleSlices, scale_slices


@scores.register("bn-scale")
@dataclass(frozen=True)
class NormScale:
    """Absolute scale of the norm that follows.

    Of channels that are selected it is that of the norm they are taken from. Channels that no norm scales have none:
    say with ``otherwise`` what ranks them.

    Attributes:
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the norms of a unit.
        otherwise: the score of groups that no norm scales; without it they are an error.

    Example:
        >>> import torch, cutback
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
        >>> net[1].weight.data = torch.tensor([1.0, -2.0, 0.5])
        >>> cutback.scores.NormScale()(cutback.trace(net, torch.zeros(2, 3, 8, 8)))
        {'0': tensor([1.0000, 2.0000, 0.5000], dtype=torch.float64)}
    """

    about = About("Liu 2017, section 3", lowest=("dead",))

    aggregate: str = "sum"
    otherwise: Score | None = None

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            InvalidScore: no norm scales some group.
        """
        found = scale_slices(graph)
        bare = [name for name, slices in found.items() if not slices]
        if bare and self.otherwise is None:
            raise InvalidScore(
                f"no norm scales the channels of {', '.join(bare[:6])}{' and others' if len(bare) > 6 else ''}; say "
                "what ranks them: score=cutback.scores.NormScale(otherwise=cutback.scores.L1())"
            )
        result = dict(self.otherwise(graph)) if bare and self.otherwise is not None else {}
        return {**result, **scale_scores(graph, found, self.aggregate)}


def scale_scores(graph: Graph, found: Mapping[str, Sequence[ScaleSlices]], aggregate: str) -> dict[str, Tensor]:
    """Return the absolute scales, ``(units,)`` in double precision for each group that has any.

    Args:
        graph: the traced model.
        found: where they lie, see ``scale_slices``.
        aggregate: one of ``AGGREGATES``, over the norms of a unit.
    """
    states = state_tensors(graph.model)
    before = layers_before(graph) if aggregate == "leader" else {}
    result: dict[str, Tensor] = {}
    for name, slices in found.items():
        parts = [states[own.scale].detach().cpu().double().abs()[torch.from_numpy(own.indices)] for own in slices]
        if parts:
            result[name] = aggregated(parts, aggregate, [before.get(own.scale, 0) for own in slices])
    return result
