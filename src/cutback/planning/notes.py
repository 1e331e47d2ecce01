"""What a user should know: how budgets were met, and why nothing can go."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cutback.graph.graph import Graph
from cutback.planning.allocation import Task
from cutback.planning.budget import Budget
from cutback.planning.by_hand import ByHand
from cutback.planning.limits import Limits
from cutback.planning.quantity import shown
from cutback.planning.rounding import narrower_widths, rounding_notes
from cutback.planning.select import Levels


def budget_notes(task: Task, at: Levels, budgets: Sequence[Budget]) -> list[str]:
    """Say why a plan ends more than 1 % of the dense cost below its budgets; of latency only measurements can tell.

    Args:
        task: what selection was free to do with each group, and the limits.
        at: the level of each choice, shape ``(choices,)``.
        budgets: what the limits were written as.
    """
    costs, limits = task.costs(at), task.limits
    gaps = {quantity: limit - costs[quantity] for quantity, limit in limits.items()}
    if not gaps or any(gap * 100 <= task.measured[quantity].dense for quantity, gap in gaps.items()):
        return []
    written = {budget.quantity: budget for budget in budgets}
    below = {
        quantity: f"{written[quantity]}: {shown(quantity, gap)} below the budget"
        for quantity, gap in gaps.items()
        if quantity != "latency"
    }
    wider = [task.costs(one_up) for one_up in at - np.eye(len(at), dtype=np.int64)[at > 0]]
    if not wider:
        return [f"{text}, which what keep or the share of channels leaves already meets" for text in below.values()]
    over = {quantity: [costs[quantity] > limit for costs in wider] for quantity, limit in limits.items()}
    binding = [quantity for quantity in limits if all(over[quantity])] or [q for q in limits if any(over[q])]
    return [
        f"{below[quantity]}, because the next permitted step would be over it"
        for quantity in binding
        if quantity in below
    ]


def why_nothing(graph: Graph, settled: Mapping[int, ByHand], limits: Limits) -> str:
    """Say which options keep the groups whole, or, where there is no group, what keeps each layer; shortened."""
    if not graph.groups:
        return "; ".join(f"{k.layer} ({k.reasons[0]})" for k in graph.kept[:4]) or "it has no layer with channels"
    units = {number: hand.units for number, hand in settled.items()}
    options: dict[str, list[str]] = {}
    for number, group in enumerate(graph.groups):
        if number in settled:
            what = "keep" if settled[number].argument == "keep" else "ignored modules"
            option = f"{what} (pattern {settled[number].pattern!r})"
        else:
            option = _whole_because(graph, number, units, limits)
        options.setdefault(option, []).append(group.name)
    reasons = [f"{_shortened(names)} whole because of {option}" for option, names in options.items()]
    whole = [group.units for group in graph.groups]
    return "; ".join([*reasons, *rounding_notes(graph, units, whole, limits.round_to)[:1]])


def _whole_because(graph: Graph, number: int, units: Mapping[int, int], limits: Limits) -> str:
    """Return the limit, or all of them together, that leaves a group no narrower width."""
    alone = {
        f"round_to={limits.round_to}": Limits(round_to=limits.round_to),
        f"min_channels={limits.min_channels}": Limits(min_channels=limits.min_channels),
        f"max_removed={float(limits.max_removed):.0%}": Limits(max_removed=limits.max_removed),
    }
    for option, limit in alone.items():
        if not narrower_widths(graph, number, units, limit):
            return option
    if not narrower_widths(graph, number, units, limits):
        return " with ".join(option for option, limit in alone.items() if limit != Limits())
    return f"its balance ({graph.groups[number].balance}); trace with granularity='blocks', so that whole blocks may go"


def _shortened(names: Collection[str], most: int = 4) -> str:
    """List a few names and how many more there are."""
    return ", ".join(list(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
