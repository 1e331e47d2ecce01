"""What methods read of a network on batches: how the activations of units go together, and the logits."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import UserMistake
from cutback.gates import Gates, Place
from cutback.gates.by_unit import by_unit
from cutback.graph.clone import random_state_kept, set_training
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs, tensors_in
from cutback.scores.data import over_ranks


@dataclass(frozen=True, eq=False)
class Products:
    """Mean products of the activations of a group's units with each other, over pictures and positions.

    Attributes:
        squares: ``E[A_i A_j]``, ``(units, units)``, in double precision.
        mean: ``E[A_i]``, ``(units,)``.
    """

    squares: NDArray[np.float64]
    mean: NDArray[np.float64]

    @property
    def correlation(self) -> NDArray[np.float64]:
        """Pearson's correlation, ``(units, units)``; 0 for units that are constant."""
        covariance = self.squares - np.outer(self.mean, self.mean)
        scale = np.sqrt(np.maximum(covariance.diagonal(), 0))
        sound = scale**2 > 1e-12 * np.maximum(self.squares.diagonal(), 1e-30)
        outer = np.outer(scale, scale)
        return np.where(np.outer(sound, sound), covariance / np.where(outer > 0, outer, 1), 0.0)


@contextmanager
def looked_at(graph: Graph) -> Iterator[None]:
    """Put a graph's model into eval mode for a while; random states and gradients are left alone."""
    modes = set_training(graph.model, False)
    try:
        with random_state_kept(), torch.no_grad():
            yield
    finally:
        set_training(graph.model, modes)


def products(graph: Graph, names: Sequence[str], batches: Iterable[Inputs]) -> dict[str, Products]:
    """Return how the activations of the units of groups go together where they are consumed, by all that consume them.

    Args:
        graph: the traced model, in eval mode.
        names: of the groups.
        batches: what it is run on; of several processes each has its own.
    """
    groups = {number: group for number, group in enumerate(graph.groups) if group.name in names}
    sums = {number: torch.zeros((group.units + 1,) * 2, dtype=torch.float64) for number, group in groups.items()}

    def see(place: Place, activation: Tensor) -> None:
        for number, group in groups.items():
            table = by_unit(place, activation, number, group.units) if place.has([number]) else None
            if table is not None:
                rows = torch.cat([table.double(), torch.ones_like(table[:1], dtype=torch.float64)])
                sums[number] = sums[number].to(rows.device) + rows @ rows.T

    with Gates(graph, "consumer", groups=names, reading=False, observe=see), torch.no_grad():
        for inputs in batches:
            graph.model(*inputs.positional, **inputs.keyword)
    found: dict[str, Products] = {}
    for number, group in groups.items():
        total = over_ranks(sums[number])
        means = (total / total[-1, -1].clamp(min=1)).cpu().numpy()
        found[group.name] = Products(means[:-1, :-1], means[:-1, -1])
    return found


def class_logits(outputs: object, samples: int, method: str) -> Tensor:
    """Return the logits (N, classes) among a model's outputs: the first tensor.

    Args:
        outputs: what the model returned.
        samples: how many pictures it was given.
        method: name of the method that needs them.

    Raises:
        UserMistake: the first tensor has another shape.
    """
    first = next(tensors_in(outputs), None)
    if first is None or first.dim() != 2 or first.shape[0] != samples or first.shape[1] < 2:
        shape = "no tensor" if first is None else f"shape {tuple(first.shape)}"
        raise UserMistake(
            f"the model returns {shape}, where {method} needs logits ({samples}, classes); use another method for "
            "tasks that are no classification"
        )
    return first
