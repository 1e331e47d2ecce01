"""What a network is trained for: the default, a user's own, and every mistake in the latter's file."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from cutback.errors import DataError, TaskError, UserMistake
from cutback.train.task import classification, load_task, top1

GOOD = """
import torch

def loss(outputs, targets): return (outputs - targets["value"]).square().mean()

def metric(model, batches):
    errors = [(model(inputs) - targets["value"]).abs() for inputs, targets in batches]
    return torch.cat(errors).mean()

higher_is_better = False
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "depth.py"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_is_cross_entropy_and_accuracy(smoothing: float) -> None:
    task, outputs, labels = classification(smoothing), torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    expected = 0.0
    for row, label in zip(outputs.tolist(), labels.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        shares = [smoothing / 3 + (1 - smoothing) * (number == label) for number in range(3)]
        expected += sum(share * (normaliser - value) for share, value in zip(shares, row, strict=True)) / 5
    assert task.loss(outputs, labels).item() == pytest.approx(expected, rel=1e-5)
    assert task.objective(nn.Identity(), outputs, labels).item() == pytest.approx(expected, rel=1e-5)
    right = sum(row.index(max(row)) == label for row, label in zip(outputs.tolist(), labels.tolist(), strict=True))
    assert top1(nn.Identity(), [(outputs[:2], labels[:2]), (outputs[2:], labels[2:])]) == right / 5
    assert task.better(0.5, 0.4)
    assert not task.better(0.4, 0.4)
    assert not task.better(math.nan, 0.4)


def test_classification_refuses_what_does_not_fit() -> None:
    with pytest.raises(TaskError, match="label smoothing must be at least 0 and below 1, not 1"):
        classification(1.0)
    with pytest.raises(DataError, match="no pictures to evaluate on"):
        top1(nn.Identity(), [])
    with pytest.raises(DataError, match="label 3 but the model only 3 outputs"):
        classification().loss(torch.zeros(1, 3), torch.tensor([3]))


def test_a_task_of_the_users_own_is_used_as_written(file: Path) -> None:
    file.write_text(GOOD)
    task = load_task(file)
    assert (task.name, task.higher_is_better, task.distillation) == ("depth", False, None)
    inputs, targets = torch.tensor([[1.0], [3.0]]), {"value": torch.tensor([[0.0], [1.0]])}
    assert task.loss(inputs, targets).item() == 2.5
    assert task.metric(nn.Identity(), [(inputs, targets)]) == 1.5
    assert task.better(1.0, 2.0)
    weight = torch.ones(1, requires_grad=True)
    task.objective(lambda values: values * weight, inputs, targets).backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(7.0)


def test_a_model_may_be_called_in_another_way_and_outputs_compared(file: Path) -> None:
    file.write_text(
        f"{GOOD}\ndef objective(model, inputs, targets): return sum(model(inputs, targets).values())\n"
        "def distillation(outputs, dense_outputs): return (outputs - dense_outputs).abs().mean()\n"
    )
    task = load_task(file)
    assert task.objective(lambda a, b: {"x": a, "y": b}, torch.tensor(1.0), torch.tensor(2.0)).item() == 3
    assert task.distillation is not None
    assert task.distillation(torch.tensor([1.0]), torch.tensor([4.0])).item() == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"defines no function loss; write def loss\(outputs, targets\)"),
        ("def los(outputs, targets): pass\n", "defines no function loss; .*did you mean 'los'"),
        (GOOD.replace("def metric", "def metrics"), "defines no function metric; .*did you mean 'metrics'"),
        (GOOD.replace("higher_is_better = False", ""), "does not say higher_is_better; write higher_is_better = True"),
        (GOOD.replace("better = False", "better = 'no'"), "says 'no' for higher_is_better"),
        (GOOD + "loss = 3\n", "loss of .*depth.py is a int, not a function"),
        (GOOD + "def loss(outputs): pass\n", r"loss\(outputs\) of .* cannot be called as loss\(outputs, targets\)"),
        (GOOD + "def metric(model, batches, more): pass\n", "cannot be called as metric"),
        (GOOD + "objective = 1\n", "objective of .* is a int"),
        ("def loss(:\n", "cannot be imported, depth.py line 1: SyntaxError"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused(file: Path, content: str, message: str) -> None:
    file.write_text(content)
    with pytest.raises(UserMistake, match=message) as caught:
        load_task(file)
    assert "\n" not in str(caught.value)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task\.txt is not a Python file; write --task path/to/file\.py"):
        load_task(tmp_path / "task.txt")
    with pytest.raises(UserMistake, match=r"cannot read .*nothing\.py"):
        load_task(tmp_path / "nothing.py")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "def loss(outputs, targets): return outputs",
            r"loss of .* returned torch.float32 \(2, 1\); return a floating",
        ),
        ("def loss(outputs, targets): return 1.0", "loss of .* returned float; return a floating-point tensor"),
        ("def loss(outputs, targets): return outputs.sum().int()", r"returned torch.int32 \(\)"),
        ("def loss(outputs, targets):\n    return targets['x']", "loss of .* failed, line 13: KeyError: 'x'; correct"),
        ("def metric(model, batches): return None", "metric of .* returned None; return one number"),
        ("def metric(model, batches): return float('nan')", "metric of .* returned nan"),
        ("def metric(model, batches): return True", "metric of .* returned True"),
        ("def metric(model, batches): return 1 / 0", "metric of .* failed, line 12: ZeroDivisionError"),
    ],
)
def test_functions_that_fail_or_return_something_else_are_named(file: Path, function: str, message: str) -> None:
    file.write_text(f"{GOOD}\n{function}\n")
    task = load_task(file)
    call, arguments = task.metric, (nn.Identity(), [])
    if "loss" in function:
        call, arguments = task.loss, (torch.zeros(2, 1), {"value": torch.zeros(2, 1)})
    with pytest.raises(TaskError, match=message) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


def test_the_loss_of_one_element_becomes_a_scalar(file: Path) -> None:
    file.write_text(GOOD + "\ndef loss(outputs, targets): return outputs.sum().reshape(1, 1)\n")
    assert load_task(file).loss(torch.ones(2), None).shape == ()
