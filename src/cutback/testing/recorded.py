"""One whole run of a method on its case, watched: what all checks look at."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from cutback import measure
from cutback.api import apply
from cutback.planning.plan import Plan
from cutback.testing.case import MethodCase
from cutback.testing.require import require
from cutback.testing.residue import same, traces_in
from cutback.testing.training import Checkpoint, Training


class Recorded:
    """One whole run of a method on its case, watched.

    Args:
        name: the method's.
        case: what it is tried on.

    Attributes:
        before: what there was in model, optimiser and process before the method was attached.
        after: what there was when it had gone.
        checkpoints: one at the end of each step, by its number; 0 is right after attaching.
        cuts: the plans it cut by.
        figures: MACs of the model before its first cut and after each one.
        aliased: whether what ``state_dict`` returned changed as the method went on.
        training: the loop at its end.
    """

    def __init__(self, name: str, case: MethodCase) -> None:
        self.name, self.case = name, case
        self.training = Training(name, case)
        self.checkpoints: dict[int, Checkpoint] = {}
        self.cuts: list[Plan] = []
        self.figures = [self.cost()]
        states: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self._watch_cuts()
        self.before = traces_in(self.training.model, self.training.optimizer)

        def noted(training: Training) -> None:
            state = training.method.state_dict()
            states.append((state, copy.deepcopy(state)))
            self.checkpoints[training.number] = training.checkpoint()

        self.training.run(case.steps, noted)
        self.after = traces_in(self.training.model, self.training.optimizer)
        self.aliased = not all(same(state, kept) for state, kept in states)

    def cost(self) -> dict[str, int]:
        """Return MACs and parameters of the network as it is."""
        inputs = self.case.batch(0)[0][:1]
        return {"macs": measure.macs(self.training.model, inputs), "params": measure.params(self.training.model)}

    def _watch_cuts(self) -> None:
        """Note each cut, and see that it does what its plan says, proven."""
        method, cut = self.training.method, self.training.method.cut

        def watched(made: Plan, *, prove: bool = True) -> None:
            require(prove, "it cuts without the proof; leave prove as it is")
            expected = apply(dataclasses.replace(method.graph, wrappers=()), made, prove=False).state_dict()
            cut(made)
            require(same(dict(self.training.model.state_dict()), dict(expected)), "a cut left other weights than kept")
            self.cuts.append(made)
            self.figures.append(self.cost())

        method.cut = watched  # type: ignore[method-assign]
