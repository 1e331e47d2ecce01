"""The size of the file a cut network is saved as."""

import json

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.planning.cost import CostModel
from cutback.planning.quantity import Bytes, quantities
from cutback.planning.shapes import StateShapes

_PREFIX = 8  # bytes: how long the header is
_DIGITS = 10 ** np.arange(1, 19, dtype=np.int64)


@quantities.register("size")
class Size(Bytes):
    """Bytes of ``model.safetensors``: parameters and buffers in their types, tied ones once, and the header."""

    example = "size=5MB"

    def __init__(self, graph: Graph, cost: CostModel) -> None:
        super().__init__(graph, cost)
        held: dict[int, tuple[str, Tensor]] = {}
        for name, value in graph.model.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor):
                held.setdefault(id(value), (name, value))
        tensors = dict(held.values())
        # The library itself says in which order it writes the tensors, and what it writes about each.
        empty = {name: torch.empty(0, dtype=value.dtype) for name, value in tensors.items()}
        written = serialise_tensors(empty, metadata={"format": "pt"})
        header = written[_PREFIX:].rstrip(b" ")
        names = [name for name in json.loads(header) if name in tensors]
        self._shapes = StateShapes(graph, {name: tensors[name].shape for name in names})
        self._element = np.array([tensors[name].element_size() for name in names], dtype=np.int64)
        dimensions = np.array([tensors[name].dim() for name in names], dtype=np.int64)
        self._used = np.arange(max(dimensions, default=0)) < dimensions[:, None]
        # Of an empty tensor's header, "[0]" and "[0,0]" change: the sizes and where its bytes begin and end.
        self._fixed = len(header) - 3 * len(names) + int(np.maximum(dimensions - 1, 0).sum())

    def of(self, kept: NDArray[np.int64]) -> int:
        """Return the bytes, given how many units of each group stay."""
        sizes = self._shapes.of(kept)
        ends = np.cumsum(sizes.prod(axis=1) * self._element)
        total = int(ends[-1]) if len(ends) else 0
        digits = int((_digits(sizes) * self._used).sum()) + 2 * int(_digits(ends).sum()) - int(_digits(ends[-1:]).sum())
        header = self._fixed + digits + min(len(ends), 1)  # the first tensor begins at 0
        return _PREFIX + -(-header // _PREFIX) * _PREFIX + total


def _digits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many digits each number is written with."""
    return np.searchsorted(_DIGITS, numbers, side="right") + 1
