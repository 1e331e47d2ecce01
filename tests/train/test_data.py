"""Data by name, and cutting it into splits."""

import sys

import pytest
import torch

from cutback.errors import DataError, UnknownName
from cutback.train import load_data
from cutback.train.splits import cut


def test_digits_are_cut_normalised_and_the_same_for_the_same_seed() -> None:
    data, again, other = (load_data("digits", seed=seed) for seed in (3, 3, 4))
    images, labels = data.train[:]
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1079, 359, 359]
    assert (data.input_shape, data.num_classes, str(data.augmentation)) == ((1, 8, 8), 10, "shift:1")
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.mean().abs() < 1e-5
    assert images.std() == pytest.approx(1, abs=1e-3)
    assert torch.equal(images, again.train[:][0])
    assert not torch.equal(images, other.train[:][0])


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_cut_uses_every_item_once_and_keeps_the_classes_in_proportion(pieces: int) -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    parts = cut(labels, pieces=pieces, seed=1, name="some")
    assert sorted(torch.cat(parts).tolist()) == list(range(100))
    for part in parts[1:]:
        assert labels[part].bincount().tolist() == [12, 6, 2]


def test_a_cut_of_too_few_items_is_refused() -> None:
    assert [len(part) for part in cut(torch.zeros(3), pieces=3, seed=0, name="three")] == [1, 1, 1]
    with pytest.raises(DataError, match="'two' has 2 training pictures, too few to cut 3 splits from"):
        cut(torch.zeros(2), pieces=3, seed=0, name="two")


def test_mistakes_in_the_specification_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="no data source is called 'digit'; did you mean 'digits'"):
        load_data("digit", seed=0)
    with pytest.raises(DataError, match="1x8x8, not 3x32x32; use --input 1x8x8"):
        load_data("digits", seed=0, input_shape=(3, 32, 32))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load_data("digits", seed=0)
