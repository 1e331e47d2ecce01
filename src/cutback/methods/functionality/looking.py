"""The functions of all filters of a group, wherever it is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.methods.functionality.ascent import MORE_STEPS, SHALLOW, STEPS, Ascent, Functions, maximised
from cutback.methods.functionality.sight import Sight, places_of, sight_of
from cutback.scores.aggregation import layers_before


@dataclass(frozen=True, eq=False)
class Look:
    """What the filters of a group look for.

    Attributes:
        sights: what is seen, for each place.
        functions: pictures and objectives, for each place.
    """

    sights: Sequence[Sight]
    functions: Sequence[Functions]

    @property
    def vectors(self) -> Tensor:
        """The pictures of all places in one, of length one, ``(units, pixels)``."""
        return torch.cat([each.vectors for each in self.functions], 1) / len(self.functions) ** 0.5

    @property
    def pictures(self) -> Tensor:
        """The pictures of the last place, ``(units, C, height, width)``."""
        return self.functions[-1].pictures

    @property
    def dead(self) -> Tensor:
        """Which filters answer to nothing at any place, ``(units,)``."""
        return torch.stack([each.dead for each in self.functions]).all(0)


def looks(graph: Graph, groups: Mapping[str, Sequence[Sight] | None], how: Ascent) -> dict[str, Look]:
    """Return what the filters of groups look for.

    Args:
        graph: the traced model, in eval mode.
        groups: their names, with what they see where that is known from before.
        how: how pictures are made.
    """
    depths = depths_of(graph, list(groups))
    found: dict[str, Look] = {}
    for number, group in enumerate(graph.groups):
        if group.name not in groups:
            continue
        places = places_of(graph, group.name, "norm")
        sights = groups[group.name] or [sight_of(graph, place, number) for place in places]
        pairs = zip(places, sights, strict=True)
        functions = [maximised(graph, place, number, sight, how, depths[group.name]) for place, sight in pairs]
        found[group.name] = Look(sights, functions)
    return found


def depths_of(graph: Graph, groups: Sequence[str]) -> dict[str, int]:
    """Return how many layers come before the last layer that makes the channels of each group."""
    before = layers_before(graph)
    return {
        group.name: max(
            (before[slot.state] for slot in group.slices if slot.role in ("filter", "depthwise")), default=0
        )
        for group in graph.groups
        if group.name in groups
    }


def passes_of(graph: Graph, groups: Sequence[str], how: Ascent) -> int:
    """Return how many pictures are passed forwards and backwards to look at groups once."""
    depths = depths_of(graph, groups)
    total = 0
    for group in graph.groups:
        if group.name in groups:
            steps = how.steps if how.steps is not None else STEPS if depths[group.name] < SHALLOW else MORE_STEPS
            total += group.units * (steps + 2) * len(places_of(graph, group.name, "norm"))
    return total
