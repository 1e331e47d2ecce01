"""All compactors of a network: where they stand, what they learn, and what of them has to be kept."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, InvalidScore
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.methods.resrep.compactor import Compactor
from cutback.methods.resrep.folding import Mixed
from cutback.methods.resrep.optimizer import CompactorOptimizer
from cutback.methods.resrep.site import Site, Working, first_variance
from cutback.methods.resrep.targets import Target


class Insertion:
    """The compactors of a network, one a target.

    Args:
        graph: the traced model.
        targets: which groups get one.
        optimizers: the network's.
        momentum: of the compactors.
        strength: of the penalty.

    Attributes:
        targets: as given.
        compactors: one for each.
        optimizer: trains them.

    Raises:
        UserMistake: no optimiser holds the convolutions.
    """

    def __init__(
        self,
        graph: Graph,
        targets: Sequence[Target],
        optimizers: Sequence[Optimizer],
        *,
        momentum: float,
        strength: float,
    ) -> None:
        parameters = parameters_by_name(graph.model)
        self.targets = targets
        self.compactors = [Compactor(target.rows, parameters[f"{target.pairs[0].norm}.weight"]) for target in targets]
        self._sites = [
            Site(pair, compactor, first_variance(graph.model.get_submodule(pair.norm)))
            for target, compactor in zip(targets, self.compactors, strict=True)
            for pair in target.pairs
        ]
        like = parameters[f"{targets[0].pairs[0].convolution}.weight"]
        self.optimizer = CompactorOptimizer(self.compactors, optimizers, like, momentum=momentum, strength=strength)
        self._working: list[Working] = []

    @property
    def inside(self) -> bool:
        """Whether the compactors stand in the model."""
        return bool(self._working)

    @property
    def sizes(self) -> list[int]:
        """How many rows each compactor has."""
        return [target.rows for target in self.targets]

    @property
    def live(self) -> list[NDArray[np.bool_]]:
        """Which rows of each compactor are not reset, ``(C,)``."""
        return [compactor.live.cpu().numpy() for compactor in self.compactors]

    @property
    def norms(self) -> list[NDArray[np.float64]]:
        """The norms of the rows of each compactor, ``(C,)``.

        Raises:
            InvalidScore: they are not finite.
        """
        norms = [compactor.norms.cpu().numpy() for compactor in self.compactors]
        for target, own in zip(self.targets, norms, strict=True):
            if not np.isfinite(own).all():
                raise InvalidScore(
                    f"the compactor behind {target.pairs[0].norm} is not finite: training has diverged; lower the "
                    "learning rate"
                )
        return norms

    @property
    def mixed(self) -> list[Mixed]:
        """What is to be folded, at each place."""
        return [Mixed(site.pair, site.compactor.weight.detach(), site.variance) for site in self._sites]

    def put(self, model: nn.Module, copies: Iterable[nn.Module]) -> None:
        """Let the compactors work in the model and in its copies."""
        for number, each in enumerate((model, *copies)):
            for site in self._sites:
                self._working.append(site.put(each, follows=number == 0))

    def take_out(self) -> None:
        """Take the compactors out; they keep what they have learnt."""
        for working in reversed(self._working):
            working.stop()
        self._working = []
        self.optimizer.forget()

    def reset(self, live: Iterable[NDArray[np.bool_]]) -> None:
        """Say which rows are live from now on; all others are reset."""
        for compactor, own in zip(self.compactors, live, strict=True):
            compactor.live.copy_(torch.from_numpy(own))

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        return {
            "names": [target.name for target in self.targets],
            "compactors": self.optimizer.state(),
            "variances": [site.variance.clone() for site in self._sites],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a state.

        Raises:
            ArchitectureMismatch: it belongs to other groups.
        """
        shapes = [tuple(own["weight"].shape) for own in state["compactors"]]
        fits = state["names"] == [target.name for target in self.targets] and shapes == [(n, n) for n in self.sizes]
        if not fits or len(state["variances"]) != len(self._sites):
            raise ArchitectureMismatch(
                "the state of resrep belongs to a model with other groups; load it with the model, the example inputs "
                "and the settings it was saved with"
            )
        self.optimizer.load(state["compactors"])
        for site, variance in zip(self._sites, state["variances"], strict=True):
            site.variance.copy_(variance)
