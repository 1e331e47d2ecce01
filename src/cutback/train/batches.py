"""Mini-batches of a split on a device: by indexing where it lies in memory, through a DataLoader elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cutback.errors import CutbackError, DataError
from cutback.train.splits import Split

Batch = tuple[Tensor, Tensor]


def batches(
    split: Split,
    batch_size: int,
    device: torch.device,
    shuffle: torch.Generator | None = None,
) -> Iterator[Batch]:
    """Yield batches (images (N, C, H, W), labels (N,)) of a split, the last one possibly smaller.

    Args:
        split: a map-style dataset of (image, label).
        batch_size: pictures in a batch.
        device: where the batches are put.
        shuffle: source of a random order; ``None`` for the order of the split.

    Raises:
        DataError: the split failed to yield a batch.
    """
    # A subclass may do more than look its tensors up, so only the class itself is taken apart.
    source = (
        _indexed(split, batch_size, shuffle) if type(split) is TensorDataset else _loaded(split, batch_size, shuffle)
    )
    for images, labels in source:
        yield images.to(device), labels.long().to(device)


@dataclass(frozen=True, eq=False)
class Sample:
    """Batches of pictures drawn from a split, the same ones each time it is iterated.

    Attributes:
        split: a map-style dataset of (image, label).
        pictures: how many at most, rounded up to whole batches.
        batch_size: pictures in a batch.
        device: where the batches are put.
        seed: seed of the draw.
    """

    split: Split
    pictures: int
    batch_size: int
    device: torch.device
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches, images (N, C, H, W) and labels (N,)."""
        shuffle = torch.Generator().manual_seed(self.seed)
        drawn = batches(self.split, self.batch_size, self.device, shuffle)
        return islice(drawn, -(-self.pictures // self.batch_size))


def _indexed(split: TensorDataset, batch_size: int, shuffle: torch.Generator | None) -> Iterator[Batch]:
    images, labels = split.tensors
    order = torch.arange(len(labels)) if shuffle is None else torch.randperm(len(labels), generator=shuffle)
    for chosen in order.split(batch_size):
        yield images[chosen], labels[chosen]


def _loaded(split: Split, batch_size: int, shuffle: torch.Generator | None) -> Iterator[Batch]:
    # Without a generator of its own a loader draws from the global one.
    generator = torch.Generator() if shuffle is None else shuffle
    loader = DataLoader(
        cast("Dataset[tuple[Tensor, Tensor]]", split), batch_size, shuffle=shuffle is not None, generator=generator
    )
    try:
        yield from ((images, torch.as_tensor(labels)) for images, labels in loader)
    except CutbackError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"reading a batch of the data failed: {type(error).__name__}: {reason}") from error


def random_shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move every picture (N, C, H, W) by up to ``pixels`` in each direction; the border gets the darkest value."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4, value=float(images.min()))
    rows, columns = torch.randint(2 * pixels + 1, (2, count, 1), generator=generator).to(images.device)
    rows = rows + torch.arange(height, device=images.device)
    columns = columns + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)
    # Three index tensors around a slice put the channels last.
    return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
