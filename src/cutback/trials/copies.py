"""Copies of a traced model, cut without the proof: for measuring and evaluating only."""

from torch import nn

from cutback.graph.clone import independent_copy
from cutback.planning.plan import Plan
from cutback.surgery.cut import stage_cut
from cutback.surgery.transaction import Transaction


def cut_copy(model: nn.Module, plan: Plan | None) -> nn.Module:
    """Return a copy of a model in eval mode, cut by a plan for it; whole where there is none.

    Raises:
        CutbackError: the plan does not fit, or the model cannot be copied.
    """
    copied = independent_copy(model)
    if plan is not None:
        transaction = Transaction()
        stage_cut(transaction, copied, plan)
        transaction.commit()
    return copied.eval()
