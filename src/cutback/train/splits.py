"""Splits of labelled pictures, and cutting one set into disjoint ones, the same ones for the same seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cutback.errors import DataError

HELD_OUT_DIVISOR = 5
MOST_HELD_OUT = 5000


@runtime_checkable
class Split(Protocol):
    """A map-style dataset of ``(input, target)``, such as a ``torch.utils.data.Dataset`` with a length."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        ...

    def __getitem__(self, index: int, /) -> tuple[Any, ...]:
        """Return an input, mostly an image (C, H, W), and its target, mostly an integer class."""
        ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """A split that is read item by item, and how.

    Attributes:
        source: a map-style dataset of (input, target).
        indices: which of its items, in order; ``None`` for all.
        collate: makes a batch (inputs, targets) of a list of items; ``None`` stacks tensors and numbers, dict by dict.
        workers: processes that read; 0 reads in the process that asks.
    """

    source: Split
    indices: Sequence[int] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    workers: int = 0

    def __len__(self) -> int:
        return len(self.source) if self.indices is None else len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if self.indices is None:
            return self.source[index]
        return self.source[self.indices[index]]


def cut(labels: Tensor, *, pieces: int, seed: int, name: str) -> list[Tensor]:
    """Cut a set into a training part and ``pieces - 1`` held-out parts, with every class in proportion.

    Each held-out part is a fifth of the set, at most 5,000 and at least one.

    Args:
        labels: class of each item (N,).
        pieces: number of parts, from 1 (nothing is held out) to 3.
        seed: seed of the random order.
        name: what the set is called in messages.

    Returns:
        The indices of each part, int64; together every index once.

    Raises:
        DataError: there are fewer items than parts.
    """
    count = len(labels)
    if count < pieces:
        raise DataError(f"{name!r} has {count} training pictures, too few to cut {pieces} splits from; add pictures")
    held_out = max(1, min(count // HELD_OUT_DIVISOR, MOST_HELD_OUT))
    sizes = [count - held_out * (pieces - 1)] + [held_out] * (pieces - 1)
    return list(_proportional_order(labels, seed).split(sizes))


def _proportional_order(labels: Tensor, seed: int) -> Tensor:
    """Return a random order (N,) in which every stretch holds the classes in their overall proportion.

    An item's place is its random rank within its class, relative to the size of the class.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    _, classes, sizes = labels[shuffled].unique(return_inverse=True, return_counts=True)
    by_class = classes.argsort(stable=True)
    first = sizes.cumsum(0) - sizes
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(labels)) - first[classes[by_class]]
    place = (rank + 0.5).double() / sizes[classes]
    return shuffled[place.argsort(stable=True)]


def first_halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the first half of each class, in order, and those of the rest.

    Args:
        labels: class of each item (N,).
    """
    place = torch.empty_like(labels)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        place[own] = (torch.arange(len(own)) >= len(own) // 2).to(place.dtype)
    return (place == 0).nonzero()[:, 0], (place == 1).nonzero()[:, 0]
