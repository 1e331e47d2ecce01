"""The schedule of ResRep: train with compactors, reset more and more of their rows, fold, cut."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from cutback.errors import UserMistake
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.checking import check_finds_widths, check_whole, patterns_in
from cutback.methods.method import Method
from cutback.methods.resrep.choosing import how_many, live_rows, next_reset, rows_in_order
from cutback.methods.resrep.conversion import Conversion, models_of
from cutback.methods.resrep.costs import Costs
from cutback.methods.resrep.insertion import Insertion
from cutback.methods.resrep.targets import targets_of
from cutback.planning.assemble import plan_for
from cutback.planning.budget import Budget
from cutback.planning.limits import limits_of

WATCHED = (1e-3, 1e-4, 1e-5)
"""The norms below which the records count rows."""


@methods.register("resrep")
class ResRep(Method):
    """Rows of inserted 1x1 convolutions fall to zero while the rest learns, and are folded away.

    Behind each convolution and batch norm whose channels a single layer reads stands a compactor, a square 1x1
    convolution that begins as the identity. Every row of it is pulled towards zero. Of the rows of the lowest norms, a
    few more each time until the budget is met, the task's gradient is reset, so that nothing holds them; all else goes
    on learning. After ``steps`` convolution, norm and compactor become one convolution and one norm, without the
    rows that have fallen below ``threshold``. Nothing needs fine-tuning.

    The learning rate should fall to zero by the last step (cosine): rows swing by about rate times strength.

    Args:
        graph: the traced model, trained already.
        steps: optimiser steps until the model is converted.
        budget: what the result may cost. A share of each layer's channels is no such budget: how many go where is what
            the method finds.
        optimizers: those that hold the model's parameters; compactors learn at the rate of the convolutions.
        copies: averages of the model; they run with the same compactors, and are folded and cut along.
        strength: of the penalty (the paper's lambda). A reset row shrinks by about ``rate * strength / (1 - momentum)``
            a step, which has to add up to well above 1.
        momentum: of the compactors.
        before_masks: steps before any row is reset, in which the penalty alone spreads the norms; ``None`` for a 36th
            of the steps, the paper's 5 of 180 epochs.
        interval: steps between two choices of the rows that are reset.
        added: so many rows more at each at most.
        min_channels: so many rows of each compactor stay.
        threshold: rows of a smaller norm go.
        coupled: compactors for channels that several layers make or read too, one for all of these (an extension).
        ignore: patterns of modules whose outputs stay whole, as for ``cutback.plan``, separated by commas.

    Raises:
        UserMistake: a setting is out of range, no budget is given, no layer can have a compactor, or no optimiser holds
            the convolutions.

    Example:
        >>> import torch, cutback
        >>> layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3)]
        >>> net = torch.nn.Sequential(*layers)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        >>> graph = cutback.trace(net, torch.zeros(2, 3, 8, 8))
        >>> method = ResRep(graph, steps=60, budget="macs=50%", optimizers=optimizer, strength=8.0, interval=1)
        >>> with method:
        ...     while not method.finished:
        ...         optimizer.param_groups[0]["lr"] *= 0.85
        ...         optimizer.zero_grad()
        ...         net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        ...         method.before_step()
        ...         optimizer.step()
        ...         cut = method.after_step()
        >>> net[0].out_channels
        4
    """

    about: ClassVar[About] = About(
        title="ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting",
        authors="Ding et al.",
        year=2021,
        where="ICCV, arXiv:2007.03260",
        budget="stops_below",
    )

    def __init__(  # noqa: PLR0913 (the paper's settings)
        self,
        graph: Graph,
        *,
        steps: int,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        strength: float = 1e-4,
        momentum: float = 0.99,
        before_masks: int | None = None,
        interval: int = 200,
        added: int = 4,
        min_channels: int = 1,
        threshold: float = 1e-5,
        coupled: bool = False,
        ignore: str = "",
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        if not self.budgets:
            raise UserMistake("resrep resets rows until a budget is met; give one, for example macs=50%")
        check_finds_widths("resrep", self.budgets)
        check_whole("resrep", {"steps": (steps, 1), "interval": (interval, 1), "added": (added, 1)})
        check_whole("resrep", {"before_masks": (before_masks or 0, 0)})
        for name, value in (("strength", strength), ("threshold", threshold), ("1 - momentum", 1 - momentum)):
            if not 0 < value < np.inf:
                raise UserMistake(f"{name} of resrep is {value!r}; it must be a number above zero")
        self.steps, self.interval, self.added = steps, interval, added
        self.before_masks = steps // 36 if before_masks is None else before_masks
        self.strength, self.momentum, self.threshold, self.coupled = strength, momentum, threshold, coupled
        self.limits = limits_of(1, min_channels, None)
        self.ignore = patterns_in(ignore)
        self._step = 0
        self._finished = False
        self._change = 0.0
        self._resumed: Mapping[str, Any] | None = None
        self._insertion: Insertion | None = None

    def attach(self) -> None:
        """Put compactors behind the batch norms.

        Raises:
            BudgetUnreachable: the budget is out of reach even with the fewest rows of each compactor.
            InvalidBudget: the budget asks for nothing, or bounds what cannot be counted.
            UserMistake: no layer can have a compactor, or no optimiser holds the convolutions.
        """
        if self._finished:
            return
        if self._insertion is None:
            self._insertion = self._made()
        if self._resumed is not None:
            self._insertion.load(self._resumed)
            self._resumed = None
        self._insertion.put(*models_of(self.graph, self.copies))

    def detach(self) -> None:
        """Take the compactors out. ``state_dict`` still has them: left early, the model lacks what they do."""
        if self._insertion is not None:
            self._insertion.take_out()

    def before_step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Reset the gradients of the compactors, and add the penalty's."""
        if self._insertion is not None and self._insertion.inside:
            self._insertion.optimizer.prepare(scaler)

    def after_step(self) -> bool:
        """Step the compactors; choose which rows are reset if it is time, and convert at the end.

        Raises:
            InvalidScore: the norms are not finite.
            NotEquivalent: the folded model does not compute what it did with compactors; it is as it was before.
        """
        held = self._insertion
        if held is None or not held.inside:
            return False
        held.optimizer.step()
        self._step += 1
        if self._step >= self.steps:
            self._convert(held)
        elif self._step > self.before_masks and self._step % self.interval == 0:
            least = self.limits.min_channels
            chosen = next_reset(held.norms, held.live, self._costs.meet, least=least, added=self.added)
            held.reset(live_rows(chosen, held.sizes))
        return self._finished

    @property
    def finished(self) -> bool:
        """Whether the model is converted."""
        return self._finished

    def records(self) -> dict[str, object]:
        """Return widths and costs, by what is reset and by the rows whose norm reaches a few small bounds.

        In a run that goes well the costs by norm meet those by what is reset. In the end: by how much converting has
        changed the outputs on the example inputs, as a share of the largest.
        """
        if self._finished:
            return {"change": self._change}
        held = self._insertion
        if held is None or not held.inside:
            return {}
        norms, live = held.norms, [int(own.sum()) for own in held.live]
        found: dict[str, object] = {"reset": sum(held.sizes) - sum(live), **self._costs.of(live)}
        found |= {f"width of {target.name}": width for target, width in zip(held.targets, live, strict=True)}
        for bound in WATCHED:
            wide = [max(int((own >= bound).sum()), self.limits.min_channels) for own in norms]
            found |= {f"{name} by norms from {bound:g}": cost for name, cost in self._costs.of(wide).items()}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and compactors with their momentum and what they vary by."""
        state = {**super().state_dict(), "step": self._step, "finished": self._finished}
        state["change"] = self._change
        return state if self._insertion is None else {**state, **self._insertion.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        self._step, self._finished = int(state["step"]), bool(state["finished"])
        self._change = float(state["change"])
        self._resumed = state if "compactors" in state else None

    def _made(self) -> Insertion:
        """Find where compactors stand, and make them."""
        targets, others = targets_of(self.graph, coupled=self.coupled, ignore=self.ignore)
        if not targets:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(others.items())[:4]) or "nothing can be pruned"
            kind = type(self.graph.model).__name__
            raise UserMistake(f"resrep finds no channels of {kind} for compactors ({reasons})")
        self._costs = Costs(self.graph, self.budgets, targets, self.limits)
        times = max((self.steps - 1) // self.interval - self.before_masks // self.interval, 0)
        needed = self._costs.rows_of_equal_shares()
        if times * self.added < needed:
            warnings.warn(
                f"in {self.steps} steps resrep resets at most {times * self.added} rows ({self.added} more every "
                f"{self.interval} steps from step {self.before_masks} on), and equal shares of all layers would take "
                f"{needed} to meet {', '.join(map(str, self.budgets))}: raise added, lower interval, or train longer",
                stacklevel=4,
            )
        return Insertion(self.graph, targets, self.optimizers, momentum=self.momentum, strength=self.strength)

    def _convert(self, held: Insertion) -> None:
        """Fold the compactors into the model and its copies, and cut out the rows that are gone."""
        norms = held.norms
        order = rows_in_order(norms, self.limits.min_channels)
        decayed = sum(bool(norms[number][row] < self.threshold) for number, row in order)
        gone = order[: max(decayed, how_many(order, held.sizes, self._costs.meet))]
        notes: list[str] = []
        if len(gone) > decayed:
            number, row = gone[-1]
            notes.append(
                f"{len(gone) - decayed} of the {len(gone)} rows that went had not fallen below {self.threshold:g} (the "
                f"largest was {norms[number][row]:.2g}), but the budget asked for them: raise strength, train longer, "
                "or let the learning rate end at zero"
            )
            warnings.warn(notes[0], stacklevel=4)
        stays = dict(zip(held.targets, live_rows(gone, held.sizes), strict=True))
        plan = plan_for(
            self.graph,
            {target.name: np.flatnonzero(own).tolist() for target, own in stays.items()},
            budgets=self.budgets,
            cost=self._costs.model,
            measured=self._costs.measured,
            notes=notes,
        )
        conversion = Conversion(self.graph, models_of(self.graph, self.copies), held.mixed, stays)
        self._change = conversion.carry_out(plan, take_out=self.detach, cut=self.cut)
        conversion.forget_(self.optimizers)
        self._insertion, self._finished = None, True
