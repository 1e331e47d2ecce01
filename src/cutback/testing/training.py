"""A plain training loop around a method, which can be stopped after any step and taken up again."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cutback.api import trace
from cutback.methods import Method
from cutback.planning.plan import Plan
from cutback.surgery.cut import cut_fresh
from cutback.surgery.wrappers import rewrap
from cutback.testing.case import MethodCase

MICRO_BATCHES = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a loop keeps at the end of a step.

    Attributes:
        number: how many steps were done.
        plan: the method's plan so far.
        model: state dict of the model.
        optimizer: state dict of the optimiser.
        method: state dict of the method.
        finished: whether the method had finished.
        random: torch's global random state.
    """

    number: int
    plan: Plan | None
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    method: Mapping[str, Any]
    finished: bool
    random: torch.Tensor


class Training:
    """A loop whose batches depend on the number of the step alone.

    Args:
        name: the method's.
        case: what it is tried on.
        start: where to go on from; ``None`` for the beginning.
        wrap: what is put around the network before it is traced.
        rank: number of this process among those that train together.

    Attributes:
        model: the network itself.
        wrapped: what the loop calls: the network, or what is around it.
        method: the method.
        number: how many steps are done.
    """

    def __init__(
        self,
        name: str,
        case: MethodCase,
        start: Checkpoint | None = None,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
        rank: int = 0,
    ) -> None:
        self.case, self.rank = case, rank
        self.model = case.build()
        if start is not None:
            if start.plan is not None:
                cut_fresh(self.model, start.plan)
            self.model.load_state_dict(start.model)
        self.model.train()
        self.wrapped = self.model if wrap is None else wrap(self.model)
        self.optimizer = case.optimizer(self.model)
        graph = trace(self.wrapped, case.batch(0)[0])
        self.method: Method = case.make(name, graph, self.optimizer)
        self.number = 0 if start is None else start.number
        self._start = start
        if start is not None:
            self.method.load_state_dict(copy.deepcopy(start.method))
            torch.set_rng_state(start.random)

    def run(self, until: int, noted: Callable[["Training"], None] | None = None) -> None:
        """Train with the method until it has finished, and on without it.

        Args:
            until: so many steps are done at the end.
            noted: called when the method is attached, after each step and when the method is gone.
        """
        tell = noted or (lambda _: None)
        if self.method.finished:
            self._take_up()
        else:
            with self.method:
                if self.method.plan() is not None:
                    self.wrapped = rewrap(self.wrapped)
                self._take_up()
                tell(self)
                while self.number < until and not self.method.finished:
                    self.step(self.method)
                    if not self.method.finished:
                        tell(self)
            tell(self)
        while self.number < until:
            self.step(None)
            tell(self)

    def step(self, method: Method | None) -> None:
        """Do one step of the optimiser, with its micro-batches."""
        self.optimizer.zero_grad()
        for part in range(MICRO_BATCHES):
            inputs, labels = self.case.batch(MICRO_BATCHES * self.number + part, self.rank)
            loss = cross_entropy(self.wrapped(inputs), labels)
            (loss if method is None else loss + method.penalty()).backward()
            if method is not None:
                method.after_backward()
        if method is not None:
            method.before_step()
        self.optimizer.step()
        self.number += 1
        if method is not None and method.after_step():
            self.wrapped = rewrap(self.wrapped)

    def checkpoint(self) -> Checkpoint:
        """Return all that is to be kept, independent of what follows."""
        return Checkpoint(
            self.number,
            self.method.plan(),
            copy.deepcopy(self.model.state_dict()),
            copy.deepcopy(self.optimizer.state_dict()),
            copy.deepcopy(self.method.state_dict()),
            self.method.finished,
            torch.get_rng_state(),
        )

    def _take_up(self) -> None:
        """Give the optimiser the state it had: its groups are whole once the method is attached."""
        if self._start is not None:
            self.optimizer.load_state_dict(copy.deepcopy(dict(self._start.optimizer)))
            self._start = None
