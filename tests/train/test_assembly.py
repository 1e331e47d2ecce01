"""Splits of pictures in memory and of pictures that are decoded one at a time; weights that have seen a split."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cutback.errors import DataError, UserMistake
from cutback.train import assembly, load_data
from cutback.train.batches import TrainingBatches, batches
from cutback.train.splits import Loaded, first_halves

CPU = torch.device("cpu")


def draw(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """Write a random picture of size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with 8 training and 6 (cat) and 5 (dog) test pictures of both classes."""
    counts = {"train/cat": 8, "train/dog": 8, "test/cat": 6, "test/dog": 5}
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            draw(tmp_path / name / f"{index:02}.png", 100 * number + index)
    return tmp_path


def test_pictures_that_do_not_fit_into_memory_are_decoded_later_and_are_the_same(folder: Path, monkeypatch) -> None:
    kept = load_data(f"imagefolder:{folder}", seed=0)
    monkeypatch.setattr(assembly, "IN_MEMORY", 1000)
    lazy = load_data(f"imagefolder:{folder}", seed=0, workers=2)
    assert isinstance(lazy.train, Loaded)
    assert (lazy.mean, lazy.class_names, lazy.input_shape) == (pytest.approx(kept.mean), kept.class_names, (3, 8, 8))
    for split in ("train", "validation", "test"):
        (images, labels), (others, same) = (next(batches(getattr(data, split), 99, CPU)) for data in (kept, lazy))
        assert torch.equal(labels, same)
        torch.testing.assert_close(images, others, rtol=0, atol=1e-5)
    draw(folder / "test" / "dog" / "zz.png", 0, size=(9, 8))
    with pytest.raises(DataError, match=r"00\.png is 8x8 .*zz\.png is 8x9; .*--input 3x8x8"):
        list(batches(load_data(f"imagefolder:{folder}", seed=0).test, 4, CPU))


def test_a_damaged_picture_is_named_when_it_is_read_in_a_worker(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(assembly, "IN_MEMORY", 0)
    (folder / "test" / "dog" / "03.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"03\.png is not a readable picture"):
        list(batches(load_data(f"imagefolder:{folder}", seed=0, workers=1).test, 4, CPU))


def test_resized_crops_are_drawn_anew_each_epoch_and_resume(folder: Path) -> None:
    data = load_data(f"imagefolder:{folder}", seed=0, input_shape=(3, 5, 5), augment="resized-crop,flip")
    source = TrainingBatches(data, 4, CPU, seed=1)
    first, again, second = list(source.epoch(1)), list(source.epoch(1, start=1)), list(source.epoch(2))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first[1:], again, strict=True))
    pictures = torch.cat([images for images, _ in [*first, *second]])
    assert len(pictures.unique(dim=0)) == len(pictures)
    one, two = (next(batches(data.test, 4, CPU))[0] for _ in range(2))
    assert torch.equal(one, two)


def test_other_sizes_are_covered_and_cut_around_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, 4:8] = 200  # the middle third
    for index in range(5):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "a" / f"{index}.png")
    data = load_data(f"imagefolder:{tmp_path}", seed=0, input_shape=(3, 4, 4), normalise="none")
    assert torch.equal(data.train[0][0], torch.full((3, 4, 4), 200 / 255))


def test_weights_that_have_seen_the_training_split_get_halves_of_test(folder: Path, monkeypatch) -> None:
    for limit in (2**31, 0):
        monkeypatch.setattr(assembly, "IN_MEMORY", limit)
        fresh, seen = (load_data(f"imagefolder:{folder}", seed=0, seen=seen) for seen in (False, True))
        assert [len(split) for split in (fresh.train, fresh.validation, fresh.test)] == [13, 3, 11]
        assert [len(split) for split in (seen.train, seen.validation, seen.test)] == [16, 5, 6]
        assert fresh.notes == ()
        assert "first half of each class of the test split" in seen.notes[0]
        whole = next(batches(fresh.test, 99, CPU))[0] * torch.tensor(fresh.std)[:, None, None]
        whole += torch.tensor(fresh.mean)[:, None, None]
        for split, places in ((seen.validation, [0, 1, 2, 6, 7]), (seen.test, [3, 4, 5, 8, 9, 10])):
            images = next(batches(split, 99, CPU))[0] * torch.tensor(seen.std)[:, None, None]
            torch.testing.assert_close(
                images + torch.tensor(seen.mean)[:, None, None], whole[places], rtol=0, atol=1e-5
            )


def test_a_single_held_out_split_is_halved_whatever_it_is_called(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    data = load_data(f"imagefolder:{folder}", seed=0, seen=True)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [16, 5, 6]
    assert "of the validation split" in data.notes[0]


def test_where_nothing_is_held_out_seen_weights_are_told_of() -> None:
    data = load_data("digits", seed=4, seen=True)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [1079, 359, 359]
    assert data.notes[0].startswith("validation and test were cut from the training pictures by seed 4")


def test_too_small_a_test_split_cannot_be_halved(folder: Path) -> None:
    for path in sorted((folder / "test").glob("*/*.png")):
        if path.name != "00.png":
            path.unlink()
    with pytest.raises(DataError, match=r"the test split of .* is too small to be halved"):
        load_data(f"imagefolder:{folder}", seed=0, seen=True)


def test_halves_are_by_class_and_in_order() -> None:
    first, second = first_halves(torch.tensor([1, 0, 1, 1, 0, 2, 1]))
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [3, 4, 5, 6])
    # CIFAR-10: of each class's thousand files, 0000 to 0499 are validation.
    first, second = first_halves(torch.arange(10).repeat_interleave(1000))
    assert first.tolist() == [index for index in range(10_000) if index % 1000 < 500]
    assert second.tolist() == [index for index in range(10_000) if index % 1000 >= 500]


def test_the_usual_augmentation_depends_on_the_data_and_can_be_chosen(folder: Path) -> None:
    assert str(load_data(f"imagefolder:{folder}", seed=0).augmentation) == "shift:1,flip"
    assert str(load_data(f"imagefolder:{folder}", seed=0, input_shape=(1, 8, 8)).augmentation) == "none"
    assert str(load_data(f"imagefolder:{folder}", seed=0, augment="none").augmentation) == "none"
    assert str(load_data("digits", seed=0, augment="shift:2").augmentation) == "shift:2"
    with pytest.raises(DataError, match=r"resized-crop works on picture files, and 'digits' has none"):
        load_data("digits", seed=0, augment="resized-crop")
    with pytest.raises(UserMistake, match=r"cannot read the augmentation 'turn'"):
        load_data("digits", seed=0, augment="turn")


def test_moved_pictures_have_black_borders(folder: Path) -> None:
    data = load_data(f"imagefolder:{folder}", seed=0, augment="shift:7", normalise="imagenet")
    images = torch.cat([images for images, _ in TrainingBatches(data, 13, CPU, seed=0).epoch(1)])
    pixels = images * torch.tensor(data.std)[:, None, None] + torch.tensor(data.mean)[:, None, None]
    black = (pixels.abs() < 1e-6).all(1).float().mean()
    assert black > 0.3
