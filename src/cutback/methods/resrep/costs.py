"""What the network costs when so many rows of each compactor stay, and whether that meets the budget."""

from collections.abc import Sequence

import numpy as np

from cutback.graph.graph import Graph
from cutback.methods.resrep.choosing import how_many, rows_in_order
from cutback.methods.resrep.targets import Target
from cutback.planning.allocation import Task
from cutback.planning.budget import Budget
from cutback.planning.choices import choices_of
from cutback.planning.cost import CostModel
from cutback.planning.limits import Limits
from cutback.planning.search import require_reachable


class Costs:
    """The budgeted figures of a network by how many rows of each compactor stay.

    Args:
        graph: the traced model.
        budgets: what bounds them.
        targets: the groups that have compactors; all others stay whole.
        limits: what the width of each layer must meet.

    Attributes:
        model: MACs and parameters for any widths.
        measured: the budgeted quantities by name.

    Raises:
        BudgetUnreachable: the narrowest permitted network is over a budget.
        InvalidBudget: a budget asks for nothing, or bounds what cannot be counted.
    """

    def __init__(self, graph: Graph, budgets: Sequence[Budget], targets: Sequence[Target], limits: Limits) -> None:
        self.model = CostModel(graph)
        self.measured = {budget.quantity: budget.measured(graph, self.model) for budget in budgets}
        self._limits = {budget.quantity: budget.limit(self.measured[budget.quantity].dense) for budget in budgets}
        self._whole = np.array([group.units for group in graph.groups], dtype=np.int64)
        self._numbers = [target.number for target in targets]
        self._least = limits.min_channels
        others = {number: int(units) for number, units in enumerate(self._whole) if number not in self._numbers}
        choices, _ = choices_of(graph, others, only_settled=False, share=None, limits=limits)
        require_reachable(Task(graph, choices, self.measured, self._limits))

    def of(self, widths: Sequence[int]) -> dict[str, int]:
        """Return each budgeted figure.

        Args:
            widths: how many rows of each compactor stay.
        """
        kept = self._whole.copy()
        kept[self._numbers] = widths
        return {name: quantity.of(kept) for name, quantity in self.measured.items()}

    def meet(self, widths: Sequence[int]) -> bool:
        """Whether every budget is met."""
        return all(cost <= self._limits[name] for name, cost in self.of(widths).items())

    def rows_of_equal_shares(self) -> int:
        """Return how many rows go where every compactor loses an equal share, as few as meet the budgets."""
        sizes = self._whole[self._numbers].tolist()
        shares = [(np.arange(size) + 0.5) / size for size in sizes]
        return how_many(rows_in_order(shares, self._least), sizes, self.meet)
