"""Trying units one by one: what the loss rises by without each, others being silent already."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import Ungatable
from cutback.gates import Restarts
from cutback.graph.clone import own_tensors, state_tensors, structural_clone
from cutback.graph.graph import Graph
from cutback.scores.oracle import changes_without
from cutback.surgery.silenced import silenced_states

Values = dict[int, NDArray[np.float64]]


class Trials:
    """Tries units of a network, on a copy of its modules in which some are silent.

    Args:
        graph: the traced model, which is left as it is.
        groups: numbers of the groups whose units are tried.
        loader: batches ``(inputs, labels)``.
        loss: of outputs and labels, averaged over the samples.
        absolute: tell the size of the change.
        samples: at most so many samples, each under one mask, in one pass.

    Attributes:
        macs: the multiply-accumulates that all trials have taken so far, in all processes.

    Raises:
        Ungatable: some unit cannot be silenced; says what to leave out.
    """

    def __init__(
        self,
        graph: Graph,
        groups: Iterable[int],
        loader: Iterable[object],
        loss: Callable[..., Tensor],
        *,
        absolute: bool,
        samples: int,
    ) -> None:
        self._graph = replace(graph, model=structural_clone(graph.model), wrappers=())
        self._states = dict(state_tensors(graph.model))
        self._groups = list(groups)
        names = [graph.groups[number].name for number in self._groups]
        try:
            self._restarts = Restarts(self._graph, groups=names)
        except Ungatable as error:
            raise Ungatable(f"{error}; in this method, by ignore='...' with modules that make its channels") from error
        self._loader, self._loss, self._absolute, self._samples = loader, loss, absolute, samples
        self.macs = 0

    def rises(self, alive: Sequence[NDArray[np.bool_]] | None = None) -> Values:
        """Return by how much the loss rises without each unit alone, ``(units,)`` for the number of each group.

        Args:
            alive: for each group of the graph which units are not silent yet; by default all. Silent ones are not
                tried, nor the last one of a group: they have zero.

        Raises:
            UserMistake: there are no batches, something else is given as one, or the loss is no scalar.
        """
        groups = self._graph.groups
        lives = [np.ones(group.units, dtype=bool) for group in groups] if alive is None else list(alive)
        if alive is not None:
            own_tensors(self._graph.model, silenced_states(self._graph, self._states, lives))
        tried = {n: torch.from_numpy(np.flatnonzero(lives[n])) for n in self._groups if lives[n].sum() > 1}
        changes, macs = changes_without(
            self._restarts,
            {groups[number].name: units for number, units in tried.items()},
            self._loader,
            self._loss,
            samples=self._samples,
        )
        self.macs += macs
        found = {number: np.zeros(groups[number].units) for number in self._groups}
        for number, units in tried.items():
            values = changes[groups[number].name].cpu()
            found[number][units.numpy()] = (values.abs() if self._absolute else values).numpy()
        return found
