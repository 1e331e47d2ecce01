"""Label tensors and the store that unites labels: who goes together, and what must stay.

A label tensor has the shape of an activation and holds, for each element, the id of the channel it came from. Where an
activation is constant along a dimension the label tensor has stride 0 there, so that most hold only C numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

NONE = 0
"""The label of a constant: it unites with nothing and keeps nothing."""


@dataclass(frozen=True)
class Boundary:
    """Why channels stay.

    Attributes:
        operator: name of the operator they reach, for instance ``aten::softmax``.
        path: path of the module during whose forward it ran (empty for the model itself).
        reason: what about it keeps them.
        source: where the model's code makes the call: ``nets/block.py:41``; empty where that is not known.
    """

    operator: str
    path: str
    reason: str
    source: str = ""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source and self.source not in self.reason else ""
        return f"{self.path or '(model)'} : {self.operator}: {self.reason}{where}"


class LabelStore:
    """Issues labels, unites them, and notes which must stay.

    Uniting only notes pairs; ``components`` resolves all of them at once.
    """

    def __init__(self) -> None:
        self._count = NONE + 1
        self._pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self.kept: list[tuple[NDArray[np.int64], Boundary]] = []

    def fresh(self, count: int) -> Tensor:
        """Return ``count`` new labels, shape ``(count,)``."""
        self._count += count
        return torch.arange(self._count - count, self._count)

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Unite two label tensors of one shape, element by element; ``NONE`` unites with nothing."""
        a, b = first.reshape(-1).numpy(), second.reshape(-1).numpy()
        real = (a != b) & (a != NONE) & (b != NONE)
        if real.any():
            self._pairs.append((a[real], b[real]))

    def keep(self, labels: Tensor, boundary: Boundary) -> None:
        """Note that the channels behind ``labels`` stay."""
        found = np.unique(core(labels).reshape(-1).numpy())
        found = found[found != NONE]
        if len(found):
            self.kept.append((found, boundary))

    def components(self) -> NDArray[np.int64]:
        """Return, for each label, the number of the component it belongs to; shape ``(labels,)``."""
        if self._pairs:
            first = np.concatenate([a for a, _ in self._pairs])
            second = np.concatenate([b for _, b in self._pairs])
        else:
            first = second = np.empty(0, dtype=np.int64)
        edges = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(self._count, self._count))
        return connected_components(edges, directed=False)[1].astype(np.int64)


def varies(labels: Tensor, dimension: int) -> bool:
    """Whether labels (as ``compact`` leaves them) differ along a dimension."""
    return labels.size(dimension) > 1 and labels.stride(dimension) != 0


def varying_dimensions(labels: Tensor) -> list[int]:
    """Return the dimensions along which labels differ."""
    sizes = zip(labels.shape, labels.stride(), strict=True)
    return [dimension for dimension, (size, stride) in enumerate(sizes) if size > 1 and stride]


def core(labels: Tensor) -> Tensor:
    """Return labels with every dimension along which they are constant narrowed to size 1."""
    strides = labels.stride()
    if 0 not in strides:
        return labels
    sizes = [size if stride else min(size, 1) for size, stride in zip(labels.shape, strides, strict=True)]
    return labels.as_strided(sizes, strides)


def compact(labels: Tensor) -> Tensor:
    """Return labels with stride 0 along every dimension they are constant along."""
    narrowed = labels
    for dimension in range(labels.dim()):
        if narrowed.size(dimension) > 1:
            first = narrowed.narrow(dimension, 0, 1)
            if narrowed.stride(dimension) == 0 or bool((narrowed == first).all()):
                narrowed = first
    return narrowed.expand(labels.shape)


def spread(vector: Tensor, dimension: int, shape: torch.Size) -> Tensor:
    """Return labels of ``shape`` that vary along one dimension only: ``vector``, shape ``(shape[dimension],)``."""
    sizes = [1] * len(shape)
    sizes[dimension] = len(vector)
    return vector.view(sizes).expand(shape)


def unlike_previous(lengths: NDArray[np.int64], entries: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of several lists differ from the one before; the first does.

    Args:
        lengths: the length of each list.
        entries: the entries of all lists, one list after the other.
    """
    unlike = np.diff(lengths, prepend=-1) != 0
    owner = np.repeat(np.arange(len(lengths)), lengths)
    before = np.maximum(np.arange(len(entries)) - lengths[owner], 0)
    unlike[owner[entries != entries[before]]] = True
    return unlike
