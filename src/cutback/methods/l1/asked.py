"""What a user asks to be removed, in one of four ways, and the plan that removes it."""

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from cutback.errors import InvalidBudget, NothingToPrune, UserMistake
from cutback.graph.graph import Graph
from cutback.measure.setting import LatencySetting
from cutback.methods.l1.presets import preset_ratios
from cutback.methods.l1.projections import left_whole
from cutback.methods.l1.ratios import by_stage, ratios_by_hand, skipped_by_hand, widths_of
from cutback.planning.allocation import Allocation, Task
from cutback.planning.allocations.greedy import Greedy
from cutback.planning.allocations.sensitivity import SensitivityGuided
from cutback.planning.allocations.uniform import Uniform
from cutback.planning.at_widths import plan_at_widths
from cutback.planning.budget import Budget
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan
from cutback.scores.catalogue import Score
from cutback.trials.latency_budget import plan_within_latency
from cutback.trials.sensitivity import sensitivity

Evaluate = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Asked:
    """What is to be removed; see ``L1`` for the settings.

    Attributes:
        budgets: the budgets.
        preset: name of a configuration.
        ratios: shares that are removed, by pattern.
        skip: patterns of what stays whole.
        scanned: whether a sensitivity scan shares the cut out.
        tolerance: accuracy that a layer alone may cost.
        skip_at: the share of a layer that may go at that.
        greedy: whether layers are ranked without the inputs that are gone.
        follow_leader: whether coupled layers need a projection that leads them.
    """

    budgets: tuple[Budget, ...] = ()
    preset: str | None = None
    ratios: Mapping[str, Fraction] | None = None
    skip: tuple[str, ...] = ()
    scanned: bool = False
    tolerance: float = 0.02
    skip_at: float = 0.1
    greedy: bool = False
    follow_leader: bool = True

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserMistake: several ways are used at once, or one of them cannot be.
            InvalidBudget: none is used.
        """
        ways = {
            "preset": self.preset is not None,
            "ratios": self.ratios is not None,
            "a sensitivity scan": self.scanned,
        }
        used = [way for way, given in ways.items() if given]
        if not used and not self.budgets:
            raise InvalidBudget(
                "nothing says how much to remove; give a budget such as macs=50%, ratios, a preset or "
                "allocate='sensitivity'"
            )
        if len(used) > 1 or (used and self.budgets and not self.scanned):
            both = [*used, *map(str, self.budgets)][:2]
            raise UserMistake(f"{' and '.join(both)} each say how much to remove; give one of them")
        if self.preset is not None and self.skip:
            raise UserMistake(f"preset {self.preset!r} says itself what it skips; leave skip out, or write ratios")
        if not (0 <= self.tolerance < 1 and 0 < self.skip_at < 1):
            raise UserMistake(f"tolerance={self.tolerance} and skip_at={self.skip_at} must lie between 0 and 1")

    def plan(self, graph: Graph, score: Score, evaluate: Evaluate | None = None) -> Plan:
        """Return the plan that removes what is asked for.

        Args:
            graph: the traced model.
            score: what ranks filters.
            evaluate: accuracy of a model in 0..1, for the scan.

        Raises:
            ArchitectureMismatch: a preset is about another network.
            NothingToPrune: everything stays whole; says why.
            BudgetUnreachable: no permitted cut meets the budget.
            UserMistake: patterns that match nothing or contradict each other; no accuracy from ``evaluate``.
        """
        if self.preset is not None:
            return plan_at_widths(graph, widths_of(graph, preset_ratios(graph, self.preset)), score, greedy=self.greedy)
        whole = left_whole(graph, follow_leader=self.follow_leader)
        whole |= dict.fromkeys(skipped_by_hand(graph, self.skip), "skip names it")
        whole = _with_linked(graph, whole)
        if self.ratios is not None:
            ratios = ratios_by_hand(graph, self.ratios, whole)
        elif not self.scanned:
            return self._within_budgets(graph, score, whole, Uniform())
        else:
            scan = sensitivity(graph, evaluate or _no_accuracy, score=score)
            sensitive = scan.skipped(loss=self.tolerance, removed=self.skip_at)
            whole |= dict.fromkeys(sensitive, f"it alone costs more than {self.tolerance:g} at {self.skip_at:g}")
            whole |= {group.name: "it was not scanned" for group in graph.groups if group.name not in scan.curves}
            whole = _with_linked(graph, whole)
            staged = by_stage(graph, scan, list(whole))
            if self.budgets:
                return self._within_budgets(graph, score, whole, SensitivityGuided(staged))
            ratios = {name: Fraction(str(ratio)) for name, ratio in staged.ratios(self.tolerance).items()}
        if not any(ratios.values()):
            raise NothingToPrune(
                f"ratios of nothing remove nothing; ask for more, or raise tolerance ({self.tolerance:g})"
            )
        return plan_at_widths(graph, widths_of(graph, ratios), score, greedy=self.greedy)

    def _within_budgets(self, graph: Graph, score: Score, whole: Mapping[str, str], order: Allocation) -> Plan:
        """Return the plan that meets the budgets."""
        layers = {layer for group in graph.groups if group.name in whole for layer in group.layers}
        keep = {glob.escape(layer): "100%" for layer in layers}
        chosen = _Chosen(order) if self.greedy else order

        def make(rated: Score, budgets: Sequence[Budget], allocate: Allocation | str = chosen) -> Plan:
            return make_plan(graph, score=rated, budget=budgets, keep=keep, allocate=allocate)

        if any(budget.quantity == "latency" for budget in self.budgets):
            return plan_within_latency(graph, self.budgets, LatencySetting(), score, make)
        return make(score, self.budgets)


class _Chosen(Greedy):
    """Another allocation's widths, filled without the inputs that are gone."""

    def __init__(self, order: Allocation) -> None:
        self._order = order

    def order(self, task: Task) -> Sequence[int]:
        """Return the other allocation's steps."""
        return self._order.order(task)


def _with_linked(graph: Graph, whole: Mapping[str, str]) -> dict[str, str]:
    """Return the groups that stay whole, together with those that a balance links with them.

    Raises:
        NothingToPrune: says why.
    """
    whole = dict(whole)
    for system in graph.systems:
        linked = [graph.groups[number].name for number in system.groups]
        first = next((name for name in linked if name in whole), None)
        whole |= {name: f"it is balanced with {first}" for name in linked if first is not None and name not in whole}
    if all(group.name in whole for group in graph.groups):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(whole.items())[:3])
        raise NothingToPrune(f"no filter of this model may be removed: {reasons or 'it has no groups of channels'}")
    return whole


def _no_accuracy(_: nn.Module) -> float:
    raise UserMistake("allocate='sensitivity' needs evaluate, a function of a model: its validation accuracy in 0..1")
