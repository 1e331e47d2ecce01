"""Scales of the norms that follow.

Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3:
``s_c = |gamma_c|``. Where several norms scale one channel (streams of residual networks, which the paper leaves out)
their scores are aggregated.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from cutback.errors import InvalidScore
from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.scores.aggregation import aggregated, check_aggregate, layers_before
from cutback.scores.catalogue import About, Score, scores

_SCALE_AT = {  # the place of the scale among the arguments
    "aten::batch_norm": 1,
    "aten::instance_norm": 1,
    "aten::group_norm": 2,
    "aten::layer_norm": 2,
    "aten::rms_norm": 2,
}


@scores.register("bn-scale")
@dataclass(frozen=True)
class NormScale:
    """Absolute scale of the norm that follows.

    Channels that no norm scales have none: say with ``otherwise`` what ranks them.

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
        states, scales = state_tensors(graph.model), _scales(graph)
        found = {group: [slot for slot in group.slices if slot.state in scales] for group in graph.groups}
        bare = [group.name for group, slots in found.items() if not slots]
        if bare and self.otherwise is None:
            raise InvalidScore(
                f"no norm scales the channels of {', '.join(bare[:6])}{' and others' if len(bare) > 6 else ''}; say "
                "what ranks them: score=cutback.scores.NormScale(otherwise=cutback.scores.L1())"
            )
        result = dict(self.otherwise(graph)) if bare and self.otherwise is not None else {}
        before = layers_before(graph) if self.aggregate == "leader" else {}
        for group, slots in found.items():
            parts = [
                states[slot.state].detach().cpu().double().abs()[torch.from_numpy(group.slices[slot])] for slot in slots
            ]
            if parts:
                depths = [before.get(slot.state, 0) for slot in slots]
                result[group.name] = aggregated(parts, self.aggregate, depths)
        return result


def _scales(graph: Graph) -> set[str]:
    """Return the names of the parameters that scale what a norm has normalised."""
    found: set[str] = set()
    for capture in graph.captures:
        names = dict(zip(capture.nodes, capture.states, strict=False))  # the first placeholders, in order
        for node in capture.nodes:
            place = _SCALE_AT.get(operator_of(node)) if node.op == "call_function" else None
            if place is not None:
                given = node.args[place] if len(node.args) > place else node.kwargs.get("weight")
                found.update(names[given] for given in (given,) if isinstance(given, fx.Node) and given in names)
    return found
