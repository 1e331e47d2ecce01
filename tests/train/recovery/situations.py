"""Networks before and after a cut, for tests of recovery."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import cutback
from cutback.planning.plan import Plan
from cutback.train.recovery import Situation
from cutback.train.task import Task, classification

NO_PLAN = Plan("", "", (), {}, {}, {})


def situation(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    *,
    dense: nn.Module | None = None,
    plan: Plan = NO_PLAN,
    task: Task | None = None,
) -> Situation:
    return Situation(dense or copy.deepcopy(model), model, plan, batches, task or classification(), torch.device("cpu"))


def after_cut(
    model: nn.Module, images: Tensor, batches: Iterable[tuple[Any, Any]], budget: str = "channels=50%"
) -> Situation:
    """Cut a copy of a model, proven, and return both."""
    small = copy.deepcopy(model)
    graph = cutback.trace(small, images)
    plan = cutback.plan(graph, budget=budget)
    cutback.apply_(graph, plan)
    return situation(small, batches, dense=copy.deepcopy(model), plan=plan)
