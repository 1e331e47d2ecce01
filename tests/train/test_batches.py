"""Batches that depend on seed and place alone: resumed, shared out, read by workers or not."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cutback.errors import DataError
from cutback.train.augmentation import Augmentation
from cutback.train.batches import Batch, Sample, TrainingBatches, batches
from cutback.train.data import Data
from cutback.train.splits import Loaded

CPU = torch.device("cpu")


class Noisy:
    """A dataset whose items draw from the global generators of three libraries."""

    def __init__(self, count: int = 21) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002
        return torch.full((1, 4, 4), index + 0.1 * noise), index


class Boxes(Noisy):
    """A dataset with targets of different sizes."""

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.zeros(3, 4, 4), {"boxes": torch.ones(index % 3, 4), "number": torch.tensor(index)}

    @staticmethod
    def collate(items: list[Any]) -> Batch:
        return torch.stack([image for image, _ in items]), [target for _, target in items]


class Broken(Noisy):
    """A dataset whose item 3 fails."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 3:
            raise ValueError("no such\npicture")
        return super().__getitem__(index)


def in_memory(count: int = 21) -> TensorDataset:
    return TensorDataset(torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(count))


def data_of(split: Any, augmentation: Augmentation | None = None) -> Data:
    made = Data("some", split, split, split, num_classes=21, input_shape=(1, 4, 4))
    return dataclasses.replace(made, augmentation=augmentation or Augmentation(shift=1, flip=True))


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) and torch.equal(s, t) for (x, s), (y, t) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("split", [in_memory(), Loaded(Noisy()), Loaded(Noisy(), workers=1)])
def test_an_epoch_resumes_anywhere_with_the_same_batches(split: Any) -> None:
    state = torch.get_rng_state(), random.getstate()
    source = TrainingBatches(data_of(split), 4, CPU, seed=3)
    whole = list(source.epoch(2))
    assert len(whole) == len(source) == 5
    torch.rand(7)
    assert equal(list(source.epoch(2, start=3)), whole[3:])
    assert equal(list(TrainingBatches(data_of(split), 4, CPU, seed=3).epoch(2)), whole)
    assert not equal(list(source.epoch(1)), whole)
    assert not equal(list(TrainingBatches(data_of(split), 4, CPU, seed=4).epoch(2)), whole)
    labels = torch.cat([labels for _, labels in whole]).tolist()
    assert len(set(labels)) == len(labels) == 20  # a last batch of one is left out
    torch.set_rng_state(state[0])
    list(source.epoch(2))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def test_workers_and_batch_sizes_do_not_change_what_a_random_dataset_gives() -> None:
    found = []
    for size, workers in ((4, 0), (4, 2), (7, 0)):
        read = list(batches(Loaded(Noisy(), workers=workers), size, CPU, seed=1))
        found.append(torch.cat([images for images, _ in read]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], torch.cat([x for x, _ in batches(Noisy(), 4, CPU, seed=2)]))


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_every_batch_out_evenly(ranks: int) -> None:
    data = data_of(in_memory(), Augmentation())
    one = list(TrainingBatches(data, 6, CPU, seed=0).epoch(1))
    shares = [list(TrainingBatches(data, 6, CPU, 0, rank, ranks).epoch(1)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    for place, (_, labels) in enumerate(one[: len(shares[0])]):
        own = [share[place][1].tolist() for share in shares]
        assert len({len(part) for part in own}) == 1
        together = [label for part in own for label in part]
        assert together == labels.tolist()[: len(together)]
        assert len(labels) - len(together) < ranks
    # 21 items in batches of 6 leave 3: one for each of three processes is too few for batch norms.
    assert len(shares[0]) == 3


def test_batches_of_one_are_allowed_where_they_are_asked_for() -> None:
    assert len(TrainingBatches(data_of(in_memory()), 1, CPU, 0)) == 21


def test_a_dataset_may_put_its_items_together_itself() -> None:
    images, targets = next(batches(Loaded(Boxes(), collate=Boxes.collate), 3, CPU))
    assert images.shape == (3, 3, 4, 4)
    assert [len(target["boxes"]) for target in targets] == [0, 1, 2]
    with pytest.raises(DataError, match=r"reading a batch of the data failed: RuntimeError: stack expects"):
        list(batches(Boxes(), 3, CPU))
    _, together = next(batches([(torch.zeros(1), {"a": 1, "b": torch.ones(2)})] * 4, 2, CPU))
    assert (together["a"].tolist(), together["b"].shape) == ([1, 1], (2, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_fails_is_reported_in_one_line(workers: int) -> None:
    with pytest.raises(DataError, match=r"failed: ValueError: .*picture") as caught:
        list(batches(Loaded(Broken(), workers=workers), 4, CPU))
    assert "\n" not in str(caught.value)


def test_classes_become_int64_and_other_targets_stay() -> None:
    images = torch.zeros(4, 1, 4, 4)
    for given, kept in (
        (torch.zeros(4, dtype=torch.uint8), torch.int64),
        (torch.zeros(4), torch.float32),
        (torch.zeros(4, dtype=torch.bool), torch.bool),
        (torch.zeros(4, 4, 4, dtype=torch.uint8), torch.uint8),
    ):
        assert next(batches(TensorDataset(images, given), 2, CPU))[1].dtype == kept


def test_a_sample_is_the_same_each_time() -> None:
    sample = Sample(Loaded(Noisy()), pictures=9, batch_size=4, device=CPU, seed=5)
    first, second = list(sample), list(sample)
    assert sum(len(labels) for _, labels in first) == 12
    assert equal(first, second)
