"""Chance: the control every score must beat."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.scores.catalogue import About, scores


@scores.register("random")
@dataclass(frozen=True)
class Random:
    """A seeded random order: what every score must beat.

    Attributes:
        seed: the same seed gives the same scores on every machine.
    """

    about = About("Li 2016, random and largest filters", equivariant=False, coupled="one draw")

    seed: int = 0

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group."""
        generator = torch.Generator().manual_seed(self.seed)
        return {group.name: torch.rand(group.units, generator=generator) for group in graph.groups}
