"""A model without some of its units, for scores that run it themselves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cutback.graph.clone import own_tensors, state_tensors, structural_clone
from cutback.graph.graph import Graph
from cutback.surgery.silenced import silenced_states


def silenced(graph: Graph, kept: Sequence[NDArray[np.bool_]]) -> Graph:
    """Return the graph of a copy of its model in which removed units are silent where they are consumed.

    Args:
        graph: the traced model, outside all gates.
        kept: for each group which units stay, ``(units,)``.
    """
    clone = structural_clone(graph.model)
    states = silenced_states(graph, state_tensors(clone), list(kept), lambda tensor: tensor.detach().clone())
    own_tensors(clone, states)
    return replace(graph, model=clone)
