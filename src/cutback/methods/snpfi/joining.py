"""Which unit that stays a removed one belongs to: the one whose activations go with its own."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Graph
from cutback.methods.activations import products
from cutback.methods.snpfi.calibration import Calibration


def joined(correlation: NDArray[np.float64], kept: Sequence[int]) -> NDArray[np.int64]:
    """Return for each unit the place of the one it belongs to among those that stay, ``(units,)``.

    Those that stay belong to themselves, removed ones to the one that they correlate most with.

    Args:
        correlation: of all units, ``(units, units)``.
        kept: numbers of those that stay, in their order.
    """
    found = correlation[:, list(kept)].argmax(axis=1)
    found[list(kept)] = np.arange(len(kept))
    return found


def assignments(graph: Graph, kept: Mapping[str, Sequence[int]], pictures: Calibration) -> dict[str, NDArray[np.int64]]:
    """Return for each group ``joined``, given the units that stay.

    Args:
        graph: the traced model before the cut, in eval mode.
        kept: by group; those that lose none need not be there.
        pictures: the calibration pictures.
    """
    found = products(graph, list(kept), (inputs for inputs, _ in pictures.batches))
    return {name: joined(found[name].correlation, units) for name, units in kept.items()}
