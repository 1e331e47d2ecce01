"""Oracle pruning: each unit is taken out and put back, and those go whose absence hurts least."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import InvalidBudget
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.checking import check_whole, patterns_in
from cutback.methods.method import Method
from cutback.methods.oracle.greedy import Greedy
from cutback.methods.oracle.trying import Trials
from cutback.planning.allocations.ranked import GlobalRaw
from cutback.planning.budget import CHANNELS, Budget
from cutback.planning.by_hand import settled_by_hand
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan


@methods.register("oracle")
class OraclePruning(Method):
    """Each unit is taken out and put back, and those go whose absence raises the loss least.

    What AOFP and every other score approximate, computed exactly: the loss over all batches of ``loader`` in eval mode,
    with a unit silent wherever it is consumed, less the loss with all. Passes restart from the layer that is touched,
    with many units' silence in one. The network is cut when the method is attached, after which it has finished and the
    loop trains again.

    Args:
        graph: the traced model.
        budget: what the result may cost.
        optimizers: see ``Method``.
        copies: see ``Method``.
        loader: batches ``(inputs, labels)`` of the training split, the same ones each time.
        loss: of outputs and labels, averaged over the samples.
        greedy: after each removal, all units that are left are tried again without those that are gone; else all are
            rated once.
        removed: with ``greedy``, so many units go before all are tried again.
        absolute: rate by the size of the change; else units go first whose absence lowers the loss.
        samples: at most so many samples, each under one mask, in one pass: memory for speed.
        ignore: patterns of modules whose outputs stay whole, as for ``cutback.plan``, separated by commas.

    Attributes:
        macs: multiply-accumulates that trying has taken so far, in all processes.

    Raises:
        UserMistake: a setting is out of range, or loader or loss is missing.
        InvalidBudget: there is no budget, or one that greedy pruning cannot follow.

    Example:
        >>> import torch, cutback
        >>> layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)]
        >>> net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> loader = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 4)]
        >>> loss = torch.nn.functional.cross_entropy
        >>> with OraclePruning(graph, budget="macs=50%", loader=loader, loss=loss, greedy=True) as method:
        ...     net[0].out_channels, method.finished
        (4, True)
    """

    about: ClassVar[About] = About(
        title="Pruning Convolutional Neural Networks for Resource Efficient Inference",
        authors="Molchanov et al.",
        year=2017,
        where="ICLR 2017, arXiv 1611.06440",
        budget="hits",
        needs=("loader", "loss"),
        trained=False,
    )

    def __init__(  # noqa: PLR0913 (settings)
        self,
        graph: Graph,
        *,
        loader: Iterable[object],
        loss: Callable[..., Tensor],
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        greedy: bool = False,
        removed: int = 1,
        absolute: bool = False,
        samples: int = 256,
        ignore: str = "",
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        if not self.budgets:
            raise InvalidBudget("nothing says how many units the oracle removes; give a budget, for example macs=50%")
        if any(given.quantity == "latency" or (given.quantity == CHANNELS and greedy) for given in self.budgets):
            raise InvalidBudget(
                "oracle meets no budget that has to be measured, and with greedy=True none on the channels of each "
                "layer: how many go where is what it finds; bound a figure of the network, for example macs=50%"
            )
        check_whole("oracle", {"removed": (removed, 1), "samples": (samples, 1)})
        self.greedy, self.removed, self.absolute, self.samples = greedy, removed, absolute, samples
        self.ignore = patterns_in(ignore)
        self.macs = 0
        self._loader, self._loss = loader, loss

    def attach(self) -> None:
        """Try all units, and cut.

        Raises:
            CutbackError: see ``target`` and ``cut``; the model is as it was.
        """
        if not self.finished:
            self.cut(self.target())

    def target(self) -> Plan:
        """Return the plan without the units that are missed least; the model stays as it is.

        Raises:
            NothingToPrune: every channel must stay.
            BudgetUnreachable: no permitted cut meets the budget.
            Ungatable: some unit cannot be silenced.
            UserMistake: there are no batches, something else is given as one, or the loss is no scalar.
        """
        ignored = settled_by_hand(self.graph, self.ignore, None)
        groups = [number for number in range(len(self.graph.groups)) if number not in ignored]

        @cache
        def trials() -> Trials:
            return Trials(self.graph, groups, self._loader, self._loss, absolute=self.absolute, samples=self.samples)

        def rated(graph: Graph) -> dict[str, Tensor]:
            found = {} if self.greedy else trials().rises()  # greedy pruning rates units as it goes
            return {
                group.name: torch.from_numpy(found.get(number, np.zeros(group.units)))
                for number, group in enumerate(graph.groups)
            }

        allocation = Greedy(lambda alive: trials().rises(alive), self.removed) if self.greedy else GlobalRaw()
        plan = make_plan(self.graph, score=rated, budget=self.budgets, ignore=self.ignore, allocate=allocation)
        self.macs += trials().macs
        return plan

    @property
    def finished(self) -> bool:
        """Whether the network was cut."""
        return self.plan() is not None

    def records(self) -> dict[str, object]:
        """Return the multiply-accumulates that trying has taken."""
        return {"oracle_macs": self.macs}

    def state_dict(self) -> dict[str, Any]:
        """Return the plan, and what it has cost."""
        return {**super().state_dict(), "macs": self.macs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        self.macs = int(state["macs"])
