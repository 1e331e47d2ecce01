"""Latency budgets as ``cutback.plan`` carries them out."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from torch import Tensor, from_numpy

from cutback.graph.graph import Graph
from cutback.measure.latency_model import LatencyModel
from cutback.measure.setting import LatencySetting
from cutback.planning.budget import Budget
from cutback.planning.plan import Plan
from cutback.scores.catalogue import Score, score_groups
from cutback.trials.latency import clock_in, noted, plan_to_latency


class Remembered:
    """A score of one graph, computed once however many plans are made.

    Args:
        graph: the traced model.
        score: any score.
    """

    def __init__(self, graph: Graph, score: str | Score | type[Score]) -> None:
        self._graph, self._score = graph, score

    @cached_property
    def _values(self) -> dict[str, Tensor]:
        return self._rated(self._graph)

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group; those of another graph are computed."""
        return self._values if graph is self._graph else self._rated(graph)

    def _rated(self, graph: Graph) -> dict[str, Tensor]:
        rated = score_groups(graph, self._score)
        return {group.name: from_numpy(values) for group, values in zip(graph.groups, rated, strict=True)}


def plan_within_latency(
    graph: Graph,
    budgets: Sequence[Budget],
    setting: LatencySetting,
    score: str | Score | type[Score],
    make: Callable[..., Plan],
) -> Plan:
    """Measure this machine's layers, and return a plan whose cut copy was measured to meet its latency budget.

    Args:
        graph: the traced network.
        budgets: one of them on ``latency``.
        setting: what the latency refers to.
        score: what ranks the units.
        make: makes a plan from a score, budgets and, where another than the user's is meant, an allocation.

    Raises:
        CutbackError: see ``cutback.plan``.
    """
    remembered = Remembered(graph, score)
    others = [budget for budget in budgets if budget.quantity != "latency"]
    # What cannot be reached or scored is refused before anything is timed. Neither depends on an allocation.
    if others:
        make(remembered, others, "uniform")
    remembered(graph)
    model = LatencyModel(graph, setting)
    trial = plan_to_latency(graph, budgets, lambda given: make(remembered, given), model, clock_in(graph, setting))
    return noted(trial, budgets, setting.describe(graph.inputs.tensors()[0].device))
