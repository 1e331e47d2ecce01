"""Datasets of torchvision that lie in a folder: those with and without a split argument, and what is refused."""

import struct
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torchvision
from PIL import Image

from cutback.errors import DataError, UnknownName
from cutback.train import load_data
from cutback.train.batches import batches


def write_mnist(folder: Path) -> None:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for part, count in (("t10k", 4), ("train", 10)):
        for kind, values in (
            ("images-idx3", torch.randint(256, (count, 28, 28), generator=generator)),
            ("labels-idx1", torch.arange(count) % 3),
        ):
            header = struct.pack(f">BBBB{values.dim()}I", 0, 0, 8, values.dim(), *values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + bytes(values.flatten().tolist()))


class Coloured(torchvision.datasets.VisionDataset):
    """A dataset of two classes with a split argument, as newer ones of torchvision have it."""

    sizes: ClassVar[dict[str, int]] = {"train": 10, "val": 4, "test": 6}

    def __init__(self, root: str, split: str = "train", transform: Any = None, download: bool = False) -> None:
        super().__init__(root, transform=transform)
        if split not in self.sizes:
            raise ValueError(f"Unknown value '{split}' for argument split")
        assert not download
        self.split, self.read = split, 0

    def __len__(self) -> int:
        return self.sizes[self.split]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (8, 9), (index, len(self), 0)), index % 2


@pytest.fixture
def coloured(monkeypatch) -> type[Coloured]:
    monkeypatch.setattr(torchvision.datasets, "Coloured", Coloured, raising=False)
    return Coloured


def test_mnist_as_torchvision_keeps_it(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    data = load_data(f"torchvision:MNIST@{tmp_path}", seed=0)
    assert (data.input_shape, str(data.augmentation)) == ((1, 28, 28), "shift:2")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 2, 4]
    original = load_data(f"mnist:{tmp_path}", seed=0)
    assert torch.equal(data.test[:][0], original.test[:][0])
    assert torch.equal(data.test[:][1], original.test[:][1])
    assert data.class_names[0] == "0 - zero"


def test_splits_by_name_are_found(coloured: type[Coloured], monkeypatch) -> None:
    data = load_data("torchvision:Coloured@somewhere", seed=0, normalise="none")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 4, 6]
    assert (data.input_shape, data.num_classes, str(data.augmentation)) == ((3, 9, 8), 2, "shift:1,flip")
    images, labels = next(batches(data.test, 9, torch.device("cpu")))
    assert (images[:, :2, 0, 0] * 255).round().int().tolist() == [[index, 6] for index in range(6)]
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    monkeypatch.setattr(coloured, "sizes", {"trainval": 12})
    data = load_data("torchvision:Coloured@somewhere", seed=0, input_shape=(1, 4, 4))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 2, 2]


def test_classes_that_a_dataset_keeps_are_taken_where_they_are_those_of_its_items(coloured, monkeypatch) -> None:
    monkeypatch.setattr(coloured, "targets", property(lambda self: [1] * len(self)), raising=False)
    data = load_data("torchvision:Coloured@somewhere", seed=0)
    assert sorted(data.validation[:][1].tolist()) == [0, 0, 1, 1]  # its first item has class 0, so they are others


def test_what_cannot_be_had_is_refused(coloured, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(DataError, match="write torchvision:NAME@DIR"):
        load_data("torchvision:MNIST", seed=0)
    with pytest.raises(UnknownName, match="torchvision has no dataset 'MNST'; did you mean"):
        load_data("torchvision:MNST@x", seed=0)
    with pytest.raises(UnknownName, match="no dataset 'Path'"):
        load_data("torchvision:Path@x", seed=0)
    with pytest.raises(
        DataError, match=r"MNIST cannot be read from .*get it first, for example with torchvision\.data"
    ):
        load_data(f"torchvision:MNIST@{tmp_path}", seed=0)
    monkeypatch.setattr(coloured, "sizes", {"val": 3})
    with pytest.raises(DataError, match="Coloured has no split 'train'"):
        load_data("torchvision:Coloured@x", seed=0)
    monkeypatch.setattr(coloured, "sizes", {"train": 3})
    monkeypatch.setattr(coloured, "__getitem__", lambda self, index: (Image.new("L", (2, 2)), {"boxes": []}))
    with pytest.raises(DataError, match=r"has no items \(picture, class\) \(TypeError"):
        load_data("torchvision:Coloured@x", seed=0)
