"""Folders of generated pictures in both layouts, and everything that can be wrong with them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cutback.errors import DataError
from cutback.train import load_data


def draw(path: Path, seed: int, size: tuple[int, int] = (6, 5)) -> None:
    """Write a random picture of size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the classes cat (10 pictures) and dog (5 pictures)."""
    for index in range(10):
        draw(tmp_path / "cat" / f"{index}.png", index)
    for index in range(5):
        draw(tmp_path / "dog" / f"{index}.png", 100 + index)
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_classes_are_cut_into_disjoint_splits(folder: Path) -> None:
    told = []
    data = load_data(f"imagefolder:{folder}", seed=0, progress=lambda *step: told.append(step))
    assert (data.class_names, data.input_shape, told[-1][:2]) == (("cat", "dog"), (3, 5, 6), (15, 15))
    splits = [data.train, data.validation, data.test]
    assert [split[:][1].bincount().tolist() for split in splits] == [[6, 3], [2, 1], [2, 1]]
    assert len(torch.cat([split[:][0] for split in splits]).unique(dim=0)) == 15
    pixel = data.train[0][0][:, 0, 0] * torch.tensor(data.std) + torch.tensor(data.mean)
    originals = [np.asarray(Image.open(path))[0, 0].tolist() for path in sorted(folder.glob("*/*.png"))]
    assert (pixel * 255).round().int().tolist() in originals


def test_existing_splits_are_used_and_sizes_changed_on_demand(tmp_path: Path) -> None:
    for split, count in (("train", 10), ("test", 3)):
        for index in range(count):
            draw(tmp_path / split / "ab"[index % 2] / f"{index}.png", index, size=(6 + index, 5))
    data = load_data(f"imagefolder:{tmp_path}", seed=0, input_shape=(1, 4, 4))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 2, 3]
    assert data.train[0][0].shape == (1, 4, 4)
    with pytest.raises(DataError, match="1 or 3 channels, not 4"):
        load_data(f"imagefolder:{tmp_path}", seed=0, input_shape=(4, 4, 4))
    draw(tmp_path / "test" / "aa" / "0.png", 0)
    with pytest.raises(DataError, match="aa is not a class of the training pictures; did you mean 'a'"):
        load_data(f"imagefolder:{tmp_path}", seed=0)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("plane", "train"):
        for index in range(3):
            draw(tmp_path / name / f"{index}.png", index)
    assert load_data(f"imagefolder:{tmp_path}", seed=0).class_names == ("plane", "train")


def test_mixed_sizes_name_two_files(folder: Path) -> None:
    draw(folder / "dog" / "wide.png", 0, size=(9, 5))
    with pytest.raises(DataError, match=r"0\.png is 5x6 .*wide\.png is 5x9; .*--input 3x5x6"):
        load_data(f"imagefolder:{folder}", seed=0)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("content", ["cut", "text", "empty"])
def test_a_corrupt_picture_is_named(folder: Path, suffix: str, content: str) -> None:
    path = folder / "dog" / f"broken{suffix}"
    draw(path, 0, size=(60, 50))
    path.write_bytes({"cut": path.read_bytes()[:-600], "text": b"nothing", "empty": b""}[content])
    with pytest.raises(DataError, match=f"broken{suffix} is not a readable picture") as caught:
        load_data(f"imagefolder:{folder}", seed=0, input_shape=(3, 5, 6))
    assert "\n" not in str(caught.value)


def test_folders_without_classes_or_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        load_data(f"imagefolder:{tmp_path / 'nowhere'}", seed=0)
    with pytest.raises(DataError, match="has no folder for any class; expected DIR/<class>"):
        load_data(f"imagefolder:{tmp_path}", seed=0)
    draw(tmp_path / "train" / "0.png", 0)
    with pytest.raises(DataError, match="train has no folder for any class"):
        load_data(f"imagefolder:{tmp_path}", seed=0)
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(DataError, match="cat holds no pictures"):
        load_data(f"imagefolder:{tmp_path}", seed=0)
