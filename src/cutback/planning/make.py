"""From a graph, a score and budgets to a plan."""

from collections.abc import Mapping, Sequence

from cutback.errors import InvalidBudget, UserMistake
from cutback.graph.graph import Graph
from cutback.planning.allocation import Allocation, Task, ready
from cutback.planning.assemble import plan_for
from cutback.planning.budget import CHANNELS, Budget, parse_budgets
from cutback.planning.by_hand import settled_by_hand
from cutback.planning.choices import choices_of
from cutback.planning.cost import CostModel
from cutback.planning.limits import limits_of
from cutback.planning.notes import budget_notes, why_nothing
from cutback.planning.plan import Plan
from cutback.planning.rounding import rounding_notes
from cutback.planning.search import choose_levels, require_reachable
from cutback.planning.select import best_of, require_groups
from cutback.planning.sensitivity import Sensitivity
from cutback.planning.shares import Share
from cutback.planning.slices import kept_masks, planned_masks
from cutback.scores.catalogue import Score, prepared

__all__ = ["Share", "kept_masks", "make_plan", "plan_for", "planned_masks"]


def make_plan(
    graph: Graph,
    *,
    score: str | Score | type[Score] = "l1",
    budget: str | Budget | Sequence[str | Budget] | None = None,
    keep: Mapping[str, Share] | None = None,
    ignore: str | Sequence[str] = (),
    round_to: int = 1,
    min_channels: int = 1,
    max_removed: str | float | None = None,
    allocate: str | Allocation | Sensitivity = "uniform",
) -> Plan:
    """Choose what stays. See ``cutback.plan`` for the arguments.

    Raises:
        UserMistake: an argument is of another kind than asked for.
        InvalidBudget: a budget, share or rounding cannot be read or asks for nothing or everything, or patterns
            contradict each other.
        BudgetUnreachable: no permitted cut meets the budget; carries the lowest reachable figures.
        NothingToPrune: every channel must stay; says why.
        UnknownName: a score or pattern that nothing answers to; lists near misses.
        InvalidScore: scores that are not finite, or not one number a unit.
    """
    if not isinstance(graph, Graph):
        kind = type(graph).__name__
        raise UserMistake(f"plan needs a graph, not {kind}; pass what cutback.trace(model, example_inputs) returns")
    budgets = parse_budgets(budget)
    if not budgets and not keep:
        raise InvalidBudget("nothing says how much to remove; give a budget, for example budget='macs=50%'")
    limits, allocation = limits_of(round_to, min_channels, max_removed), ready(allocate)
    by_hand = settled_by_hand(graph, ignore, keep)
    settled = {number: hand.units for number, hand in by_hand.items()}
    share = next((b.amount for b in budgets if b.quantity == CHANNELS), None)
    rated = prepared(graph, score)
    choices, notes = choices_of(graph, settled, only_settled=not budgets, share=share, limits=limits)
    require_groups(choices, lambda: why_nothing(graph, by_hand, limits))
    cost = CostModel(graph)
    bounded = [b for b in budgets if b.quantity != CHANNELS]
    measured = {b.quantity: b.measured(graph, cost) for b in bounded}
    for quantity in measured.values():
        choices = list(quantity.worthwhile(choices))
    limited = {b.quantity: b.limit(measured[b.quantity].dense) for b in bounded}
    require_reachable(Task(graph, choices, measured, limited))  # before scores, which may take long
    scores = rated()
    choices = [choice.scored_by(scores) for choice in choices]
    task = Task(graph, choices, measured, limited)
    at = choose_levels(task, allocation)
    notes += budget_notes(task, at, bounded)
    notes += rounding_notes(graph, settled, task.widths(at), limits.round_to) if budgets and limits.round_to > 1 else []
    again = allocation.rescored(task, score, at)
    if again is not None:
        scores, choices = again, [choice.scored_by(again) for choice in choices]
    best = best_of(choices, at, len(graph.groups))
    units = {group.name: numbers for group, numbers in zip(graph.groups, best, strict=True)}
    return plan_for(graph, units, budgets=budgets, cost=cost, notes=notes, scores=scores, measured=measured)
