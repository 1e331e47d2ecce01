"""The schedule of AOFP: search in all layers at once while the network trains, and cut what is found to be harmless."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, CutbackError, InvalidScore, UserMistake
from cutback.gates import Gates
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.aofp.damage import Damages
from cutback.methods.aofp.layers import nothing_to_search, searchable, starts
from cutback.methods.aofp.search import Search
from cutback.methods.aofp.widths import Widths
from cutback.methods.checking import check_finds_widths, check_whole, patterns_in
from cutback.methods.method import Method
from cutback.planning.budget import Budget
from cutback.scores.data import device_of


@methods.register("aofp")
class AOFP(Method):
    """Filters that the next layer does not miss are found by random halving in all layers at once, and go.

    Beside the pass that trains, the next layer runs once more on inputs from which a random half of the searched
    filters is taken out; how much its output changes is counted to each of them. After ``half`` steps the half of
    least mean damage is picked. If the worst of them is below ``threshold`` they go, and the search begins anew;
    otherwise it goes on among them, down to a single filter. So every layer finds by itself how wide it has to be.

    Searched are convolutions whose channels one layer alone consumes: the inner ones of residual blocks, all of a plain
    network. Others keep their width.

    Args:
        graph: the traced model.
        budget: what the result may cost: the search ends with the move that meets it, which takes no more filters than
            it must. Without one the widths are what is found in ``steps``.
        optimizers: see ``Method``.
        copies: see ``Method``.
        threshold: mean damage below which filters go (the paper's theta): a share of the next layer's squared norm.
        half: steps of a half (the released code's 1,000; not below a few hundred, for the means are noisy).
        warm_up: steps before the first search begins.
        steps: without a budget, the search ends after so many.
        ignore: patterns of modules whose outputs stay whole, as for ``cutback.plan``, separated by commas.
        seed: of the random halves.

    Attributes:
        history: what was decided, in order: ``iteration``, ``layer``, ``action`` (prune, halve or restart), how many
            filters were ``searched`` and which were ``picked``, their ``worst`` mean damage (``None`` where one was
            never out), how many are ``gone``, and thereafter the layer's ``width`` and the network's ``macs`` as a
            share of the dense ones.
        scoring_macs: multiply-accumulates that the search has taken so far in this process, beside the training.

    Raises:
        UserMistake: a setting is out of range, or nothing says when to end.
        InvalidBudget: a budget asks for a share of each layer.

    Example:
        >>> import torch, cutback
        >>> layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3)]
        >>> net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> with AOFP(graph, budget="macs=50%", optimizers=optimizer, threshold=1.0, half=4, warm_up=0) as method:
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
        title="Approximated Oracle Filter Pruning for Destructive CNN Width Optimization",
        authors="Ding et al.",
        year=2019,
        where="ICML 2019, arXiv 1905.04748",
        budget="stops_below",
    )

    def __init__(
        self,
        graph: Graph,
        *,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        threshold: float = 0.01,
        half: int = 1000,
        warm_up: int = 500,
        steps: int | None = None,
        ignore: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        check_finds_widths("aofp", self.budgets)
        if not self.budgets and steps is None:
            raise UserMistake(
                "nothing says when aofp is to end; give a budget, for example macs=50%, or steps, after which the "
                "widths are what was found"
            )
        check_whole("aofp", {"half": (half, 1), "warm_up": (warm_up, 0)})
        if not (isinstance(threshold, int | float) and 0 < threshold < math.inf):
            raise UserMistake(f"threshold={threshold!r} of aofp is a share of a squared norm: write a number above 0")
        if steps is not None:
            check_whole("aofp", {"steps": (steps, 1)})
            if steps < warm_up + half:
                raise UserMistake(
                    f"{steps} steps of training end before aofp decides anything, after warm_up={warm_up} and "
                    f"half={half} steps; train longer, or lower them"
                )
        self.threshold, self.half, self.warm_up = threshold, half, warm_up
        self.steps, self.seed = steps, seed
        self.ignore = patterns_in(ignore)
        self.history: list[dict[str, Any]] = []
        self.scoring_macs = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._limits: dict[str, int] = {}
        self._searches: dict[str, Search] = {}
        self._dense = self._done = 0
        self._finished = False
        self._gates: Gates | None = None

    def attach(self) -> None:
        """Find the layers that are searched, and put in what runs beside the pass.

        Raises:
            NothingToPrune: no layer can be searched; says why.
            BudgetUnreachable: with one filter left in each of them the budget would not be met.
            InvalidBudget: the budget asks for nothing, or bounds what cannot be counted.
            ArchitectureMismatch: a state that was loaded belongs to another model.
        """
        if self._finished:
            return
        if self._searches:
            self._begin()
            return
        layers = searchable(self.graph, self.ignore)
        if not layers:
            raise nothing_to_search(self.graph, self.ignore)
        begin = starts(self.graph, list(layers), self.warm_up, self.half)
        self._searches = {layer: Search(group.units, begin[layer]) for layer, group in layers.items()}
        try:
            self._begin()
        except CutbackError:
            self._searches = {}
            raise
        self._dense = self._widths.macs
        self._next()

    def detach(self) -> None:
        """Take out what runs beside the pass."""
        if self._gates is not None:
            self._gates.__exit__(None, None, None)
            self._gates = None

    def after_step(self) -> bool:
        """Count the damage of the step, decide where a half has ended, and cut what is to go.

        Raises:
            InvalidScore: what a layer returns is not finite.
        """
        if self._gates is None:
            return False
        self.scoring_macs, self._gates.macs_beside = self.scoring_macs + self._gates.macs_beside, 0
        searching = self._searching()
        damages = self._damages.take() if searching else {}
        gone = 0
        for layer in searching:
            search = self._searches[layer]
            search.add(_finite(damages[layer], layer))
            if search.done == self.half and not self._widths.enough:
                gone += self._decide(layer, search)
        self._done += 1
        out_of_steps = not self.budgets and self.steps is not None and self._done >= self.steps
        self._finished = out_of_steps or (gone > 0 and self._widths.enough)
        if gone or self._finished:
            self.detach()
        if gone:
            self.cut(self._widths.plan())
        if self._finished:
            return bool(gone)
        if gone:
            self._begin()
        self._next()
        return bool(gone)

    @property
    def finished(self) -> bool:
        """Whether the budget is met, or without one all steps are done."""
        return self._finished

    def widths(self) -> dict[str, int]:
        """Return how many filters each layer that is searched has now, by its path: what the method finds."""
        return {layer: search.filters for layer, search in self._searches.items()}

    def records(self) -> dict[str, object]:
        """Return how much was decided and has gone, the widths, the cost of the search, and at the end the history."""
        gone = sum(int(decision["gone"]) for decision in self.history)
        found: dict[str, object] = {"decisions": len(self.history), "gone": gone, "scoring_macs": self.scoring_macs}
        found |= {f"width of {layer}": width for layer, width in self.widths().items()}
        return {**found, "history": [dict(decision) for decision in self.history]} if self._finished else found

    def state_dict(self) -> dict[str, Any]:
        """Return the searches, the filters that are out in the next step, and the random state of the search."""
        return {
            **super().state_dict(),
            "limits": dict(self._limits),
            "dense": self._dense,
            "searches": {layer: search.state_dict() for layer, search in self._searches.items()},
            "random": self._generator.get_state(),
            "done": self._done,
            "finished": self._finished,
            "history": [dict(decision) for decision in self.history],
            "scoring_macs": self.scoring_macs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        self._limits = {name: int(limit) for name, limit in state["limits"].items()}
        self._searches = {layer: Search.from_state(own) for layer, own in state["searches"].items()}
        self._generator.set_state(state["random"])
        self._done, self._finished = int(state["done"]), bool(state["finished"])
        self._dense, self.scoring_macs = int(state["dense"]), int(state["scoring_macs"])
        self.history = [dict(decision) for decision in state["history"]]

    def _begin(self) -> None:
        """Look at the model as it is now, and let layers run beside the pass as the searches ask for."""
        layers = searchable(self.graph, self.ignore)
        self._layers = {layer: layers[layer] for layer in self._searches if layer in layers}
        for layer, search in self._searches.items():
            if (self._layers[layer].units if layer in self._layers else 1) != search.filters:
                raise ArchitectureMismatch(
                    f"the state of aofp belongs to a model with {search.filters} filters in {layer}; load it with the "
                    "model, the example inputs and the settings it was saved with"
                )
        self._widths = Widths(self.graph, self.budgets, self._limits, list(self._layers.values()))
        self._limits = self._widths.limits
        self._damages = Damages(list(self._layers), device_of(self.graph))
        named = {group.name: layer for layer, group in self._layers.items()}

        def seen(group: str, whole: Tensor, without: Tensor) -> None:
            if self.graph.model.training:
                self._damages.add(named[group], whole, without)

        gates = Gates(self.graph, groups=list(named), reading=False, beside=seen)
        gates.__enter__()
        self._gates = gates
        self._take_out()

    def _searching(self) -> list[str]:
        """Return the layers that are searched in the present iteration: a single filter is left alone."""
        own = ((layer, self._searches[layer]) for layer in self._layers)
        return [layer for layer, search in own if search.start <= self._done and search.granularity]

    def _next(self) -> None:
        """Draw the filters that are out in the next step."""
        for layer in self._searching():
            self._searches[layer].draw(self._generator)
        self._take_out()

    def _take_out(self) -> None:
        """Let the layers run on inputs without the filters that are out."""
        if self._gates is not None:
            kept = {self._layers[layer].name: ~self._searches[layer].out for layer in self._searching()}
            self._gates.mask_beside({name: torch.from_numpy(stays).float() for name, stays in kept.items()})

    def _decide(self, layer: str, search: Search) -> int:
        """Decide about a half that has ended; return how many filters go."""
        decision = search.decision(self.threshold)
        gone = self._widths.take(self._layers[layer].name, decision.picked) if decision.action == "prune" else 0
        search.follow(decision, gone)
        self.history.append(
            {
                "iteration": self._done,
                "layer": layer,
                "action": decision.action,
                "searched": decision.searched,
                "picked": list(decision.picked),
                "worst": decision.worst if math.isfinite(decision.worst) else None,
                "gone": gone,
                "width": search.filters,
                "macs": self._widths.macs / self._dense,
            }
        )
        return gone


def _finite(damage: float | None, layer: str) -> float | None:
    """Refuse a damage that is not a number.

    Raises:
        InvalidScore: it is none; names the layer.
    """
    if damage is not None and not math.isfinite(damage):
        raise InvalidScore(
            f"what the layer after {layer} returns is not finite, so nothing tells which filters it needs: training "
            "has diverged; lower the learning rate"
        )
    return damage
