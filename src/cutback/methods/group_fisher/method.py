"""The schedule of Group Fisher pruning: accumulate, remove, cut, until the budget is met."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, BudgetUnreachable, InvalidScore, UserMistake
from cutback.gates import Gates
from cutback.graph.graph import Graph, Group
from cutback.methods.about import About, methods
from cutback.methods.checking import check_finds_widths, check_known, check_whole, patterns_in
from cutback.methods.group_fisher.importance import Accumulator
from cutback.methods.group_fisher.units import whole_groups, with_whole_groups
from cutback.methods.method import Method
from cutback.methods.removals import Removal, Removals, cheapest, saving_choices
from cutback.planning.allocation import Task
from cutback.planning.assemble import plan_for
from cutback.planning.budget import Budget
from cutback.planning.choices import choices_of
from cutback.planning.cost import CostModel
from cutback.planning.limits import Limits
from cutback.planning.quantity import Quantity, quantities
from cutback.planning.search import require_reachable
from cutback.scores.data import device_of

Normaliser = Literal["memory", "macs", "none"]
Importance = Literal["fisher", "gradient"]


@methods.register("group-fisher")
class GroupFisher(Method):
    """Every few steps the unit of least Fisher information for what it saves goes, while training goes on.

    Masks, all ones, stand at the inputs of every layer; channels that go together share one. Each sample's derivative
    by a mask is summed over positions, calls and coupled layers, squared, and summed over samples and steps. After
    every ``interval`` steps the units with the lowest such sum for what they save are masked and the sums begin anew.
    Masked units are cut out of the model every ``cut_every`` removals and at the end, so that training gets faster.

    A unit of a grouped convolution is one whole group: the model is traced again where it was traced otherwise, and
    ``graph`` is that graph. Units that are read where no mask can stand, or by no layer, stay. The loss should average
    over the batch.

    Args:
        graph: the traced model.
        budget: what the result may cost; removal stops at the first unit with which it is met. A share of each layer's
            channels is no such budget: how many go where is what the method finds.
        optimizers: see ``Method``.
        copies: see ``Method``.
        interval: optimizer steps between two removals; the paper takes 25 for classification, 10 for detection.
        removed: units that go at each.
        normalise: what importance is divided by: activation ``memory`` (elements of the outputs of convolutions) or
            ``macs`` that the unit saves with the widths at hand, or ``none``.
        importance: ``fisher``, or the magnitude of the first-order ``gradient``, which the paper compares with.
        internal_only: only units that a single layer reads may go, which the paper compares with.
        cut_every: units that are masked before they are cut out.
        ignore: patterns of modules whose outputs stay whole, as for ``cutback.plan``, separated by commas.

    Raises:
        UserMistake: a setting is out of range, or no budget is given.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> with GroupFisher(graph, budget="macs=50%", optimizers=optimizer, interval=2) as method:
        ...     while not method.finished:
        ...         optimizer.zero_grad()
        ...         net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        ...         method.after_backward()
        ...         method.before_step()
        ...         optimizer.step()
        ...         cut = method.after_step()
        >>> net[0].out_channels
        4
    """

    about: ClassVar[About] = About(
        title="Group Fisher Pruning for Practical Network Compression",
        authors="Liu et al.",
        year=2021,
        where="ICML 2021, arXiv 2108.00708",
        budget="stops_below",
    )

    def __init__(  # noqa: PLR0913 (settings)
        self,
        graph: Graph,
        *,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        interval: int = 25,
        removed: int = 1,
        normalise: Normaliser = "memory",
        importance: Importance = "fisher",
        internal_only: bool = False,
        cut_every: int = 32,
        ignore: str = "",
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        if not self.budgets:
            raise UserMistake("group-fisher removes units until a budget is met; give one, for example macs=50%")
        check_finds_widths("group-fisher", self.budgets)
        check_whole("group-fisher", {"interval": (interval, 1), "removed": (removed, 1), "cut_every": (cut_every, 1)})
        check_known("group-fisher", {"normalise": (normalise, Normaliser), "importance": (importance, Importance)})
        self.graph = with_whole_groups(self.graph)
        self.interval, self.removed, self.cut_every = interval, removed, cut_every
        self.normalise, self.importance, self.internal_only = normalise, importance, internal_only
        self.ignore = patterns_in(ignore)
        self._limits: dict[str, int] = {}
        self._steps = self._waiting = 0
        self._finished = False
        self._resumed: Mapping[str, Any] | None = None
        self._gates: Gates | None = None

    def attach(self) -> None:
        """Put masks on the inputs of all layers.

        Raises:
            BudgetUnreachable: no units whose removal saves anything are enough to meet the budget.
            InvalidBudget: the budget asks for nothing, or bounds what cannot be counted.
        """
        if self._finished:
            return
        if not self._limits:
            cost = CostModel(self.graph)
            self._limits = {b.quantity: b.limit(b.measured(self.graph, cost).dense) for b in self.budgets}
        self._begin()
        if self._resumed is not None:
            self._resume(self._resumed)
            self._resumed = None

    def detach(self) -> None:
        """Take the masks out."""
        if self._gates is not None:
            self._gates.__exit__(None, None, None)
            self._gates = None

    def after_backward(self) -> None:
        """Add what this micro-batch says about each unit."""
        if self._gates is not None:
            self._sums.add(self._gates.take())

    def before_step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Take the scale of mixed precision out of what the step's micro-batches have said."""
        if self._gates is not None:
            self._sums.settle(scaler.get_scale() if scaler is not None and scaler.is_enabled() else None)

    def after_step(self) -> bool:
        """Remove units if it is time, and cut if enough are masked or the budget is met.

        Raises:
            InvalidScore: the gradients are not finite.
            BudgetUnreachable: there is nothing left to remove.
        """
        if self._gates is None:
            return False
        self._steps += 1
        if self._steps % self.interval:
            return False
        importances = self.importances(self._sums.take())
        gone = self._event(importances)
        self._waiting += len(gone)
        self._finished = self._removals.enough
        mixing = any(group in self._removals.at_once for removal in gone for group in removal.units)
        if self._finished or mixing or self._waiting >= self.cut_every:
            self._cut_out(importances)
            return True
        self._gates.mask(self._factors())
        return False

    @property
    def finished(self) -> bool:
        """Whether the budget is met."""
        return self._finished

    def records(self) -> dict[str, object]:
        """Return how many units are masked and not cut out yet, and what the network costs without them."""
        return {} if self._gates is None else {"masked": self._waiting, **self._removals.costs}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, the limits, and what lives and has been added up since the last removal."""
        state = {**super().state_dict(), "limits": dict(self._limits), "finished": self._finished}
        state |= {"steps": self._steps, "waiting": self._waiting}
        if self._gates is not None:
            state["alive"] = {g.name: torch.from_numpy(a.copy()) for g, a in self._by_group(self._removals.alive)}
            state["levels"] = torch.from_numpy(self._removals.levels.copy())
            state["sums"] = self._sums.total.clone()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        self._limits = {name: int(limit) for name, limit in state["limits"].items()}
        self._steps, self._waiting, self._finished = int(state["steps"]), int(state["waiting"]), bool(state["finished"])
        self._resumed = state if "alive" in state else None

    def importances(self, sums: Mapping[str, Tensor]) -> dict[int, NDArray[np.float64]]:
        """Return the importance of the units of each group that may lose some, by its number.

        Args:
            sums: what was added up for each group since the last removal, ``(units,)``.

        Raises:
            InvalidScore: it is not finite.
        """
        found = {n: sums[g.name].cpu().numpy() for n, g in enumerate(self.graph.groups) if g.name in sums}
        wrong = next((number for number, values in found.items() if not np.isfinite(values).all()), None)
        if wrong is not None:
            raise InvalidScore(
                f"the gradients at group {self.graph.groups[wrong].name} are not finite, so nothing tells which unit "
                "to remove: training has diverged; lower the learning rate"
            )
        return found

    def _begin(self) -> None:
        """Find what may be removed of the model as it is now, and put masks in."""
        whole = whole_groups(self.graph, self.ignore, internal_only=self.internal_only)
        choices, _ = choices_of(self.graph, whole, only_settled=False, share=None, limits=Limits())
        self._cost = CostModel(self.graph)
        self._measured: dict[str, Quantity] = {b.quantity: b.measured(self.graph, self._cost) for b in self.budgets}
        saving = None if self.normalise == "none" else quantities.get(self.normalise)(self.graph, self._cost)
        task = Task(self.graph, saving_choices(self.graph, choices, saving), self._measured, self._limits)
        require_reachable(task)
        self._removals = Removals(task, saving)
        gated = [self.graph.groups[number].name for number in sorted(self._removals.shrinking)]
        self._sums = Accumulator(self.graph, gated, self.importance)
        gates = Gates(self.graph, "input", groups=gated)
        gates.__enter__()
        self._gates = gates

    def _resume(self, state: Mapping[str, Any]) -> None:
        """Let live what lived when a state was saved, and take up what had been added up."""
        alive = [state["alive"].get(group.name) for group in self.graph.groups]
        fits = all(a is not None and len(a) == g.units for a, g in zip(alive, self.graph.groups, strict=True))
        fits = fits and state["levels"].shape == self._removals.levels.shape
        if not fits or state["sums"].shape != self._sums.total.shape:
            raise ArchitectureMismatch(
                "the state of group-fisher belongs to a model with other groups; load it with the model, the example "
                "inputs and the settings it was saved with"
            )
        self._removals.alive = [a.cpu().numpy().copy() for a in alive]
        self._removals.levels = state["levels"].cpu().numpy().copy()
        self._sums.total = state["sums"].to(self._sums.total.device).clone()
        if self._gates is not None:
            self._gates.mask(self._factors())

    def _event(self, importances: Mapping[int, NDArray[np.float64]]) -> list[Removal]:
        """Let the units with the least importance for what they save be dead, as long as the budget is not met."""
        gone: list[Removal] = []
        while len(gone) < self.removed and not self._removals.enough:
            candidates = self._removals.candidates(importances)
            if not candidates:
                raise BudgetUnreachable("group-fisher has nothing left to remove, and the budget is not met", {})
            gone.append(cheapest(candidates))
            self._removals.remove(gone[-1])
        return gone

    def _cut_out(self, importances: Mapping[int, NDArray[np.float64]]) -> None:
        """Cut what is dead out of the model; go on with what is left unless the budget is met."""
        lives = self._removals.alive
        kept = {group.name: np.flatnonzero(alive).tolist() for group, alive in self._by_group(lives)}
        # Where channels cannot move as chosen, others of a balance may stay instead: rather not the dead ones.
        scores = [np.where(alive, importances.get(number, 0.0), -1.0) for number, alive in enumerate(lives)]
        plan = plan_for(
            self.graph,
            kept,
            budgets=self.budgets if self._finished else (),
            cost=self._cost,
            scores=scores,
            measured=self._measured,
        )
        self.detach()
        self.cut(plan)
        self._waiting = 0
        if not self._finished:
            self._begin()

    def _factors(self) -> dict[str, Tensor]:
        """Return what the masks multiply by, for each group with dead units."""
        device = device_of(self.graph)
        groups = self._by_group(self._removals.alive)
        return {g.name: torch.from_numpy(alive).to(device, torch.float32) for g, alive in groups if not alive.all()}

    def _by_group(self, values: Iterable[NDArray[np.bool_]]) -> Iterable[tuple[Group, NDArray[np.bool_]]]:
        return zip(self.graph.groups, values, strict=True)
