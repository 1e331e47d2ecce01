"""idx files: generated ones in every layout, damaged ones, and the real MNIST."""

import gzip
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cutback.errors import DataError
from cutback.train import load_data


def write_idx(path: Path, values: Tensor, *, zipped: bool) -> None:
    content = struct.pack(f">BBBB{values.dim()}I", 0, 0, 8, values.dim(), *values.shape) + bytes(
        values.flatten().tolist()
    )
    path = path.with_name(path.name + ".gz") if zipped else path
    path.write_bytes(gzip.compress(content) if zipped else content)


def write_mnist(folder: Path, *, zipped: bool) -> tuple[Tensor, Tensor]:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for part, count in (("t10k", 4), ("train", 10)):
        images = torch.randint(256, (count, 5, 6), generator=generator)
        labels = torch.arange(count) % 3
        write_idx(folder / f"{part}-images-idx3-ubyte", images, zipped=zipped)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels, zipped=zipped)
    return images, labels


@pytest.mark.parametrize(("layout", "zipped"), [("", False), ("raw", True), ("MNIST/raw", True)])
def test_idx_files_round_trip(tmp_path: Path, layout: str, zipped: bool) -> None:
    images, labels = write_mnist(tmp_path / "data" / layout, zipped=zipped)
    data = load_data(f"mnist:{tmp_path / 'data'}", seed=0)
    assert (data.input_shape, data.num_classes) == ((1, 5, 6), 3)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 2, 4]
    restored = torch.cat([data.train[:][0], data.validation[:][0]]) * data.std[0] + data.mean[0]
    found = {
        (tuple((pixels * 255).round().long().flatten().tolist()), int(label))
        for pixels, label in zip(restored, torch.cat([data.train[:][1], data.validation[:][1]]), strict=True)
    }
    assert found == {(tuple(i.flatten().tolist()), int(label)) for i, label in zip(images, labels, strict=True)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-7], "train-images-idx3-ubyte is truncated: its header states 300 bytes, 293 follow"),
        (lambda content: content[:9], "is truncated"),
        (lambda content: content + b"x", "is too long"),
        (lambda content: b"\0\0\x0d" + content[3:], "magic number 00000803 but with 00000d03"),
        (lambda _: b"", "but with nothing"),
        (lambda content: gzip.compress(content)[:-20], "its gzip stream ends early"),
        (lambda _: b"\x1f\x8bnonsense", "cannot be read"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, damage, message: str) -> None:
    write_mnist(tmp_path / "raw", zipped=False)
    path = tmp_path / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_data(f"mnist:{tmp_path}", seed=0)


def test_missing_and_mismatched_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        load_data(f"mnist:{tmp_path / 'nowhere'}", seed=0)
    write_mnist(tmp_path / "raw", zipped=False)
    write_idx(tmp_path / "raw" / "t10k-labels-idx1-ubyte", torch.arange(3), zipped=False)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte holds 3 labels for 4 pictures"):
        load_data(f"mnist:{tmp_path}", seed=0)
    (tmp_path / "raw" / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte or train-images-idx3-ubyte\.gz in"):
        load_data(f"mnist:{tmp_path}", seed=0)


def test_real_mnist() -> None:
    folder = Path(__file__).resolve().parents[4] / "shared" / "data" / "MNIST"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/MNIST beside the repository")
    data = load_data(f"mnist:{folder}", seed=0)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert str(data.augmentation) == "shift:2"
    assert data.mean[0] == pytest.approx(0.1307, abs=1e-3)
    assert data.std[0] == pytest.approx(0.3081, abs=1e-3)
    assert data.test[:][1][:5].tolist() == [7, 2, 1, 0, 4]
