"""What a user should know: how budgets were met, and why nothing can go."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cutback.graph.graph import Graph
from cutback.planning.budget import Budget
from cutback.planning.by_hand import ByHand
from cutback.planning.cost import CostModel
from cutback.planning.rounding import narrower_widths, rounding_notes
from cutback.planning.select import Choice, Levels, widths_at


def budget_notes(choices: Sequence[Choice], at: Levels, cost: CostModel, budgets: Sequence[Budget]) -> list[str]:
    """Say why a plan ends more than 1 % of the dense cost below its budgets.

    Args:
        choices: what selection was free to do with each group.
        at: the level of each choice, shape ``(choices,)``.
        cost: the network's cost for given widths.
        budgets: bounds on ``macs`` and ``params``.
    """
    kept = widths_at(choices, at, cost.groups)
    dense = {budget.quantity: cost.dense(budget.quantity) for budget in budgets}
    gaps = {budget: budget.limit(dense[budget.quantity]) - cost.of(budget.quantity, kept) for budget in budgets}
    if not budgets or any(gap * 100 <= dense[budget.quantity] for budget, gap in gaps.items()):
        return []
    wider = [widths_at(choices, one_up, cost.groups) for one_up in at - np.eye(len(at), dtype=np.int64)[at > 0]]
    if not wider:
        return [
            f"{budget}: {gap:,} below the budget, which what keep or the share of channels leaves already meets"
            for budget, gap in gaps.items()
        ]
    over = {
        budget: [cost.of(budget.quantity, widths) > budget.limit(dense[budget.quantity]) for widths in wider]
        for budget in budgets
    }
    binding = [budget for budget in budgets if all(over[budget])] or [b for b in budgets if any(over[b])]
    return [
        f"{budget}: {gaps[budget]:,} below the budget, because the next permitted step would be over it"
        for budget in binding
    ]


def why_nothing(graph: Graph, settled: Mapping[int, ByHand], *, round_to: int, min_channels: int) -> str:
    """Say which options keep the groups whole, or, where there is no group, what keeps each layer; shortened."""
    if not graph.groups:
        return "; ".join(f"{k.layer} ({k.reasons[0]})" for k in graph.kept[:4]) or "it has no layer with channels"
    units = {number: hand.units for number, hand in settled.items()}
    options: dict[str, list[str]] = {}
    for number, group in enumerate(graph.groups):
        if number in settled:
            what = "keep" if settled[number].argument == "keep" else "ignored modules"
            option = f"{what} (pattern {settled[number].pattern!r})"
        elif not narrower_widths(graph, number, units, round_to=round_to):
            option = f"round_to={round_to}"
        elif not narrower_widths(graph, number, units, min_channels=min_channels):
            option = f"min_channels={min_channels}"
        elif not narrower_widths(graph, number, units, round_to=round_to, min_channels=min_channels):
            option = f"round_to={round_to} with min_channels={min_channels}"
        else:
            option = "no budget"
        options.setdefault(option, []).append(group.name)
    reasons = [f"{_shortened(names)} whole because of {option}" for option, names in options.items()]
    whole = [group.units for group in graph.groups]
    return "; ".join([*reasons, *rounding_notes(graph, units, whole, round_to)[:1]])


def _shortened(names: Collection[str], most: int = 4) -> str:
    """List a few names and how many more there are."""
    return ", ".join(list(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
