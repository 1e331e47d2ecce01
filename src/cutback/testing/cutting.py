"""Promises about cuts: they are proven, and meet the budget as the method declares."""

from functools import reduce

import numpy as np

from cutback.api import plan, trace
from cutback.errors import UserMistake
from cutback.graph.architecture import hash_of
from cutback.methods import methods
from cutback.planning.cost import CostModel
from cutback.planning.plan import Plan
from cutback.surgery.verify import prove
from cutback.testing.going_on import written
from cutback.testing.recorded import Recorded
from cutback.testing.refusing import require_refusal
from cutback.testing.require import require


def check_proof(run: Recorded) -> None:
    """Its plan leads from the dense network to the model as it is, and the model can be traced, proven and cut on."""
    about, final = methods.get(run.name).about, run.training.method.plan()
    require(about.cuts == (final is not None), f"its About says cuts={about.cuts}, its plan is {final and 'one'}")
    dense = run.case.build()
    if final is None:
        require(hash_of(run.training.model) == hash_of(dense), "the model was cut, but there is no plan")
        return
    composed = reduce(Plan.then, run.cuts) if run.cuts else None
    require(written(composed) == written(final), "its plan is not that of the cuts it made through self.cut")
    require(final.architecture == hash_of(dense), "its plan belongs to another network than the dense one")
    require(final.result == hash_of(run.training.model), "its plan leads to another network than the model at hand")
    graph = trace(run.training.model, run.case.batch(0)[0])
    names = [group.name for group in run.training.method.graph.groups]
    require(names == [group.name for group in graph.groups], "its graph is not that of the model as it is")
    require(prove(graph, plan(graph, budget="channels=60%")).error <= 1e-5, "the final model cannot be proven")


def check_budget(run: Recorded) -> None:
    """The budget is met as its ``About`` declares."""
    about = methods.get(run.name).about
    if about.budget in ("finds_width", "none"):
        require(run.case.budget is None, f"its About says budget={about.budget!r}, but its case has a budget")
        require_refusal(run, "a budget although it takes none", (UserMistake,), budget="macs=50%")
        return
    training = run.training
    dense = trace(run.case.build(), run.case.batch(0)[0])
    for budget in training.method.budgets:
        require(budget.quantity in ("macs", "params"), "check budgets on macs or params: they are measured here")
        whole, now = run.figures[0][budget.quantity], run.cost()[budget.quantity]
        limit = budget.limit(whole)
        require(now <= limit, f"{budget} allows {limit}, the model has {now}")
        if about.budget == "stops_below":
            require(run.figures[-2][budget.quantity] > limit, f"{budget} was met before the last cut")
        elif limit - now > whole / 100 and len(training.method.budgets) == 1:
            final = training.method.plan()
            require(final is not None, "there is no plan")
            wider = _one_unit_more(CostModel(dense), budget.quantity, final)
            fits = [group for group, cost in wider.items() if cost <= limit]
            require(not fits, f"{budget} allows {limit}, the model has {now}, and one unit more of {fits} would fit")


def _one_unit_more(cost: CostModel, quantity: str, final: Plan) -> dict[str, int]:
    """Return what the network would cost with one more unit of each group that has lost some."""
    kept = np.array([len(group.kept) for group in final.groups], dtype=np.int64)
    found: dict[str, int] = {}
    for number, group in enumerate(final.groups):
        if len(group.kept) < group.total:
            wider = kept.copy()
            wider[number] += 1
            found[group.name] = cost.of(quantity, wider)
    return found
