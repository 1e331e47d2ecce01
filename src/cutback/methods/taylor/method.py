"""Taylor importance as published: score, schedule and final cut."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import InvalidBudget, Ungatable, UserMistake
from cutback.gates import Gates, stream_groups
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.checking import patterns_in
from cutback.methods.method import Method
from cutback.methods.taylor.importance import Importance
from cutback.methods.taylor.minibatch import Minibatch
from cutback.methods.taylor.momentum import forget_all_, forget_removed_
from cutback.methods.taylor.pruning import Pruning
from cutback.methods.taylor.schedule import Schedule
from cutback.methods.taylor.silence import silenced
from cutback.planning.budget import Budget
from cutback.scores.catalogue import Score, about, make_score, score_groups
from cutback.scores.data import device_of
from cutback.scores.filters import summed, weights_of
from cutback.scores.gradient import GradientScore, joined, parted, places_of

_IN_TRAINING = ("taylor", "taylor-example", "taylor-weight")
"""Scores that are read from the passes of the training loop itself."""
_QUIRK = 3
"""What the authors' code divides the scores of all gates but those of streams by."""


@methods.register("taylor")
class Taylor(Method):
    """Every few minibatches the units go whose gates the loss depends on least.

    Gates stand after each norm, and at the end of each block for streams, where one gate is shared by all blocks. The
    network trains on in between. Removed units are silent where they are consumed, until they are cut. What is
    published as "N % of the gates" is the budget ``channels=N%`` here: of all layers together.

    Args:
        graph: the traced model.
        budget: what the result may cost; the first removal that is not over it is the last, and takes no more than it
            must. Or give ``removals``.
        optimizers: those that hold the model's parameters.
        copies: averages of the model, which are cut along.
        loader: batches ``(inputs, labels)``, for scores that run the model themselves.
        loss: of outputs and labels, for the same.
        score: ``taylor``: squared derivative of each minibatch's loss by a gate. ``taylor-example``: of each sample's.
            ``taylor-weight``: by each weight of a filter, times the weight. Any other score by name is computed before
            each removal, on a copy: ``taylor-second``, and the controls ``l2`` and ``random``.
        minibatches: so many are averaged before each removal.
        units: so many units go at each removal.
        removals: how many removals there are.
        momentum: share of earlier scores in the smoothed ones.
        group_size: units of a layer go in blocks of so many, ranked by the mean of each block.
        mu: taken off a unit's score for each MAC (or millisecond) that it costs as the network is then.
        regularise: what ``mu`` multiplies: ``macs`` or ``latency``.
        cut_every: cut the network after so many removals too; 0: after the last alone.
        reverse: remove the highest first: a control.
        authors_division: divide the scores of gates that are not shared by 3, as the authors' code does.
        ignore: patterns of modules whose outputs stay whole, separated by commas.
        seed: of scores that draw at random.

    Raises:
        UserMistake: a setting is out of range, or the score needs ``loader`` and ``loss``.
        InvalidBudget: nothing says how much to remove, or both a budget and ``removals`` do.
        UnknownName: there is no such score.
    """

    about = About(
        "Importance Estimation for Neural Network Pruning",
        "Molchanov et al.",
        2019,
        "CVPR 2019, arXiv:1906.10771",
        budget="stops_below",
    )

    def __init__(  # noqa: PLR0913 (one a setting)
        self,
        graph: Graph,
        *,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        loader: Iterable[object] | None = None,
        loss: Callable[..., Tensor] | None = None,
        score: str = "taylor",
        minibatches: int = 30,
        units: int = 100,
        removals: int | None = None,
        momentum: float = 0.9,
        group_size: int = 1,
        mu: float = 0.0,
        regularise: str = "macs",
        cut_every: int = 0,
        reverse: bool = False,
        authors_division: bool = False,
        ignore: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        if bool(self.budgets) == (removals is not None):
            raise InvalidBudget(
                "say how much to remove in one way: a budget, such as budget='macs=50%', or removals=... of "
                f"units={units} each"
            )
        self._schedule = Schedule(minibatches, units, removals, momentum, group_size, mu, regularise, cut_every)
        self._ignore = patterns_in(ignore or "")
        self._name, self._reverse, self._divide = score, reverse, authors_division
        self._score = None if score in _IN_TRAINING else self._made(score, loader, loss, seed)
        self._minibatch = Minibatch(each_sample=score == "taylor-example")
        self._importance = Importance(momentum)
        self._pruning: Pruning | None = None
        self._state: Mapping[str, Any] | None = None
        self._gates: Gates | None = None
        self._removals = 0
        self._finished = False

    @property
    def finished(self) -> bool:
        """Whether all removals are done, and the network is cut."""
        return self._finished

    @property
    def removed(self) -> int:
        """How many units have been removed, cut or silent."""
        return self._pruning.removed if self._pruning else int((self._state or {"removed": 0})["removed"])

    def attach(self) -> None:
        """Put the gates in.

        Raises:
            NothingToPrune: every channel must stay.
            BudgetUnreachable: no permitted cut meets the budget.
            UserMistake: more units are to go than can.
            Ungatable: a gate cannot stand at some group.
        """
        if self._finished:
            return
        state = self._state or {"limits": None, "removed": 0, "kept": []}
        before = state["removed"] - sum(int((~stays).sum()) for stays in state["kept"])
        self._pruning = Pruning(self.graph, self._schedule, self.budgets, self._ignore, state["limits"], before)
        if self._state:
            self._pruning.load_state_dict(self._state)
        self._put_in_gates()

    def detach(self) -> None:
        """Take the gates out; units that are silent but not yet cut sound again."""
        if self._gates is not None:
            self._gates.__exit__(None, None, None)
        if self._pruning is not None:
            self._state = self._pruning.state_dict()
        self._gates, self._pruning = None, None

    def after_backward(self) -> None:
        """Gather the gradients of the gates.

        Raises:
            UserMistake: the model has not run inside the ``with`` block since the last call.
        """
        if self._gates is None or self._score is not None:
            return
        read = self._gates.take()
        self._minibatch.add(torch.cat([read[name].double() for name in self._gates.groups], 1))

    def before_step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Rate the units by the minibatch; weights are those that it was run with.

        Raises:
            UserMistake: no gradient has reached the gates, or minibatches grow.
            InvalidScore: a gradient is not finite.
        """
        if self._gates is None or self._pruning is None:
            return
        if self._score is not None:
            self._importance.count += 1
            return
        found = self._minibatch.take(float(scaler.get_scale()) if scaler is not None else 1.0)
        if found is None:
            raise UserMistake("before_step() came before after_backward(); call that after each backward()")
        samples, own = found
        gated = dict(zip(self._gates.groups, own.split(self._units), strict=True))
        values = joined({group.name: own.new_zeros(group.units) for group in self.graph.groups} | gated, self.graph)
        if self._name == "taylor-weight":
            values = joined(self._by_weights(), self.graph)
        self._importance.add(samples, values / self._divisors, scaled=scaler is not None and scaler.is_enabled())

    def after_step(self) -> bool:
        """Remove units once enough minibatches have counted; cut the network when that is due."""
        if self._gates is None or self._pruning is None or self._importance.count < self._schedule.minibatches:
            return False
        with self._gates.lifted():
            scores = self._importance.closed(self._computed())
            ranked = parted(-scores if self._reverse else scores, self.graph)
            self._pruning.remove([ranked[group.name].cpu().numpy() for group in self.graph.groups])
        self._removals += 1
        forget_removed_(self.optimizers, self.graph, self._pruning.kept)
        every = self._schedule.cut_every
        if self._pruning.enough or (every and self._removals % every == 0):
            self._cut_now(self._gates, self._pruning)
            return True
        self._silence()
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        pruning = self._pruning.state_dict() if self._pruning else self._state
        own = {"importance": self._importance.state_dict(), "pruning": pruning and dict(pruning)}
        return {**super().state_dict(), **own, "removals": self._removals, "finished": self._finished}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        self._importance.load_state_dict(state["importance"], device_of(self.graph))
        self._state, self._removals = state["pruning"], int(state["removals"])
        self._finished = bool(state["finished"])

    def _made(self, name: str, loader: object, loss: Callable[..., Tensor] | None, seed: int) -> Score:
        """Return a score that runs the model itself, in train mode where it can."""
        needs = about(name.partition(":")[0]).needs
        if needs != ("weights",) and (loader is None or ("labels" in needs and loss is None)):
            raise UserMistake(
                f"score={name!r} runs the model itself; pass loader=, batches (inputs, labels), and loss=, a function "
                "of outputs and labels"
            )
        made = make_score(name, loader=_First(loader, self._schedule.minibatches), loss=loss, seed=seed)
        return replace(made, training=True) if isinstance(made, GradientScore) else made

    def _put_in_gates(self) -> None:
        """Enter gates for the present graph, and silence what is gone."""
        if self._pruning is None:
            return
        try:
            gates = Gates(
                self.graph, "stream", groups=self._pruning.gated, reading=self._score is None, masks="consumer"
            )
        except Ungatable as error:
            raise Ungatable(f"{error}; in this method, by ignore='...' with modules that make its channels") from error
        self._gates = gates.__enter__()
        units = {group.name: group.units for group in self.graph.groups}
        self._units = [units[name] for name in gates.groups]
        places = places_of(self.graph, "stream", training=True, groups=gates.groups)
        alone = {group.name for group in self.graph.groups} - stream_groups(self.graph)
        each = {name: count * (_QUIRK if self._divide and name in alone else 1) for name, count in places.items()}
        if self._name not in ("taylor", "taylor-example"):
            each = dict.fromkeys(each, 1)
        device = device_of(self.graph)
        self._divisors = joined(
            {group.name: torch.full((group.units,), each[group.name], device=device) for group in self.graph.groups},
            self.graph,
        )
        self._silence()

    def _silence(self) -> None:
        """Multiply the channels of removed units by zero where they are consumed."""
        if self._gates is None or self._pruning is None:
            return
        kind = next(p for p in parameters_by_name(self.graph.model).values() if p.is_floating_point())
        pairs = zip(self.graph.groups, self._pruning.kept, strict=True)
        self._gates.mask({g.name: torch.from_numpy(stays).to(kind) for g, stays in pairs if not stays.all()})

    def _by_weights(self) -> dict[str, Tensor]:
        """Return the sum of (gradient times weight)^2 of each unit's filters."""
        parameters = parameters_by_name(self.graph.model)
        made = {name: parameters[name] for name in weights_of(self.graph)}
        products = {name: (p.detach() * p.grad).double().square() for name, p in made.items() if p.grad is not None}
        return summed(self.graph, products, "sum")

    def _computed(self) -> Tensor | None:
        """Return the scores of one that runs the model itself, ``(units,)``; ``None`` for the others."""
        if self._score is None or self._pruning is None:
            return None
        rated = score_groups(silenced(self.graph, self._pruning.kept), self._score)
        pairs = zip(self.graph.groups, rated, strict=True)
        return joined({g.name: torch.from_numpy(own).to(device_of(self.graph)) for g, own in pairs}, self.graph)

    def _cut_now(self, gates: Gates, pruning: Pruning) -> None:
        """Cut what is silent; then end, or go on with the network that is left."""
        gates.__exit__(None, None, None)
        self._gates = None
        plan = pruning.plan()
        self.cut(plan)
        if pruning.enough:
            self._finished, self._pruning, self._state = True, None, pruning.state_dict()
            forget_all_(self.optimizers)
            return
        self._importance.follow(plan, self.graph)
        self._pruning = Pruning(self.graph, self._schedule, self.budgets, self._ignore, pruning.limits, pruning.removed)
        self._put_in_gates()


class _First:
    """The first batches of a loader, each time anew."""

    def __init__(self, loader: object, count: int) -> None:
        self._loader, self._count = loader, count

    def __iter__(self) -> Iterator[object]:
        return islice(iter(self._loader), self._count)  # type: ignore[call-overload]
