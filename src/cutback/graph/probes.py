"""Cuts to try a model with: how many units of each group stay."""

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Graph


def probes(graph: Graph) -> list[list[NDArray[np.bool_]]]:
    """Return two cuts in which groups of one size lose different numbers of units, as far as they have enough.

    Balanced where they must be. So a width taken for another of the same size shows.
    """
    few: list[NDArray[np.bool_]] = []
    many: list[NDArray[np.bool_]] = []
    seen: dict[int, int] = {}
    for group in graph.groups:
        rank = seen[group.units] = seen.get(group.units, -1) + 1
        choices = max(group.units - 1, 1)  # a lone unit that a balance links
        few.append(np.arange(group.units) < max(group.units - 1 - rank % choices, 1))
        many.append(np.arange(group.units)[::-1] <= (group.units // 2 + rank) % choices)
    alike: dict[int, int] = {}
    for system in graph.systems:
        total = int(system.sizes.sum())
        rank = alike[total] = alike.get(total, -1) + 1
        for probe, share in ((few, 0.9 - 0.04 * (rank % 5)), (many, 0.5 - 0.05 * (rank % 4))):
            counts = system.nearest(system.sizes * share)
            for cell, count in zip(system.cells, system.sizes if counts is None else counts, strict=True):
                probe[cell.group][list(cell.units)] = np.arange(len(cell.units)) < count
    return [few, many]
