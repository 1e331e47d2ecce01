"""From the numbers of units to a plan: those above zero, or the best for their price that meet the budgets."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.planning.at_widths import plan_at_widths
from cutback.planning.budget import Budget
from cutback.planning.limits import Limits
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan

_LEAST_PRICE = 1e-12


def least_widths(graph: Graph, groups: Sequence[int], floor: float) -> dict[int, int]:
    """Return how many units of each group stay anyway, by its number: a share, rounded up, and at least one."""
    limits = Limits(max_removed=1 - Fraction(str(floor)))
    return {number: max(1, limits.least(graph.groups[number].units)) for number in groups}


def hard_widths(theta: Mapping[int, Tensor], least: Mapping[int, int]) -> dict[int, int]:
    """Return how many units of each group the numbers keep.

    Args:
        theta: of the units of each group, by its number, ``(units,)``.
        least: how many stay anyway.
    """
    return {number: max(int((own > 0).sum()), least[number]) for number, own in theta.items()}


def extracted(
    graph: Graph, theta: Mapping[int, Tensor], prices: Mapping[int, Tensor], budgets: Sequence[Budget], floor: float
) -> Plan | None:
    """Return the plan of the extracted architecture, ``None`` where every unit stays.

    Without budgets the units above zero stay, and of a group with too few of them the highest ones. With budgets the
    units of the highest number for their price stay, as many as the budgets permit.

    Args:
        graph: the traced model.
        theta: of the units of each group that may lose some, by its number, ``(units,)``.
        prices: what each unit costs, in the same shape.
        budgets: what the result may cost.
        floor: so large a share of each group stays anyway.

    Raises:
        CutbackError: see ``cutback.plan``.
    """
    if not budgets:
        widths = hard_widths(theta, least_widths(graph, list(theta), floor))
        if all(width == graph.groups[number].units for number, width in widths.items()):
            return None
        return plan_at_widths(
            graph,
            {graph.groups[number].name: width for number, width in widths.items()},
            lambda graph: _rated(graph, theta),
        )
    rates = {number: own / prices[number].clamp_min(_LEAST_PRICE) for number, own in theta.items()}
    others = [group for number, group in enumerate(graph.groups) if number not in theta]
    return make_plan(
        graph,
        score=lambda graph: _rated(graph, rates),
        budget=budgets,
        ignore=sorted({layer for group in others for layer in group.layers}),
        max_removed=1 - floor if floor else None,
        allocate="global-raw",
    )


def _rated(graph: Graph, rates: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Return a score for each group; zeros for those that stay whole."""
    return {
        group.name: rates[number].detach().cpu() if number in rates else torch.zeros(group.units)
        for number, group in enumerate(graph.groups)
    }
