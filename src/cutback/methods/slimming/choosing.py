"""Which channels stay: one threshold on the absolute scales of the whole network."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import InvalidBudget, UserMistake
from cutback.graph.graph import Graph
from cutback.planning.budget import CHANNELS, Budget
from cutback.planning.cost import CostModel
from cutback.planning.limits import limits_of
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan
from cutback.planning.quantities.channels import Channels
from cutback.scores.aggregation import check_aggregate
from cutback.scores.batch_norm import scale_scores
from cutback.scores.scales import BATCH_NORM, norm_scales, scale_slices

RULES = ("rank", "strict")
_COUNTED = "channels with a scale"
"""What a budget on channels is called while planning, where its own name means a share of each group."""


@dataclass(frozen=True)
class Choice:
    """How channels are chosen.

    Attributes:
        rule: what a budget on channels means, ``rank`` or ``strict``; see ``Slimming``.
        aggregate: how the scales of one unit are put together.
        min_channels: so many channels stay in each layer.
        max_removed: at most this share of each layer's channels goes.

    Raises:
        UserMistake: there is no such rule or aggregate.
        InvalidBudget: a limit is none.
    """

    rule: str = "rank"
    aggregate: str = "sum"
    min_channels: int = 1
    max_removed: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserMistake(f"rule={self.rule!r} is none of {', '.join(RULES)}")
        check_aggregate(self.aggregate)
        limits_of(1, self.min_channels, self.max_removed)

    def least(self, units: int) -> int:
        """Return how many of so many units of a layer stay anyway."""
        return min(max(limits_of(1, 1, self.max_removed).least(units), self.min_channels), units)


def chosen(graph: Graph, budgets: Sequence[Budget], choice: Choice) -> Plan:
    """Return the plan that removes the channels of the lowest absolute scale.

    Args:
        graph: the traced model.
        budgets: ``channels=30%`` alone, the share of all channels with a scale that stays; or others, which are met by
            going up the same ranking.
        choice: how.

    Raises:
        UserMistake: no batch norm scales channels that may go.
        InvalidBudget: there is none, or one on channels beside others.
        BudgetUnreachable: no permitted cut meets it.
    """
    scores = scores_of(graph, choice.aggregate)
    bare = [group for group in graph.groups if group.name not in scores]
    asked = list(budgets)
    if any(budget.quantity == CHANNELS for budget in budgets):
        if len(budgets) > 1:
            raise InvalidBudget(
                f"{', '.join(map(str, budgets))}: for slimming channels=... is the share of all channels that stays "
                "after one global threshold; give it alone, or give the other budgets without it"
            )
        asked = [_count(scores, budgets[0].amount, choice)]
    rated = {**{group.name: torch.zeros(group.units) for group in bare}, **scores}
    plan = make_plan(
        graph,
        score=lambda graph: rated,  # noqa: ARG005 (a score is called with the graph)
        budget=asked,
        ignore=sorted({layer for group in bare for layer in group.layers}),
        min_channels=choice.min_channels,
        max_removed=choice.max_removed,
        allocate="global-raw",
    )
    costs = {CHANNELS if name == _COUNTED else name: cost for name, cost in plan.costs.items()}
    return dataclasses.replace(plan, budgets=tuple(map(str, budgets)), costs=costs)


def scores_of(graph: Graph, aggregate: str) -> dict[str, Tensor]:
    """Return the absolute scales of the units, ``(units,)`` for each group that a batch norm scales.

    Raises:
        UserMistake: there is no such group.
    """
    found = scale_scores(graph, scale_slices(graph, BATCH_NORM), aggregate)
    if not found:
        model = type(graph.model).__name__
        if not norm_scales(graph, BATCH_NORM):
            raise UserMistake(
                f"slimming ranks channels by the scales of batch norms, and {model} has no batch norm with a scale; "
                "put one behind its layers and train it, or take a method that needs none (cutback methods)"
            )
        raise UserMistake(
            f"the batch norms of {model} scale only channels that have to stay ({_why_kept(graph)}); where they read a "
            "shared stream, cutback.methods.slimming.with_channel_selection lets each choose its own part of it"
        )
    return found


def warn_of_emptied(plan: Plan, scores: Mapping[str, Tensor], least: Callable[[int], int]) -> None:
    """Warn of layers that the threshold would have emptied, which keep their best channels all the same.

    Args:
        plan: what is about to go.
        scores: of the units of each group.
        least: how many of so many units of a layer stay anyway.
    """
    kept = {group.name: list(group.kept) for group in plan.groups if group.name in scores}
    removed = [np.delete(scores[name].numpy(), units) for name, units in kept.items()]
    threshold = np.concatenate(removed).max(initial=-1.0)
    spared: list[str] = []
    for name, units in kept.items():
        best, total = float(scores[name].max()), len(scores[name])
        emptied = best < threshold or (best == threshold and len(units) <= least(total)) or best == 0
        if emptied and len(units) < total:
            spared.append(f"{name} (keeps {len(units)} of {total})")
    if spared:
        warnings.warn(
            f"every scale of {', '.join(spared)} is at most the threshold {threshold:.3g}: the layer would be empty, "
            "and keeps its best channels instead; a smaller penalty or a milder budget spares it",
            stacklevel=3,
        )


def _count(scores: Mapping[str, Tensor], share: Fraction, choice: Choice) -> Budget:
    """Return the budget on the number of channels that a share of them means.

    Args:
        scores: of the units of each group; only these count.
        share: what stays of all of them.
        choice: how channels are chosen.
    """
    every = np.sort(np.concatenate([own.numpy() for own in scores.values()]))
    measure = _counting(frozenset(scores))
    if choice.rule == "rank":
        return Budget(_COUNTED, share, relative=True, measure=measure)
    threshold = every[math.floor(len(every) * (1 - share))]
    stays = sum(max(int((own > threshold).sum()), choice.least(len(own))) for own in scores.values())
    return Budget(_COUNTED, Fraction(stays, len(every)), relative=True, measure=measure)


def _counting(names: frozenset[str]) -> Callable[[Graph, CostModel], Channels]:
    """Return what makes the quantity "units of these groups"."""

    class Counted(Channels):
        def __init__(self, graph: Graph, cost: CostModel) -> None:
            super().__init__(graph, cost)
            self._counts = np.array([group.name in names for group in graph.groups])

        def of(self, kept: NDArray[np.int64]) -> int:
            return int(kept[self._counts].sum())

    return Counted


def _why_kept(graph: Graph) -> str:
    """Return the first reason that keeps a layer's channels."""
    return str(graph.kept[0].reasons[0]) if graph.kept else "nothing keeps them"
