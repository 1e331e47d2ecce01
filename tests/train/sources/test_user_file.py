"""Datasets from a function in the user's own file."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from cutback.errors import DataError, UserMistake
from cutback.train import load_data
from cutback.train.batches import batches

FILE = """
import torch
from torch.utils.data import Dataset, TensorDataset

def made(count, shape=(1, 2, 2)):
    return TensorDataset(torch.arange(count * 4.0).reshape(count, *shape), torch.arange(count) % 3)

class Squares(Dataset):
    classes = ["a", "b", "c", "d"]
    def __len__(self): return 10
    def __getitem__(self, index):
        if index >= 10: raise IndexError(index)
        return torch.full((1, 2, 2), float(index)), index % 3

def three(): return made(5), made(4), made(3)
def two(): return made(10), made(4)
def one(): return made(10)
def squares(): return Squares()
def words(): return [(torch.zeros(1, 2, 2), 0)] * 8 + [(torch.zeros(1, 2, 2), "cat")]
def pair(): return torch.zeros(4, 1, 2, 2), torch.zeros(4)
def four(): return made(1), made(1), made(1), made(1)
def none(): return None
def empty(): return made(0)
def bytes_(): return TensorDataset(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.arange(9))
def names(): return [(torch.zeros(1, 2, 2), "cat")] * 9
def single(): return [torch.zeros(1, 2, 2)] * 9
def negative(): return TensorDataset(torch.zeros(9, 1, 2, 2), torch.arange(9) - 1)
def shapes(): return made(9), made(9, (2, 2, 1))
def failing(): return [][0]

class Boxes(Dataset):
    def __len__(self): return 10
    def __getitem__(self, index):
        return torch.full((3, 4, 4), float(index)), {"boxes": torch.ones(index, 4), "number": index}
    def collate(self, items):
        return torch.stack([image for image, _ in items]), [target for _, target in items]

class Odd(Boxes):
    collate = 3

def boxes(): return Boxes()
def odd(): return Odd()
def depths(): return made(10), TensorDataset(torch.zeros(6, 1, 2, 2), torch.rand(6))
def masks(): return [(torch.zeros(1, 2, 2), torch.ones(2, 2, dtype=torch.int64))] * 10
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the user's file."""
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    return file


@pytest.mark.parametrize(
    ("function", "sizes"), [("three", [5, 4, 3]), ("two", [8, 2, 4]), ("one", [6, 2, 2]), ("squares", [6, 2, 2])]
)
def test_what_the_function_returns_is_used_as_it_is(path: Path, function: str, sizes: list[int]) -> None:
    data, again = (load_data(f"{path}:{function}", seed=2) for _ in range(2))
    splits = [data.train, data.validation, data.test]
    assert [len(split) for split in splits] == sizes
    assert (data.input_shape, data.num_classes) == ((1, 2, 2), 4 if function == "squares" else 3)
    assert [float(image[0, 0, 0]) for image, _ in data.test] == [float(image[0, 0, 0]) for image, _ in again.test]
    if function in {"one", "squares"}:
        firsts = [float(split[index][0][0, 0, 0]) for split in splits for index in range(len(split))]
        assert len(set(firsts)) == 10
    assert isinstance(data.train, TensorDataset) == (function != "squares")
    assert torch.equal(data.train[0][0], load_data(f"{path}:{function}", seed=2).train[0][0])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("pair", "returned a Tensor; return"),
        ("four", "returned 4 values"),
        ("none", "returned a NoneType"),
        ("empty", "empty dataset"),
        ("bytes_", r"torch.uint8 \(1, 2, 2\); make it a float tensor"),
        ("names", "label of .* is 'cat'; make it an integer"),
        ("words", "has the label 'cat'"),
        ("single", r"is not a pair \(image, label\)"),
        ("negative", "has the label -1; count classes from 0"),
        ("shapes", "different picture shapes"),
        ("failing", r"failing\(\) of .*mine.py failed, line 29: IndexError: list index out of range; correct it"),
        ("thre", "did you mean 'three'"),
    ],
)
def test_anything_else_is_refused_in_one_line(path: Path, function: str, message: str) -> None:
    with pytest.raises(UserMistake, match=message) as caught:
        load_data(f"{path}:{function}", seed=0)
    assert "\n" not in str(caught.value)
    assert function in {"failing", "thre"} or isinstance(caught.value, DataError)


def test_targets_of_other_tasks_pass_through_and_a_dataset_makes_its_own_batches(path: Path) -> None:
    data = load_data(f"{path}:boxes", seed=0, classes=False, workers=1)
    assert (data.num_classes, data.class_names, str(data.augmentation)) == (0, (), "none")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [6, 2, 2]
    images, targets = next(batches(data.train, 4, torch.device("cpu")))
    assert images.shape == (4, 3, 4, 4)
    assert [len(target["boxes"]) for target in targets] == images[:, 0, 0, 0].tolist()
    numbers = [split[index][1]["number"] for split in (data.train, data.validation, data.test) for index in range(2)]
    assert len(set(numbers)) == 6
    depths = load_data(f"{path}:depths", seed=0, classes=False)
    assert next(batches(depths.test, 6, torch.device("cpu")))[1].dtype == torch.float32
    masks = load_data(f"{path}:masks", seed=0, classes=False)
    assert next(batches(masks.train, 5, torch.device("cpu")))[1].shape == (5, 2, 2)


def test_seen_training_pictures_leave_halves_of_the_users_test_split(path: Path) -> None:
    data = load_data(f"{path}:two", seed=0, seen=True)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 1, 3]
    assert data.validation[0][1] == 0  # two of class 0, one of each other class
    assert data.notes
    data = load_data(f"{path}:depths", seed=0, seen=True, classes=False)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [10, 3, 3]


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("boxes", {}, "--task file.py what other targets mean"),
        ("odd", {"classes": False}, "collate of a dataset of .* is a int"),
        ("one", {"normalise": "imagenet"}, "are used as they come; normalise them there"),
        ("boxes", {"classes": False, "augment": "flip"}, "would not follow an augmentation; augment there"),
    ],
)
def test_options_that_do_not_fit_the_users_data_are_refused(path: Path, function: str, options, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"{path}:{function}", seed=0, **options)


def test_the_users_classes_may_be_augmented(path: Path) -> None:
    assert str(load_data(f"{path}:three", seed=0, augment="shift:1").augmentation) == "shift:1"
