"""Mini-batches of a split on a device: by indexing where it lies in memory, through a DataLoader elsewhere.

Everything random in them depends on seeds and places alone (see ``seeds.py``): the same batch is the same whoever asks
for it, in whatever order and in however many worker processes, so that a run that stopped goes on with the same ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cutback.errors import CutbackError, DataError
from cutback.train.data import Data
from cutback.train.seeds import derived_seed, generator_of, seeded
from cutback.train.splits import Loaded, Split

Batch = tuple[Any, Any]


def batches(split: Split, batch_size: int, device: torch.device, *, seed: int | None = None) -> Iterator[Batch]:
    """Yield batches (inputs, targets) of a split, the last one possibly smaller.

    Inputs and targets are tensors with the batch first, or what the split's ``collate`` makes of them.

    Args:
        split: a map-style dataset of (input, target).
        batch_size: items in a batch.
        device: where the tensors of the batches are put.
        seed: seed of a random order; ``None`` for the order of the split.

    Raises:
        DataError: the split failed to yield a batch.
    """
    order = torch.arange(len(split)) if seed is None else torch.randperm(len(split), generator=generator_of(seed))
    yield from _read(split, order.split(batch_size), device, (seed or 0,))


@dataclass(frozen=True, eq=False)
class Sample:
    """Batches drawn from a split, the same ones each time it is iterated.

    Attributes:
        split: a map-style dataset of (input, target).
        pictures: how many items at most, rounded up to whole batches.
        batch_size: items in a batch.
        device: where the batches are put.
        seed: seed of the draw.
    """

    split: Split
    pictures: int
    batch_size: int
    device: torch.device
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches (inputs, targets)."""
        drawn = batches(self.split, self.batch_size, self.device, seed=self.seed)
        return islice(drawn, -(-self.pictures // self.batch_size))


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The batches of each epoch of training: shuffled, augmented, and shared out over processes.

    There is no state: an epoch's number and a batch's number in it say all. Items that would make a batch too small to
    train batch norms on (fewer than two a process) are left out of their epoch.

    Attributes:
        data: the data, whose training split is read and whose augmentation is applied.
        batch_size: items in a batch, over all processes together.
        device: where the batches of this process are put.
        seed: seed of order and augmentation.
        rank: number of this process.
        ranks: number of processes; each gets an equal share of every batch.
    """

    data: Data
    batch_size: int
    device: torch.device
    seed: int
    rank: int = 0
    ranks: int = 1

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._parts(torch.arange(len(self.data.train))))

    def epoch(self, number: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield this process's share of the batches of an epoch.

        Args:
            number: of the epoch.
            start: number of the first batch, counted from 0; those before it take no time.

        Raises:
            DataError: the split failed to yield a batch.
        """
        order = torch.randperm(len(self.data.train), generator=generator_of(self.seed, number))
        parts = self._parts(order)[start:]
        shares = [part[len(part) * self.rank // self.ranks :][: len(part) // self.ranks] for part in parts]
        read = _read(self.data.train, shares, self.device, (self.seed, number))
        for place, (inputs, targets) in enumerate(read, start):
            yield self.data.augmented(inputs, generator_of(self.seed, number, place, self.rank)), targets

    def _parts(self, order: Tensor) -> list[Tensor]:
        """Return which items are in each batch, a whole number of them for each process."""
        fewest = min(2, max(1, self.batch_size // self.ranks))
        parts = [part[: len(part) // self.ranks * self.ranks] for part in order.split(self.batch_size)]
        return [part for part in parts if len(part) >= fewest * self.ranks]


def _read(split: Split, parts: Sequence[Tensor], device: torch.device, seeds: tuple[int, ...]) -> Iterator[Batch]:
    """Yield the items at each of the given indices as a batch; ``seeds`` is what the items' own randomness is of."""

    def placed(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    # A subclass may do more than look its tensors up, so only the class itself is taken apart.
    source = _indexed(split, parts) if type(split) is TensorDataset else _loaded(split, parts, device, seeds)
    for batch in source:
        inputs, targets = pytree.tree_map_only(Tensor, placed, batch)
        yield inputs, _as_classes(targets)


def _as_classes(targets: Any) -> Any:  # noqa: ANN401 (whatever a task has for targets)
    """Return integer classes (N,) as int64, which losses ask for, and other targets as they are."""
    if isinstance(targets, Tensor) and targets.dim() == 1 and targets.dtype in {torch.uint8, torch.int16, torch.int32}:
        return targets.long()
    return targets


def _indexed(split: TensorDataset, parts: Sequence[Tensor]) -> Iterator[Batch]:
    inputs, targets = split.tensors
    for part in parts:
        yield inputs[part], targets[part]


def _loaded(split: Split, parts: Sequence[Tensor], device: torch.device, seeds: tuple[int, ...]) -> Iterator[Batch]:
    how = split if isinstance(split, Loaded) else Loaded(split)
    loader = DataLoader(
        cast("Dataset[Any]", _Seeded(split, seeds)),
        batch_sampler=[part.tolist() for part in parts],
        num_workers=how.workers,
        collate_fn=how.collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # without one of its own a loader draws from the global one
    )
    try:
        for batch in loader:
            inputs, targets = batch
            yield inputs, targets
    except CutbackError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if "Original Traceback" in str(error) else str(error)
        raise DataError(
            f"reading a batch of the data failed: {type(error).__name__}: {' '.join(reason.split())}"
        ) from error


@dataclass(frozen=True, eq=False)
class _Seeded:
    """A dataset whose items, where they draw from global generators, draw the same numbers in any order."""

    split: Split
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        with seeded(derived_seed(*self.seeds, index)):
            return self.split[index]
