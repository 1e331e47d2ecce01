"""SNPFI: coalitions of filters tell which are of use together, how many a layer needs, and what makes up for others."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import InvalidBudget, UserMistake
from cutback.gates import mixed_groups, ungatable_groups
from cutback.graph.clone import independent_copy
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.activations import looked_at
from cutback.methods.checking import check_known, check_loader, check_whole, patterns_in
from cutback.methods.eligible import eligible, kept_whole
from cutback.methods.in_order import ByThreshold, Leaving, ranks, widths_at
from cutback.methods.method import Method
from cutback.methods.snpfi.calibration import Calibration, calibration
from cutback.methods.snpfi.elimination import Elimination, eliminated
from cutback.methods.snpfi.forecast import Forecast, forecast
from cutback.methods.snpfi.game import Arena, GroupGame
from cutback.methods.snpfi.recovery import Objective
from cutback.methods.snpfi.repair import Repair
from cutback.methods.snpfi.worth import WORTHS
from cutback.planning.at_widths import plan_at_widths
from cutback.planning.budget import Budget
from cutback.planning.limits import limits_of
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan
from cutback.surgery.following import follow_
from cutback.trials.copies import cut_copy

Worth = Literal["log-probability", "log-odds"]
Rank = Literal["magnitude", "signed"]
Evaluate = Callable[[nn.Module], float]


@methods.register("snpfi")
class SNPFI(Method):
    """Filters that no coalition misses go; each layer is as wide as its decision needs (Tang 2023).

    W. Tang et al., "Structured Network Pruning by Measuring Filter-wise Interactions", arXiv 2307.00758. The filters of
    a layer are players of a game: a coalition is worth what the network's answer is worth with only its filters there.
    One filter after the other goes, that of the least importance in sampled coalitions. How much of the layer's gain
    the filters that go last deliver together, their utilisation strength, says how narrow the layer may be; one
    threshold for all layers meets the budget. After the cut the layers behind are solved so that random coalitions
    interact as they did: in closed form, without training.

    It is finished once attached. ``forecast()`` tells before what it costs. What has been found out is in
    ``findings()``, sampled figures with their standard errors.

    Args:
        graph: the traced model, of a classification: it returns logits (N, classes).
        budget: see ``Method``; or give ``epsilon``.
        optimizers: see ``Method``.
        copies: see ``Method``; they begin anew with the recovered weights.
        loader: batches ``(inputs, labels)`` of the training split.
        evaluate: a figure of a model on the validation split; if there is one, it is told before and after the cut
            and after recovery.
        epsilon: share of each layer's gain that may be lost, for widths without a budget.
        images: calibration pictures, as many of each class as there are.
        samples: orders of filters that are drawn at each estimate; each is walked forwards and backwards.
        block: filters that go before importance is estimated anew; by default 1 of up to 32 filters, else a sixteenth.
        worth: what a coalition is worth: ``log-probability`` of the true class as published, or ``log-odds``.
        rank: importance is the mean ``magnitude`` of what a filter changes, or ``signed``: its Shapley value.
        recover: whether the layers behind are solved.
        rho: weight of pairs in what recovery minimises, see ``Objective``.
        ridge: see ``Objective``.
        triples: pairs of filters in contexts in which interactions are compared before and after recovery.
        streams: whether channels that residual blocks add to may go too.
        min_channels: so many filters of each layer stay.
        max_removed: share of a layer that may go.
        ignore: patterns of modules whose outputs stay whole, separated by commas.
        rows: pictures under coalitions in one pass.
        seed: of all draws.

    Raises:
        UserMistake: a setting is out of range, or contradicts another.
        InvalidBudget: a budget cannot be read, or there is neither budget nor epsilon.
    """

    about = About(
        title="Structured Network Pruning by Measuring Filter-wise Interactions",
        authors="Tang et al.",
        year=2023,
        where="arXiv 2307.00758",
        budget="hits",
        needs=("loader", "evaluate"),
        trained=False,
    )

    def __init__(  # noqa: PLR0913 (one argument a setting)
        self,
        graph: Graph,
        *,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        loader: Iterable[object],
        evaluate: Evaluate | None = None,
        epsilon: float | None = None,
        images: int = 256,
        samples: int = 2,
        block: int | None = None,
        worth: Worth = "log-probability",
        rank: Rank = "magnitude",
        recover: bool = True,
        rho: float = 2 / 3,
        ridge: float = 1e-6,
        triples: int = 40,
        streams: bool = False,
        min_channels: int = 2,
        max_removed: float = 0.95,
        ignore: str = "",
        rows: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        if bool(self.budgets) == (epsilon is not None):
            raise InvalidBudget(
                "give snpfi either a budget such as macs=40% or epsilon, which share of each layer's gain may be lost"
            )
        check_loader("snpfi", loader)
        whole = {"images": (images, 1), "samples": (samples, 2), "triples": (triples, 2), "rows": (rows, 1)}
        check_whole("snpfi", whole if block is None else {**whole, "block": (block, 1)})
        check_known("snpfi", {"worth": (worth, Worth), "rank": (rank, Rank)})
        if not (0 <= rho <= 1 and 0 < ridge < np.inf and 0 <= (epsilon or 0) < 1):
            raise UserMistake(
                f"rho={rho!r} must lie between 0 and 1, ridge={ridge!r} above 0, epsilon={epsilon!r} from 0 to below 1"
            )
        self.epsilon, self.images, self.samples, self.block = epsilon, images, samples, block
        self.worth, self.rank, self.triples, self.streams = worth, rank, triples, streams
        self.rows, self.seed = rows, seed
        self.objective = Objective(rho, ridge) if recover else None
        self.min_channels, self.max_removed = min_channels, max_removed
        self.ignore = patterns_in(ignore)
        self.eliminations: dict[str, Elimination] = {}
        self._loader, self._evaluate = loader, evaluate
        self._pictures: Calibration | None = None
        self._finished = False
        self._found: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether the cut was made."""
        return self._finished

    def forecast(self) -> dict[str, object]:
        """Return what playing costs at most: coalitions, passes (of one picture, part of the network) and MACs."""
        told = self.cost()
        return {"coalitions": told.coalitions, "passes": told.passes, "macs": told.macs}

    def cost(self) -> Forecast:
        """Return what playing costs at most; the loader is read for that, and the model runs once.

        Raises:
            CutbackError: no filter may be removed, or the loader or the model is none for this method.
        """
        triples = self.triples if self.objective is not None else 0
        with looked_at(self.graph):
            images = self._calibration().images
        return forecast(self.graph, self._players(), images, pairs=self.samples, block=self.block, triples=triples)

    def attach(self) -> None:
        """Play, cut and recover.

        Raises:
            CutbackError: no cut meets the budget, or a coalition cannot be tried; the model is as it was.
        """
        if self._finished:
            return
        players = self._players()
        plan = self._chosen(players)
        self._tell("dense")
        dense = None
        if self.objective is not None:
            dense = replace(self.graph, model=independent_copy(self.graph.model), wrappers=())
        self.cut(plan)
        self._finished = True
        self._tell("cut")
        if self.objective is not None and dense is not None:
            repair = Repair(dense, self.graph, plan, self._calibration(), self.objective, self.rows)
            with looked_at(dense), looked_at(self.graph):
                self._found |= repair.apply_(self.triples, self.seed)
            follow_(self.copies, self.graph.model)
            self._tell("recovered")
        self._pictures = None

    def detach(self) -> None:
        """Forget the calibration pictures."""
        self._pictures = None

    def play(self) -> dict[str, Elimination]:
        """Try coalitions of each layer, and return in which order its units go; changes nothing.

        Raises:
            CutbackError: see ``attach``.
        """
        players = self._players()
        units = {group.name: (number, group.units) for number, group in enumerate(self.graph.groups)}
        with looked_at(self.graph):
            arena = Arena(self.graph, players, self._calibration(), self.rows)
            for name in arena.order:
                number, count = units[name]
                generator = np.random.default_rng([self.seed, number])
                game = GroupGame(arena, name, count, WORTHS[self.worth])
                self.eliminations[name] = eliminated(
                    game, pairs=self.samples, block=self.block, generator=generator, signed=self.rank == "signed"
                )
        self._found |= {"images": arena.images, "passes": arena.evaluated, "groups": _told(self.eliminations)}
        return self.eliminations

    def findings(self) -> dict[str, Any]:
        """Return what has been found out: of each group importance, order and strength; figures and interactions."""
        return copy.deepcopy(self._found)

    def state_dict(self) -> dict[str, Any]:
        """Return the plan, and what has been found out."""
        return {**super().state_dict(), "finished": self._finished, "found": copy.deepcopy(self._found)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``."""
        super().load_state_dict(state)
        self._finished, self._found = bool(state["finished"]), copy.deepcopy(dict(state["found"]))

    def _players(self) -> list[str]:
        """Return the names of the groups that are played.

        Raises:
            NothingToPrune: there are none; says why.
        """
        stay = dict(ungatable_groups(self.graph, "consumer"))
        stay |= dict.fromkeys(mixed_groups(self.graph), "its channels are normalised with one another")
        return eligible(self.graph, "snpfi", ignore=self.ignore, streams=self.streams, stay=stay)

    def _chosen(self, players: Sequence[str]) -> Plan:
        """Return the plan: units by their elimination, widths by their utilisation strength."""
        leaving: dict[str, Leaving] = {}

        def score(graph: Graph) -> Mapping[str, Tensor]:
            leaving.update({name: found.leaving for name, found in self.play().items()})
            return ranks(graph, leaving)

        if self.epsilon is not None:
            score(self.graph)
            limits = limits_of(1, self.min_channels, self.max_removed)
            widths = widths_at(self.graph, leaving, self.epsilon, limits, "epsilon")
            return plan_at_widths(self.graph, widths, lambda graph: ranks(graph, leaving))
        return make_plan(
            self.graph,
            score=score,
            budget=self.budgets,
            keep=kept_whole(self.graph, players),
            min_channels=self.min_channels,
            max_removed=self.max_removed,
            allocate=ByThreshold(leaving),
        )

    def _calibration(self) -> Calibration:
        """Return the calibration pictures; the model is in eval mode."""
        if self._pictures is None:
            self._pictures = calibration(self.graph, self._loader, self.images, self.rows)
        return self._pictures

    def _tell(self, when: str) -> None:
        """Note the figure on the validation split."""
        if self._evaluate is not None:
            self._found[f"figure_{when}"] = float(self._evaluate(cut_copy(self.graph.model, None)))


def _told(eliminations: Mapping[str, Elimination]) -> dict[str, object]:
    """Return what eliminations have found, for JSON."""
    return {
        name: {
            "order": list(found.order),
            "importance": found.first.importance.mean.tolist(),
            "importance_error": found.first.importance.error.tolist(),
            "shapley": found.first.shapley.mean.tolist(),
            "shapley_error": found.first.shapley.error.tolist(),
            "marginal": found.first.marginal.mean.tolist(),
            "marginal_error": found.first.marginal.error.tolist(),
            "strength": found.strength.tolist(),
        }
        for name, found in eliminations.items()
    }
