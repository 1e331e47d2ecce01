"""How many filters each layer has, what the network costs with them, and whether that is little enough."""

from collections.abc import Mapping, Sequence

import numpy as np

from cutback.graph.graph import Graph, Group
from cutback.planning.allocation import Task
from cutback.planning.assemble import plan_for
from cutback.planning.budget import Budget
from cutback.planning.choices import choices_of
from cutback.planning.cost import CostModel
from cutback.planning.limits import Limits
from cutback.planning.plan import Plan
from cutback.planning.search import require_reachable


class Widths:
    """The widths of a network from one cut to the next.

    Args:
        graph: the traced model.
        budgets: what the network may cost.
        limits: the largest permitted figure of each, where the dense network has settled them already.
        searched: the groups that may lose units.

    Attributes:
        limits: the largest permitted figure of each budget.

    Raises:
        BudgetUnreachable: with one unit left in each of these groups the budgets are not met.
        InvalidBudget: a budget asks for nothing.
    """

    def __init__(
        self, graph: Graph, budgets: Sequence[Budget], limits: Mapping[str, int], searched: Sequence[Group]
    ) -> None:
        self._graph, self._budgets, self._cost = graph, budgets, CostModel(graph)
        self._measured = {budget.quantity: budget.measured(graph, self._cost) for budget in budgets}
        self.limits = dict(limits) or {b.quantity: b.limit(self._measured[b.quantity].dense) for b in budgets}
        self._numbers = {group.name: number for number, group in enumerate(graph.groups)}
        names = {group.name for group in searched}
        whole = {number: group.units for number, group in enumerate(graph.groups) if group.name not in names}
        choices, _ = choices_of(graph, whole, only_settled=False, share=None, limits=Limits())
        require_reachable(Task(graph, choices, self._measured, self.limits))
        self._kept = np.array([group.units for group in graph.groups], dtype=np.int64)
        self._gone: dict[str, set[int]] = {}

    @property
    def macs(self) -> int:
        """The MACs of the network without the units that have gone."""
        return self._cost.of("macs", self._kept)

    @property
    def enough(self) -> bool:
        """Whether every budget is met, if there is one."""
        met = (self._measured[name].of(self._kept) <= limit for name, limit in self.limits.items())
        return bool(self._budgets) and all(met)

    def take(self, group: str, units: Sequence[int]) -> int:
        """Let units go; where fewer of them meet every budget, no more than that.

        Args:
            group: their group's name.
            units: their numbers, those to go first being first.

        Returns:
            How many have gone.
        """
        gone = 0
        while gone < len(units) and not self.enough:
            self._kept[self._numbers[group]] -= 1
            gone += 1
        self._gone.setdefault(group, set()).update(units[:gone])
        return gone

    def plan(self) -> Plan:
        """Return the plan without the units that have gone."""
        kept = {
            name: set(range(self._graph.groups[self._numbers[name]].units)) - gone for name, gone in self._gone.items()
        }
        return plan_for(
            self._graph,
            {name: sorted(units) for name, units in kept.items()},
            budgets=self._budgets if self.enough else (),
            cost=self._cost,
            measured=self._measured,
        )
