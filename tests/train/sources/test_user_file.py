"""Datasets from a function in the user's own file."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from cutback.errors import DataError, UserMistake
from cutback.train import load_data

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
