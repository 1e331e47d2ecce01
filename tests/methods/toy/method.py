"""A method that keeps every promise, and what it would be like with one of them broken."""

from itertools import count

import torch
from torch import nn

from cutback.errors import UserMistake
from cutback.methods import About, Method
from cutback.planning.make import make_plan
from tests.helpers import chain

COUNTER = count()


def network() -> nn.Module:
    return chain((6, 8))


class Toy(Method):
    """Trains a factor of the last map, and cuts once after a few steps."""

    about = About("A toy", "Nobody et al.", 2020, "nowhere", needs=("loader",))
    defect = ""

    def __init__(self, graph, *, budget=None, optimizers=(), copies=(), loader: object, interval: int = 2) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        self.plan_ahead = make_plan(graph, budget=self.budgets)
        if not loader:
            raise UserMistake("Toy needs a loader; pass batches")
        self.interval, self.steps = interval, 0
        self.factor = nn.Parameter(torch.ones(()))
        self.handle = None

    def attach(self) -> None:
        if self.finished:
            return
        self.handle = self.graph.model[5].register_forward_hook(lambda _m, _i, output: output * self.factor)
        self.optimizers[0].add_param_group({"params": [self.factor], "weight_decay": 0.0})
        if self.defect == "draws":
            torch.rand(1)
        if self.defect == "cuts nothing":
            self.plan_ahead = None

    def detach(self) -> None:
        if self.handle is not None and self.defect != "leaves its hook":
            self.handle.remove()
        self.handle = None
        for optimizer in self.optimizers if self.defect != "leaves its group" else ():
            for group in [group for group in optimizer.param_groups if group["params"][0] is self.factor]:
                optimizer.param_groups.remove(group)
            optimizer.state.pop(self.factor, None)
        if self.defect == "leaves eval mode":
            self.graph.model.eval()

    def penalty(self) -> torch.Tensor:
        return (self.factor - 1).square()

    def after_step(self) -> bool:
        self.steps += 1
        if self.steps != self.interval:
            return False
        if self.plan_ahead is None:
            return True
        made = self.plan_ahead
        if self.defect == "over the budget":
            made = make_plan(self.graph, keep={"0": 6, "3": 7})
        if self.defect == "under the budget":
            made = make_plan(self.graph, keep={"0": 1, "3": 1})
        if self.defect == "unlike runs":
            self.graph.model[0].weight.data += next(COUNTER) / 8
        if self.defect == "behind the back":
            Method.cut(self, made)
        else:
            self.cut(made, prove=self.defect != "unproven")
        return True

    @property
    def finished(self) -> bool:
        return self.steps >= self.interval and self.defect != "never ends"

    def state_dict(self) -> dict:
        steps = 0 if self.defect == "forgets its steps" else self.steps
        factor = self.factor.detach() if self.defect == "lends its tensor" else self.factor.detach().clone()
        factor = {0: factor} if self.defect == "odd state" else factor
        return {**super().state_dict(), "steps": steps, "factor": factor}

    def load_state_dict(self, state) -> None:
        if self.defect == "takes any state":
            state = {**state, "plan": None}
        super().load_state_dict(state)
        self.steps = state["steps"]
        if self.defect != "forgets its factor":
            self.factor.data.copy_(state["factor"])
