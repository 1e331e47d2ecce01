"""Comparing what two networks compute, at the channels that both have."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import NotEquivalent
from cutback.graph.labels import core, varying_dimensions
from cutback.graph.replay import KeptLabels, positions
from cutback.graph.weights import ComputedWeight

_SMALL = 1e-2
"""Values below this are compared absolutely: of a constant channel a batch norm in train mode returns rounding errors,
and whatever small values hide shows on well-conditioned ones."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where the kept channels of a reference tensor are.

    Attributes:
        dimensions: the dimensions along which its channels vary, ascending.
        index: positions in those dimensions flattened, in the order the pruned tensor has them.
        shape: sizes of those dimensions in the pruned tensor.
    """

    dimensions: tuple[int, ...]
    index: Tensor
    shape: tuple[int, ...]


def places_of(whole: Tensor | ComputedWeight, narrow: Tensor | ComputedWeight | None, kept: KeptLabels) -> list[Place]:
    """Find the kept channels of a reference tensor: one place for each layer of labels.

    Args:
        whole: its labels.
        narrow: the labels of the pruned tensor, if the second pass found them; else what stays keeps its order.
        kept: which labels stay.

    Raises:
        NotEquivalent: the pruned tensor holds channels that the reference does not have.
    """
    found: list[Place | None] = []
    if isinstance(whole, Tensor):
        found = [_place(whole, narrow if isinstance(narrow, Tensor) else None, kept)]
    elif isinstance(narrow, ComputedWeight):
        found = [_place(old.labels, new.labels, kept) for old, new in zip(whole.layers, narrow.layers, strict=True)]
    else:
        found = [_place(layer.labels, None, kept) for layer in whole.layers]
    return [place for place in found if place is not None]


def _place(whole: Tensor, narrow: Tensor | None, kept: KeptLabels) -> Place | None:
    """Find the kept channels along the dimensions of one layer of labels; ``None`` where nothing goes."""
    dimensions = tuple(varying_dimensions(whole))
    labels = core(whole)
    stays = kept.mask(labels)
    if bool(stays.all()) and narrow is None:
        return None
    if narrow is None:
        along = [stays.any([e for e in range(stays.dim()) if e != d]).nonzero().flatten() for d in dimensions]
        sizes = tuple(len(index) for index in along)
        grid = torch.arange(labels.numel()).view([labels.shape[d] for d in dimensions])
        for position, index in enumerate(along):
            grid = grid.index_select(position, index)
        return Place(dimensions, grid.flatten(), sizes)
    sizes = tuple(narrow.shape[d] for d in dimensions)
    shown = narrow[tuple(slice(None) if d in dimensions else slice(0, 1) for d in range(narrow.dim()))]
    order = positions(labels.flatten().numpy(), shown.flatten().numpy())
    if order is None:
        raise NotEquivalent("the pruned model returns channels that the original does not have; nothing was changed")
    return Place(dimensions, torch.from_numpy(order), sizes)


def kept_part(tensor: Tensor, places: Sequence[Place]) -> Tensor:
    """Return a reference tensor at its kept channels, as the pruned model has them."""
    for place in places:
        front = list(range(len(place.dimensions)))
        moved = tensor.movedim(place.dimensions, front)
        flat = moved.reshape(-1, *moved.shape[len(front) :]).index_select(0, place.index.to(tensor.device))
        tensor = flat.view(*place.shape, *flat.shape[1:]).movedim(front, place.dimensions)
    return tensor


def relative_error(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference over the largest magnitude, the latter at least 0.01.

    Infinite where shapes differ, where something is not a number (of two such values nothing can be said), and where
    infinities (masks) are not the same.
    """
    if expected.shape != found.shape:
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else float("inf")
    if expected.numel() == 0:
        return 0.0
    finite = expected.isfinite()
    if not torch.equal(finite, found.isfinite()) or not torch.equal(expected[~finite], found[~finite]):
        return float("inf")
    expected, found = expected.masked_fill(~finite, 0), found.masked_fill(~finite, 0)
    scale = float(expected.abs().max())
    return float((expected - found).abs().max()) / max(scale, _SMALL)
