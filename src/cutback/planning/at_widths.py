"""A plan for widths that are settled: only which units stay is to be chosen."""

from collections.abc import Mapping

import numpy as np

from cutback.graph.graph import Graph
from cutback.planning.allocation import Task
from cutback.planning.allocations.greedy import Greedy
from cutback.planning.assemble import plan_for
from cutback.planning.choices import choices_of
from cutback.planning.limits import Limits
from cutback.planning.plan import Plan
from cutback.planning.select import best_of
from cutback.scores.catalogue import Score, score_groups


def plan_at_widths(
    graph: Graph, widths: Mapping[str, int], score: str | Score | type[Score], *, greedy: bool = False
) -> Plan:
    """Return the plan that leaves so many units of each named group, those of the highest score.

    Args:
        graph: the traced model.
        widths: how many units of each named group stay; every other group stays whole.
        score: what ranks the units.
        greedy: score each layer without the inputs that are gone (see ``Greedy``).

    Raises:
        InvalidBudget: widths that a balance does not permit.
        InvalidScore: see ``score_groups``.
    """
    settled = {number: widths[group.name] for number, group in enumerate(graph.groups) if group.name in widths}
    choices, _ = choices_of(graph, settled, only_settled=True, share=None, limits=Limits())
    scores = score_groups(graph, score)
    at = np.zeros(len(choices), dtype=np.int64)
    if greedy:
        task = Task(graph, [choice.scored_by(scores) for choice in choices], {}, {})
        scores = Greedy().rescored(task, score, at) or scores
    best = best_of([choice.scored_by(scores) for choice in choices], at, len(graph.groups))
    return plan_for(graph, {group.name: units for group, units in zip(graph.groups, best, strict=True)}, scores=scores)
