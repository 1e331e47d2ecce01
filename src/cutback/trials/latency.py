"""A plan as fast as asked for: made from the measured table, tried on a cut copy, corrected, made again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from cutback.errors import BudgetUnreachable, CutbackError, InvalidBudget
from cutback.graph.graph import Graph
from cutback.measure.latency import Latency, compare_latency
from cutback.measure.latency_model import Calibration, LatencyModel
from cutback.measure.layer_calls import inputs_at
from cutback.measure.setting import LatencySetting
from cutback.planning.budget import Budget, parse_budgets
from cutback.planning.plan import Cost, Plan
from cutback.planning.quantities.latency import PER_MILLISECOND, LatencyQuantity
from cutback.trials.copies import cut_copy

ROUNDS = 6
REPEATS = 30
LOWEST = 0.95
"""Share of the target from which on it counts as hit."""
AIM = 0.985
"""Share of the target that plans are made for, so that noise does not lift them over it."""
NEAR = 0.01
"""So near to that, a plan is taken without trying for better."""
TOLERANCE = 0.05
"""What a plan may take more than its target, as measured; one that takes more is refused."""

Planner = Callable[[Sequence[Budget]], Plan]
"""Makes a plan that meets budgets, all else being settled."""
Clock = Callable[[Mapping[str, nn.Module]], Mapping[str, Latency]]
"""Times whole forward passes of several models, in turns."""


def clock_in(graph: Graph, setting: LatencySetting) -> Clock:
    """Return a clock for models of a graph's architecture, cut or not, in a setting."""
    inputs = inputs_at(graph.captures[0], graph.inputs, setting.batch)
    return lambda models: compare_latency(models, inputs, repeats=REPEATS, threads=setting.threads)


@dataclass(frozen=True, eq=False)
class Trial:
    """A plan, and what its cut copy took.

    Attributes:
        plan: the plan.
        dense: the uncut network, timed in turns with the copy.
        cut: the copy.
        target_ms: what it was to take, in milliseconds.
        tried: how many plans were tried, this one included.
    """

    plan: Plan
    dense: Latency
    cut: Latency
    target_ms: float
    tried: int = 1

    @property
    def cut_ms(self) -> float:
        """What the copy takes where the dense network takes its median, in milliseconds."""
        return self.cut.of_first * self.dense.median_ms

    @property
    def share(self) -> float:
        """What the copy took, as a share of the target."""
        return self.cut_ms / self.target_ms

    @property
    def hit(self) -> bool:
        """Whether it ends at most 5 % below the target and not above it."""
        return LOWEST <= self.share <= 1

    @property
    def miss(self) -> float:
        """How far it ends from where plans aim; nothing is worse than over the target."""
        return abs(self.share - AIM) + (self.share > 1)


