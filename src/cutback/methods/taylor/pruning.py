"""Which units of a network are left, which go next, and whether that is enough."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cutback.errors import NothingToPrune, UserMistake
from cutback.graph.graph import Graph
from cutback.methods.taylor.cost import LatencyOfUnit, MacsOfUnit, UnitCost
from cutback.methods.taylor.latency import MeasuredLatency
from cutback.methods.taylor.removal import in_blocks, lowest_removed
from cutback.methods.taylor.schedule import Schedule
from cutback.planning.allocation import Task
from cutback.planning.assemble import plan_for
from cutback.planning.budget import Budget
from cutback.planning.by_hand import settled_by_hand
from cutback.planning.choices import choices_of
from cutback.planning.cost import CostModel
from cutback.planning.limits import Limits
from cutback.planning.notes import why_nothing
from cutback.planning.plan import Plan
from cutback.planning.quantity import Quantity
from cutback.planning.search import require_reachable
from cutback.planning.select import best_of, require_groups
from cutback.planning.slices import kept_masks, settled

Masks = list[NDArray[np.bool_]]


class Pruning:
    """One network on its way from one cut to the next.

    Args:
        graph: the traced model.
        schedule: how many units go at a time.
        budgets: what the result may cost.
        ignore: patterns of modules whose outputs stay whole.
        limits: the largest permitted figure of each budget, where the dense network has settled them already.
        removed: how many units had gone before this network was traced.

    Attributes:
        graph: the traced model.
        kept: for each group which units are left, ``(units,)``.
        removed: how many units have gone in all.
        enough: whether no more has to go, since the last removal.

    Raises:
        NothingToPrune: every channel must stay.
        BudgetUnreachable: no permitted cut meets the budgets.
        InvalidBudget: a budget asks for nothing.
        UserMistake: more units are to go than can.
    """

    def __init__(
        self,
        graph: Graph,
        schedule: Schedule,
        budgets: Sequence[Budget],
        ignore: Sequence[str],
        limits: Mapping[str, int] | None = None,
        removed: int = 0,
    ) -> None:
        self.graph, self.removed = graph, removed
        self._schedule, self._budgets = schedule, budgets
        hands = settled_by_hand(graph, ignore, None)
        whole = {number: hand.units for number, hand in hands.items()}
        choices, _ = choices_of(graph, whole, only_settled=False, share=None, limits=Limits())
        require_groups(choices, lambda: why_nothing(graph, hands, Limits()))
        self._choices = [in_blocks(choice, schedule.group_size) for choice in choices]
        self._cost = CostModel(graph)
        timed = any(budget.quantity == "latency" and budget.measure is None for budget in budgets)
        self._latency = MeasuredLatency(graph, self._cost) if timed else None
        measured = {budget.quantity: self._measured(budget) for budget in budgets}
        if limits is None:
            limits = {budget.quantity: budget.limit(measured[budget.quantity].dense) for budget in budgets}
        self._task = Task(graph, self._choices, measured, limits)
        require_reachable(self._task)
        free = sum(int((choice.counts[0] - choice.counts[-1]).sum()) for choice in self._choices)
        if not budgets and removed + free < schedule.target:
            raise UserMistake(
                f"{schedule.removals} removals of {schedule.units} units are {schedule.target:g}, but only "
                f"{removed + free} of this network can go; ask for fewer"
            )
        self._at = np.zeros(len(self._choices), dtype=np.int64)
        self.kept: Masks = [np.ones(group.units, dtype=bool) for group in graph.groups]
        self.enough = False
        self._unit_cost: UnitCost | None = None
        if schedule.mu:
            kinds = {"macs": lambda: MacsOfUnit(graph, self._cost), "latency": lambda: LatencyOfUnit(graph)}
            self._unit_cost = kinds[schedule.regularise]()

    @property
    def gated(self) -> list[str]:
        """The groups that may lose units."""
        numbers = {cell.group for choice in self._choices if len(choice.counts) > 1 for cell in choice.cells}
        return [group.name for number, group in enumerate(self.graph.groups) if number in numbers]

    @property
    def limits(self) -> dict[str, int]:
        """The largest permitted figure of each budget."""
        return dict(self._task.limits)

    def remove(self, scores: Sequence[NDArray[np.float64]]) -> None:
        """Remove the units of the lowest scores.

        Args:
            scores: for each group those of its units, ``(units,)``; of units that are gone they do not matter.

        Raises:
            IllegalCut: these units cannot go together.
            NothingToPrune: no more can go.
        """
        live = [np.where(stays, own, -np.inf) for stays, own in zip(self.kept, scores, strict=True)]
        choices = [choice.scored_by(live) for choice in self._choices]
        widths = self._task.widths(self._at)
        costs = self._unit_cost.at(widths) if self._unit_cost else np.zeros(len(widths))
        self._at = lowest_removed(
            choices,
            self._at,
            most=int(min(self._schedule.units, self._schedule.target - self.removed)),
            enough=self._task.fits if self._budgets else lambda _: False,
            penalty=dict(enumerate((self._schedule.mu * costs).tolist())),
        )
        gone = int(widths.sum() - self._task.widths(self._at).sum())
        if not gone:
            raise NothingToPrune(f"{self.removed} units are gone, and no layer can lose more; ask for fewer")
        best = best_of(choices, self._at, len(self.graph.groups))
        self.kept = kept_masks(self.graph, settled(self.graph, best, live)[0])
        self.removed += gone
        self.enough = self._task.fits(self._at) if self._budgets else self.removed >= self._schedule.target
        if self.enough and self._latency is not None:
            self.enough = self._latency.within(self.plan(), self.limits["latency"])

    def plan(self) -> Plan:
        """Return the plan that leads from the graph to what is left."""
        units = {
            group.name: np.flatnonzero(stays).tolist()
            for group, stays in zip(self.graph.groups, self.kept, strict=True)
        }
        budgets, notes = (self._budgets, self._latency.notes if self._latency else ()) if self.enough else ((), ())
        return plan_for(self.graph, units, budgets=budgets, cost=self._cost, notes=notes, measured=self._task.measured)

    def _measured(self, budget: Budget) -> Quantity:
        """Return what a budget bounds."""
        if budget.quantity == "latency" and self._latency is not None:
            return self._latency.quantity
        return budget.measured(self.graph, self._cost)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        return {
            "removed": self.removed,
            "limits": self.limits,
            "at": self._at.tolist(),
            "kept": [torch.from_numpy(stays.copy()) for stays in self.kept],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, of the same network."""
        self.removed = int(state["removed"])
        self._at = np.array(state["at"], dtype=np.int64)
        self.kept = [stays.numpy().astype(bool) for stays in state["kept"]]
