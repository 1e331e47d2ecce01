"""The method: an architecture learned over cycles of fresh weights, extracted, and given new weights."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, NothingToPrune, UserMistake
from cutback.gates import Gates, ungatable_groups
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.checking import check_finds_widths, check_known, check_whole, patterns_in
from cutback.methods.method import Method
from cutback.methods.subarchitecture.complexity import Complexity
from cutback.methods.subarchitecture.cycles import Cycles, controlled
from cutback.methods.subarchitecture.extraction import extracted, hard_widths, least_widths
from cutback.methods.subarchitecture.relaxation import Relaxation
from cutback.planning.budget import Budget
from cutback.planning.by_hand import settled_by_hand
from cutback.planning.cost import CostModel
from cutback.planning.plan import Plan
from cutback.planning.quantity import Quantity
from cutback.scores.data import device_of, over_ranks
from cutback.surgery.initialise import start_anew

Weights = Literal["trained", "random", "reused"]
Cost = Literal["macs", "units"]
Site = Literal["consumer", "feature", "map"]


@methods.register("subarchitecture")
class Subarchitecture(Method):
    """An architecture is learned while weights are drawn anew, and is then extracted.

    N. Colombo, Y. Gao, "Differentiable Architecture Pruning for Transfer Learning", 2021. Each unit has a number, and
    its channels are multiplied by a sigmoid of it that is nearly zero or one. Numbers and weights learn from the same
    passes; a penalty on MACs pulls the numbers down. Weights begin anew each cycle, so that no number can lean on those
    of one training.

    **The model's own weights are lost**: what it finds is an architecture. The network that it leaves has new weights,
    and is to be trained from scratch, on the same task or on another.

    Args:
        graph: the traced model.
        steps: optimiser steps of the search.
        budget: what the result may cost; the penalty follows it, and the best units for their MACs that meet it stay.
            Without one the units stay whose number ends above zero.
        optimizers: those that hold the model's parameters; they forget their state whenever weights are drawn.
        copies: averages of the model, which are cut along.
        reset: draws a model's weights in place; by default He's.
        cycles: how often weights are drawn during the search.
        strength: of the penalty (``gamma``), where it starts.
        control: how quickly the strength follows a budget (``kappa``); 0 for a constant one.
        cold: temperature of the masks (``t``).
        warm: temperature of their gradients (``T``).
        rate: learning rate of the numbers (``eta``).
        momentum: of the numbers (``mu``).
        start: where the numbers start, on average.
        scatter: standard deviation of where they start.
        floor: so large a share of each group's units stays anyway, and at least one.
        patience: the search ends early once the choice has not changed for so many cycles, after it first did; 0 for
            never.
        cost: what the penalty is on: ``macs`` or how many ``units`` stay, in shares of the whole.
        weights: ``trained`` in each cycle from new ones on. ``random``: new in each cycle and not trained.
            ``reused``: those of one training, the model's own, a control; they are kept at the end.
        site: where masks stand: the inputs of ``consumer`` layers, or behind the activation (``feature``; ``map`` for
            streams at the ends of blocks).
        ignore: patterns of modules whose outputs stay whole, as for ``cutback.plan``, separated by commas.
        seed: of the numbers and the weights.

    Raises:
        UserMistake: a setting is out of range.
        InvalidBudget: the budget is a share of each layer's channels.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> with Subarchitecture(graph, steps=4, budget="macs=50%", optimizers=optimizer, cycles=2) as method:
        ...     while not method.finished:
        ...         optimizer.zero_grad()
        ...         (net(torch.randn(4, 3, 8, 8)).square().mean() + method.penalty()).backward()
        ...         method.after_backward()
        ...         method.before_step()
        ...         optimizer.step()
        ...         cut = method.after_step()
        >>> net[0].out_channels
        4
    """

    about: ClassVar[About] = About(
        title="Differentiable Architecture Pruning for Transfer Learning",
        authors="Colombo and Gao",
        year=2021,
        where="ICML 2021 workshop, arXiv:2107.03375",
        budget="hits",
    )

    def __init__(  # noqa: PLR0913 (settings)
        self,
        graph: Graph,
        *,
        steps: int,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        reset: Callable[[nn.Module], None] | None = None,
        cycles: int = 25,
        strength: float = 0.05,
        control: float = 0.3,
        cold: float = 0.02,
        warm: float = 1.0,
        rate: float = 0.1,
        momentum: float = 0.9,
        start: float = 0.2,
        scatter: float = 0.05,
        floor: float = 0.125,
        patience: int = 5,
        cost: Cost = "macs",
        weights: Weights = "trained",
        site: Site = "consumer",
        ignore: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        check_finds_widths("subarchitecture", self.budgets)
        check_whole("subarchitecture", {"steps": (steps, 1), "cycles": (cycles, 1), "patience": (patience, 0)})
        if cycles > steps:
            raise UserMistake(f"cycles={cycles} needs at least as many steps, not steps={steps}")
        if not 0 < cold <= warm:
            raise UserMistake(f"cold={cold!r} must be above 0 and at most warm={warm!r}")
        for name, value, low, high in (
            ("strength", strength, 0, float("inf")),
            ("control", control, 0, float("inf")),
            ("rate", rate, 0, float("inf")),
            ("scatter", scatter, 0, float("inf")),
            ("momentum", momentum, 0, 1),
            ("floor", floor, 0, 1),
        ):
            if not low <= value < high:
                raise UserMistake(f"{name}={value!r} of subarchitecture must be from {low} and below {high}")
        check_known("subarchitecture", {"cost": (cost, Cost), "weights": (weights, Weights), "site": (site, Site)})
        self.floor, self.weights, self.site, self.seed = floor, weights, site, seed
        self.strength, self.control, self.patience = strength, control, patience
        self._reset, self._schedule = reset, Cycles(steps, cycles)
        ignored = settled_by_hand(graph, patterns_in(ignore), None)
        bare = ungatable_groups(graph, site)
        self._groups = [n for n, group in enumerate(graph.groups) if n not in ignored and group.name not in bare]
        self._names = [graph.groups[number].name for number in self._groups]
        self._complexity = Complexity(graph, self._groups, cost)
        count = sum(self._complexity.sizes)
        drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        theta = (start + scatter * drawn).to(device_of(graph))
        self._relaxation = Relaxation(theta, cold=cold, warm=warm, rate=rate, momentum=momentum)
        self._masks: list[Tensor] = []
        self._gradient: Tensor | None = None
        self._gates: Gates | None = None
        self._bounds: list[tuple[Quantity, int]] = []
        self._done = self._cycle = self._unchanged = 0
        self._begun = self._changed = self._finished = False

    @property
    def finished(self) -> bool:
        """Whether the architecture is extracted."""
        return self._finished

    @property
    def theta(self) -> dict[str, Tensor]:
        """The numbers of each group's units, ``(units,)``, by the group's name; empty if loaded after the cut."""
        if sum(self._complexity.sizes) != len(self._relaxation.theta):
            return {}
        return dict(zip(self._names, self._by_group(self._relaxation.theta).values(), strict=True))

    def attach(self) -> None:
        """Draw the first weights, and put the masks in.

        Raises:
            NothingToPrune: no channels could go.
            BudgetUnreachable: no permitted architecture meets the budget.
            UserMistake: some module does not know how its weights are drawn.
        """
        if self._finished:
            return
        if not self._groups:
            raise NothingToPrune(
                f"no channels of {type(self.graph.model).__name__} can be masked and go; see cutback check for what "
                "keeps them, and ignore=..."
            )
        if self.budgets:
            self._extracted()  # raises where they cannot be met
        cost = CostModel(self.graph)
        measured = [(budget, budget.measured(self.graph, cost)) for budget in self.budgets]
        self._bounds = [(quantity, budget.limit(quantity.dense)) for budget, quantity in measured]
        self._gates = Gates(self.graph, self.site, groups=self._names, reading=False).__enter__()
        if not self._begun:
            self._draw_weights()
            self._begun = True
        self._put_masks()

    def detach(self) -> None:
        """Take the masks out."""
        if self._gates is not None:
            self._gates.__exit__(None, None, None)
        self._gates = None

    def penalty(self) -> Tensor:
        """Return the price of the masks: the strength times the masked network's share of MACs (or units)."""
        if self._gates is None:
            return super().penalty()
        return self.strength * self._complexity.of(torch.cat(self._masks))

    def before_step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Take the gradient of the masks, averaged over processes; and those of weights away that are not trained."""
        if self._gates is None:
            return
        own = torch.cat([torch.zeros_like(mask) if mask.grad is None else mask.grad for mask in self._masks])
        summed = over_ranks(torch.cat([own, own.new_ones(1)]))
        gradient = summed[:-1] / summed[-1]
        if scaler is not None and scaler.is_enabled():
            gradient = gradient / scaler.get_scale()
        self._gradient = gradient if bool(gradient.isfinite().all()) else None
        if self.weights == "random":
            for parameter in parameters_by_name(self.graph.model).values():
                parameter.grad = None

    def after_step(self) -> bool:
        """Let the numbers take their step; at a cycle's end look at the architecture, and draw new weights or end.

        Raises:
            CutbackError: see ``cutback.apply_``.
        """
        if self._gates is None:
            return False
        before = self._relaxation.kept
        if self._gradient is not None:
            self._relaxation.step(self._gradient)
        self._gradient = None
        self._done += 1
        self._note(before)
        if not self._schedule.ends_after(self._done):
            self._put_masks()
            return False
        self._cycle += 1
        if self._done == self._schedule.steps or (self._changed and 0 < self.patience <= self._unchanged):
            return self._extract()
        if self.budgets and self.control:
            self.strength = controlled(self.strength, self._excess(), self.control)
        self._unchanged += 1
        self._draw_weights()
        self._put_masks()
        return False

    def records(self) -> dict[str, object]:
        """Return the strength, how many units are above zero, their share of the cost, and how many are undecided."""
        if self._finished:
            return {}
        mask, kept = self._relaxation.mask, self._relaxation.kept
        return {
            "strength": self.strength,
            "units": int(kept.sum()),
            "cost": float(self._complexity.of(kept.to(mask))),
            "undecided": int(((mask > 0.05) & (mask < 0.95)).sum()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers, the strength, and where in the search the method is."""
        return {
            **super().state_dict(),
            **self._relaxation.state_dict(),
            "strength": self.strength,
            "done": self._done,
            "cycle": self._cycle,
            "unchanged": self._unchanged,
            "changed": self._changed,
            "begun": self._begun,
            "finished": self._finished,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        if not state["finished"] and state["theta"].shape != self._relaxation.theta.shape:
            raise ArchitectureMismatch(
                f"the state of subarchitecture has {len(state['theta'])} units, the model at hand "
                f"{len(self._relaxation.theta)}; load it with the model and the settings it was saved with"
            )
        self._relaxation.load_state_dict(state)
        self.strength = float(state["strength"])
        self._done, self._cycle, self._unchanged = (int(state[name]) for name in ("done", "cycle", "unchanged"))
        self._changed, self._begun, self._finished = (bool(state[name]) for name in ("changed", "begun", "finished"))

    def _note(self, before: Tensor) -> None:
        """Note whether the choice has changed."""
        if not torch.equal(before, self._relaxation.kept):
            self._changed, self._unchanged = True, 0

    def _put_masks(self) -> None:
        """Multiply by the present masks, and gather their gradients from now on."""
        parts = self._by_group(self._relaxation.mask).values()
        self._masks = [part.clone().requires_grad_() for part in parts]
        if self._gates is not None:
            self._gates.mask(dict(zip(self._names, self._masks, strict=True)))

    def _by_group(self, values: Tensor) -> dict[int, Tensor]:
        """Return what belongs to the units of each group, by its number."""
        return dict(zip(self._groups, values.split(self._complexity.sizes), strict=True))

    def _draw_weights(self) -> None:
        """Draw new weights, unless those of one training are to be used."""
        if self.weights != "reused":
            start_anew(
                self.graph.model,
                seed=self.seed + self._cycle,
                reset=self._reset,
                optimizers=self.optimizers,
                copies=self.copies,
            )

    def _excess(self) -> float:
        """Return by which share the units above zero are over the budget that they miss most."""
        widths = np.array([group.units for group in self.graph.groups], dtype=np.int64)
        least = least_widths(self.graph, self._groups, self.floor)
        for number, width in hard_widths(self._by_group(self._relaxation.theta), least).items():
            widths[number] = width
        return max(quantity.of(widths) / limit - 1 for quantity, limit in self._bounds)

    def _extracted(self) -> Plan | None:
        """Return the plan for the numbers as they are."""
        theta = self._by_group(self._relaxation.theta)
        prices = self._by_group(self._complexity.prices(self._relaxation.mask))
        return extracted(self.graph, theta, prices, self.budgets, self.floor)

    def _extract(self) -> bool:
        """Cut the model down to the architecture that was found, and give it new weights."""
        plan = self._extracted()
        self.detach()
        if plan is None:
            warnings.warn(
                f"every unit's number ended above zero, so nothing is cut: the penalty (strength {self.strength:g}) is "
                f"too weak for {self._done} steps; raise strength or steps, or give a budget",
                stacklevel=3,
            )
        else:
            self.cut(plan)
        self._draw_weights()
        self._finished = True
        return plan is not None