def plan_to_latency(
    graph: Graph, budgets: Sequence[Budget], planner: Planner, model: LatencyModel, clock: Clock
) -> Trial:
    """Return the plan that was measured to come nearest below a latency budget, or, if none does, nearest above it.

    Args:
        graph: the traced network.
        budgets: one of them on ``latency``.
        planner: makes a plan for budgets.
        model: predicts the latency of widths; it is brought in line with whole passes.
        clock: times whole passes.

    Raises:
        BudgetUnreachable: no permitted cut is predicted to be fast enough, or none that was tried was measured within
            5 % of the target; carries the lowest reachable latency, in nanoseconds.
    """
    wanted = next(budget for budget in budgets if budget.quantity == "latency")
    narrow = planner(parse_budgets("channels=25%"))
    times = clock({"dense": graph.model, "narrow": cut_copy(graph.model, narrow)})
    dense_ms = times["dense"].median_ms
    whole = np.array([group.units for group in graph.groups], dtype=np.int64)
    sums = [model.total(kept) for kept in (_kept(narrow), whole)]
    model.calibration = Calibration.through(sums, [times["narrow"].of_first * dense_ms, dense_ms])
    trials: list[Trial] = []
    refusal: CutbackError | None = None
    while len(trials) < ROUNDS and not any(trial.miss <= NEAR or _bound_elsewhere(trial, budgets) for trial in trials):
        try:
            plan = _planned(budgets, planner, model, dense_ms)
        except (BudgetUnreachable, InvalidBudget) as error:
            if not trials:
                raise
            refusal = error  # by what was measured since; whether a plan is good enough, measurements say
            break
        if any(plan.groups == trial.plan.groups for trial in trials):
            break  # steps are no finer
        times = clock({"dense": graph.model, "cut": cut_copy(graph.model, plan)})
        dense_ms = times["dense"].median_ms
        target = float(wanted.amount) * (dense_ms if wanted.relative else 1 / PER_MILLISECOND)
        trials.append(Trial(plan, times["dense"], times["cut"], target))
        model.calibration = model.calibration.moved_through(model.total(_kept(plan)), trials[-1].cut_ms)
    best = min(trials, key=lambda trial: trial.miss)
    if best.share > 1 + TOLERANCE:
        raise BudgetUnreachable(
            f"budget {wanted} cannot be met: of {len(trials)} plans that were tried, the fastest was measured to take "
            f"{best.cut_ms:.4g} ms, {best.share:.1%} of the target; ask for more, or permit wider cuts",
            {"latency": round(best.cut_ms * PER_MILLISECOND)},
        ) from refusal
    return replace(best, tried=len(trials))


def noted(trial: Trial, budgets: Sequence[Budget], setting: str) -> Plan:
    """Return the plan of a trial with its budgets as asked for, and what was measured.

    Args:
        trial: the trial.
        budgets: as the user gave them.
        setting: what the latency refers to, in words.
    """
    wanted = next(budget for budget in budgets if budget.quantity == "latency")
    cut, dense = trial.cut, trial.dense
    note = (
        f"{wanted}: measured {cut.median_ms:.4g} ms (95 % interval {cut.low_ms:.4g} to {cut.high_ms:.4g}), "
        f"{trial.share:.1%} of the target; dense {dense.median_ms:.4g} ms; {setting}"
    )
    notes = [note]
    if trial.share > 1:
        notes.append(
            f"{wanted}: {trial.share - 1:.1%} over the target; none of the plans tried ({trial.tried}) came below it"
        )
    elif not trial.hit and len(budgets) == 1:
        notes.append(
            f"{wanted}: none of the plans tried ({trial.tried}) came within 5 % below the target: steps are too "
            "coarse, what is kept by hand is faster already, or other work on this machine disturbs the clock"
        )
    costs = {**trial.plan.costs, "latency": Cost(*(round(t.median_ms * PER_MILLISECOND) for t in (dense, cut)))}
    return replace(trial.plan, costs=costs, budgets=tuple(map(str, budgets)), notes=(*trial.plan.notes, *notes))


def _bound_elsewhere(trial: Trial, budgets: Sequence[Budget]) -> bool:
    """Tell whether a plan is fast enough and ends within 1 % of the dense cost below another budget: none is slower."""
    costs = {b: trial.plan.costs[b.quantity] for b in budgets if b.quantity in trial.plan.costs}
    gaps = ((b.limit(c.before) - c.after, c.before) for b, c in costs.items() if b.quantity != "latency")
    return trial.share <= 1 and any(gap * 100 <= dense for gap, dense in gaps)


def _planned(budgets: Sequence[Budget], planner: Planner, model: LatencyModel, dense_ms: float) -> Plan:
    """Make a plan that ends a little below the latency budget, or, where that is out of reach, just meets it."""
    for aim in (AIM, 1.0):
        measure = LatencyQuantity.made_by(model, dense_ms, aim)
        aimed = [replace(b, measure=measure) if b.quantity == "latency" else b for b in budgets]
        try:
            return planner(aimed)
        except BudgetUnreachable:
            if aim == 1.0:
                raise
    raise AssertionError("the last aim returns or raises")


def _kept(plan: Plan) -> np.ndarray:
    """Return how many units of each group stay, shape ``(groups,)``."""
    return np.array([len(group.kept) for group in plan.groups], dtype=np.int64)
