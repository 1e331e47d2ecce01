"""A small method for tests: it prunes step by step, and draws on everything that a resumed run must have right."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import cutback
from cutback.graph.clone import parameters_by_name
from cutback.methods import About, Method, methods
from cutback.planning.make import make_plan

NAME = "iterative-test"


class Iterative(Method):
    """Prune in equal portions, by squared gradients, a slow weight per layer and a little chance."""

    about = About("A method for tests", "Nobody", 2026, "tests", budget="stops_below")

    def __init__(self, graph, *, budget=None, optimizers=(), copies=(), steps: int, portions: int = 2) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        self.interval, self.portions = max(1, steps // (portions + 1)), portions
        self.dense = cutback.measure.macs(graph.model, graph.inputs)
        self.step, self.cuts = 0, 0
        self.extra: nn.Parameter | None = None
        self.squares: dict[str, Tensor] = {}
        self.loaded: Mapping[str, Tensor] | None = None

    def attach(self) -> None:
        """Train one extra parameter, as methods with compactors do."""
        self.extra = nn.Parameter(torch.ones(()) if self.loaded is None else self.loaded["extra"])
        self.optimizers[0].add_param_group({"params": [self.extra], "lr": 0.02, "weight_decay": 0.0})

    def detach(self) -> None:
        for optimizer in self.optimizers:
            groups = optimizer.param_groups
            optimizer.param_groups = [group for group in groups if not any(p is self.extra for p in group["params"])]
            optimizer.state.pop(self.extra, None)

    def penalty(self) -> Tensor:
        weights = [value for value in parameters_by_name(self.graph.model).values() if value.dim() == 4]
        return 1e-3 * self.extra.square() * sum(weight.square().sum() for weight in weights)

    def before_step(self, scaler=None) -> None:
        for name, parameter in parameters_by_name(self.graph.model).items():
            if parameter.grad is not None:
                found = parameter.grad.detach().square()
                before = self.squares.get(name)
                self.squares[name] = found if before is None else before.mul(0.9).add(found)

    def after_step(self) -> bool:
        self.step += 1
        if self.finished or self.step % self.interval:
            return False
        self.cuts += 1
        share = float(self.budgets[0].amount)
        target = int(self.dense * (1 - (1 - share) * self.cuts / self.portions))
        self.cut(make_plan(self.graph, score=self._score, budget=f"macs={target}"))
        self.squares = {}
        return True

    def _score(self, graph) -> dict[str, Tensor]:
        chance = torch.Generator().manual_seed(self.cuts)
        total = sum(value.sum() for value in self.squares.values()) * float(self.extra.detach())
        found = {}
        for group in graph.groups:
            scores = cutback.scores.L1()(graph)[group.name]
            found[group.name] = scores * (1 + 1e-3 * total) + 0.1 * torch.rand(len(scores), generator=chance)
        return found

    @property
    def finished(self) -> bool:
        return self.cuts == self.portions

    def state_dict(self) -> dict[str, Any]:
        own = {"step": self.step, "cuts": self.cuts, "dense": self.dense, "squares": dict(self.squares)}
        own["extra"] = self.extra.detach()
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.step, self.cuts, self.squares = state["step"], state["cuts"], dict(state["squares"])
        self.dense, self.loaded = state["dense"], state


def register() -> None:
    """Register the method in this process, unless it is there already."""
    if methods.find(NAME) is None:
        methods.register(NAME)(Iterative)


def unregister() -> None:
    """Take the method out again."""
    methods._entries.pop(NAME, None)
