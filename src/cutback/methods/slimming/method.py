"""The method: sparse training of the scales, one global threshold, the cut, and again for further passes."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, InvalidBudget, UserMistake
from cutback.graph.architecture import hash_of
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.absorbing import absorbed
from cutback.methods.method import Method
from cutback.methods.slimming.choosing import Choice, chosen, scores_of, warn_of_emptied
from cutback.methods.slimming.histogram import histogram
from cutback.methods.slimming.masking import mask_, mask_gradients_, scales_of, silenced_places
from cutback.methods.slimming.phases import Phases
from cutback.methods.slimming.sparsity import SCHEDULES, pull, sub_gradient
from cutback.planning.budget import CHANNELS, Budget
from cutback.planning.plan import Plan
from cutback.scores.scales import BATCH_NORM, norm_scales
from cutback.surgery.initialise import start_anew

NEAR_ZERO = 0.01
"""Below this a scale counts as near zero in the records."""


@methods.register("slimming")
class Slimming(Method):
    """Trains with an L1 penalty on the scales of batch norms, and removes channels of small scale.

    Args:
        graph: the traced model, with batch norms.
        steps: optimiser steps of sparse training before the cut (of each pass).
        budget: ``channels=30%``: so many of all channels with a scale stay, by one threshold on the whole network (the
            paper's 70 %). Any other budget is met by going up the same ranking.
        optimizers: those that hold the model's parameters.
        copies: averages of the model, which are cut along.
        sparsity: the penalty's strength (the paper's lambda): 1e-4 for VGG, 1e-5 for ResNet and DenseNet at 160 epochs.
        schedule: how the strength changes during sparse training: ``constant``, ``rising`` from 0, ``falling`` to 0.
        smooth: ``alpha`` of the smooth penalty; ``None`` for the absolute value.
        initial_scale: what all scales are set to at the start; the paper's 0.5 for training from scratch, ``None`` to
            leave them.
        rule: what a budget on channels removes. ``rank``: as many of the lowest as it says. ``strict``: all that are
            not above the scale at that place of the order, as the paper's code does: one more, and all ties.
        aggregate: where several batch norms scale one channel (post-activation shortcuts, an extension): ``sum``,
            ``mean``, ``max`` or ``leader``.
        min_channels: so many channels stay in each layer.
        max_removed: at most this share of each layer's channels goes in one pass.
        absorb: move what pruned channels add by their shift into the layers behind them (an extension).
        masked_steps: further steps before the cut in which pruned channels are masked, scale and shift zero, without
            the penalty (the other variant of the paper's code).
        passes: how often all this is done, each time on what the last pass left.
        tune_steps: steps without the penalty between two passes.
        restart: draw new weights for each further pass.
        seed: of those weights.

    Raises:
        UserMistake: no scale of a batch norm ranks channels that may go, none is trained, or a setting makes no sense.
        InvalidBudget: there is no budget, or one on channels beside others.
    """

    about = About(
        title="Learning Efficient Convolutional Networks through Network Slimming",
        authors="Liu et al.",
        year=2017,
        where="ICCV, arXiv:1708.06519",
    )

    def __init__(  # noqa: PLR0913 (the paper's settings and its code's)
        self,
        graph: Graph,
        *,
        steps: int,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        sparsity: float = 1e-4,
        schedule: str = "constant",
        smooth: float | None = None,
        initial_scale: float | None = None,
        rule: str = "rank",
        aggregate: str = "sum",
        min_channels: int = 1,
        max_removed: float | None = None,
        absorb: bool = False,
        masked_steps: int = 0,
        passes: int = 1,
        tune_steps: int = 0,
        restart: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        _at_least("steps", steps, 1)
        _at_least("passes", passes, 1)
        _at_least("masked_steps", masked_steps, 0)
        _at_least("tune_steps", tune_steps, 0)
        _at_least("sparsity", sparsity, 0)
        _one_of("schedule", schedule, tuple(SCHEDULES))
        if smooth is not None and smooth <= 0:
            raise UserMistake(f"smooth={smooth} must be above zero: the penalty nears |scale| as it grows; try 100")
        self.sparsity, self.schedule, self.smooth = sparsity, schedule, smooth
        self.initial_scale, self.absorb, self.restart, self.seed = initial_scale, absorb, restart, seed
        self.phases = Phases(steps, masked_steps, tune_steps, passes)
        self._choice = Choice(rule, aggregate, min_channels, max_removed)
        if passes > 1 and [given.quantity for given in self.budgets] != [CHANNELS]:
            raise InvalidBudget(
                f"each of {passes} passes removes a share of the channels; give the share that stays after one: "
                "budget='channels=50%'"
            )
        if absorb and masked_steps:
            raise UserMistake("absorb moves the shifts that masked steps set to zero; leave out one of the two")
        scores_of(graph, aggregate)
        parameters = parameters_by_name(graph.model)
        found = [parameters[name] for name in norm_scales(graph, BATCH_NORM) if name in parameters]
        self._scales = [scale for scale in found if scale.requires_grad]
        if not self._scales:
            raise UserMistake("no scale of a batch norm is trained (requires_grad), so none can be made sparse")
        self._step = 0
        self._pulled, self._began = 0.0, 0.0
        self._pending: Plan | None = None
        self._places: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether the last pass's cut is done."""
        return self.phases.of(self._step) == "over"

    def attach(self) -> None:
        """Set the scales to where they start, and check first that the budget can be met at all."""
        if self._pending is not None:
            self._places = silenced_places(self.graph, self._pending)
        if not self._step:
            self._chosen()
            self._start()

    def before_step(self, scaler: torch.amp.GradScaler | None = None) -> None:  # noqa: ARG002 (gradients are unscaled)
        """Add the penalty's sub-gradient to the gradients of the scales; where channels are masked, clear theirs."""
        mask_gradients_(self.graph, self._places)
        if self.phases.of(self._step) != "sparse":
            return
        strength = self.sparsity * SCHEDULES[self.schedule](self.phases.done(self._step))
        with torch.no_grad():
            for scale in self._scales:
                added = strength * sub_gradient(scale, self.smooth)
                scale.grad = added if scale.grad is None else scale.grad.add_(added)
        self._pulled += self._pull_of_a_step(strength)

    def after_step(self) -> bool:
        """Go on with the schedule: choose what goes, mask it, cut, begin the next pass."""
        if self.finished:
            return False
        step, self._step = self._step, self._step + 1
        if self.phases.chooses_after(step):
            self._pending = self._chosen()
            warn_of_emptied(self._pending, scores_of(self.graph, self._choice.aggregate), self._choice.least)
            if not self.phases.cuts_after(step):
                self._places = silenced_places(self.graph, self._pending)
        mask_(self.graph, self._places)
        cut = self._pending if self.phases.cuts_after(step) else None
        if cut is not None:
            self._carry_out(cut)
        if self.phases.begins_anew_after(step):
            if self.restart:
                start_anew(self.graph.model, seed=self.seed + step, optimizers=self.optimizers, copies=self.copies)
            self._start()
        return cut is not None

    def records(self) -> dict[str, object]:
        """Return the histogram of all absolute scales, the share near zero, and how far the penalty has pulled."""
        near = torch.cat([scale.detach().abs().flatten() for scale in self._scales]) < NEAR_ZERO
        return {"scales": histogram(self._scales), "near_zero": float(near.float().mean()), "pull": self._pulled}

    def state_dict(self) -> dict[str, Any]:
        """Return where in the schedule the method is, and what is masked."""
        pending = None if self._pending is None else self._pending.to_json()
        return {
            **super().state_dict(),
            "step": self._step,
            "pulled": self._pulled,
            "began": self._began,
            "pending": pending,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``."""
        pending = None if state["pending"] is None else Plan.from_json(state["pending"])
        if pending is not None and pending.architecture != hash_of(self.graph.model):
            raise ArchitectureMismatch(
                "the channels that the state masks are those of another model than the one at hand; load the model of "
                "the same checkpoint first, trace it, and make the method from that graph"
            )
        super().load_state_dict(state)
        self._step, self._pulled, self._began = int(state["step"]), float(state["pulled"]), float(state["began"])
        self._pending = pending

    def _start(self) -> None:
        """Begin a pass."""
        with torch.no_grad():
            for scale in self._scales if self.initial_scale is not None and (not self._step or self.restart) else ():
                scale.fill_(self.initial_scale)
        self._pulled = 0.0
        self._began = float(torch.cat([scale.detach().abs().flatten() for scale in self._scales]).mean())

    def _chosen(self) -> Plan:
        """Return the plan for the scales as they are."""
        plan = chosen(self.graph, self.budgets, self._choice)
        if 0 < self._pulled < self._began:
            note = (
                f"the penalty pulled scales by at most {self._pulled:.2g}, and they began at {self._began:.2g} on "
                "average: few can be near zero; raise sparsity, or train longer"
            )
            plan = dataclasses.replace(plan, notes=(*plan.notes, note))
        return plan

    def _carry_out(self, plan: Plan) -> None:
        """Cut the model, what pruned channels still add absorbed first where that is asked for."""
        with absorbed(self.graph, plan, scales_of(self.graph, plan)) if self.absorb else nullcontext(()) as dropped:
            self.cut(plan)
        self._pending, self._places = None, {}
        if dropped:
            warnings.warn(
                f"the shifts of pruned channels that {', '.join(dropped)} read were dropped: these have neither a bias "
                "nor a batch norm of their own behind them",
                stacklevel=3,
            )

    def _pull_of_a_step(self, strength: float) -> float:
        """Return how far the penalty pulls in a step of SGD; 0 where the optimiser is another or not known."""
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            if "momentum" in group and any(parameter is self._scales[0] for parameter in group["params"]):
                return pull(strength, [float(group["lr"])], float(group["momentum"]))
        return 0.0


def _at_least(name: str, value: float, least: int) -> None:
    """Refuse a number that is too small."""
    if value < least:
        raise UserMistake(f"{name}={value} must be at least {least}")


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that means nothing."""
    if value not in known:
        raise UserMistake(f"{name}={value!r} is none of {', '.join(known)}")
