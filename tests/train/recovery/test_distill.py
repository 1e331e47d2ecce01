"""Distillation: the objective against loops, layers compared at the channels that stay, and what is refused."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from cutback.errors import UserMistake
from cutback.train.recovery import Distill, Finetune, Situation, parse_recovery
from cutback.train.task import Task, load_task
from tests.helpers import chain, image, plain
from tests.train.recovery.situations import after_cut, situation

LABELS = torch.tensor([1, 3])


def cut_chain() -> Situation:
    return after_cut(chain().train(), image(), [])


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.9), (1.0, 0.3), (2.0, 1.0), (3.0, 0.0)])
def test_the_objective_is_hintons(temperature: float, weight: float) -> None:
    made = cut_chain()
    made.model.eval()
    objective = Distill(epochs=1, temperature=temperature, weight=weight).objective(made)
    found = objective(made.model, image(1), LABELS).item()
    with torch.no_grad():
        student, teacher = made.model(image(1)).tolist(), made.dense.eval()(image(1)).tolist()
    expected = 0.0
    for own, wanted, label in zip(student, teacher, LABELS.tolist(), strict=True):
        p, q = (softmax([value / temperature for value in row]) for row in (wanted, own))
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected += (-(1 - weight) * math.log(softmax(own)[label]) + weight * temperature**2 * divergence) / 2
    assert found == pytest.approx(expected, rel=1e-4)


def test_layers_are_compared_at_the_channels_that_stay() -> None:
    made = cut_chain()
    kept = made.plan.slices["3.weight"][0].indices
    made.model.eval()
    objective = Distill(epochs=1, weight=0.0, features=2.0, layers="3").objective(made)
    with_features = objective(made.model, image(1), LABELS).item()
    without = Distill(epochs=1, weight=0.0).objective(made)(made.model, image(1), LABELS).item()
    with torch.no_grad():
        student, teacher = (model[:4](image(1)) for model in (made.model, made.dense.eval()))
    squares, wanted, count = 0.0, 0.0, 0
    for position, channel in enumerate(kept):
        for own, dense in zip(student[:, position].flatten(), teacher[:, channel].flatten(), strict=True):
            squares += float(own - dense) ** 2
            wanted += float(dense) ** 2
            count += 1
    assert count == student.numel()
    assert with_features - without == pytest.approx(2 * squares / wanted, rel=1e-3)
    # The first layer still puts out exactly what it did.
    first = Distill(epochs=1, weight=0.0, features=1e6, layers="0").objective(made)
    assert first(made.model, image(1), LABELS).item() == pytest.approx(without, rel=1e-4)


def test_only_the_student_learns_and_nothing_is_left_behind() -> None:
    made = cut_chain()
    before = plain(dict(made.dense.state_dict()))
    objective = Distill(epochs=1, features=1.0).objective(made)
    optimizer = torch.optim.SGD(made.model.parameters(), 0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = objective(made.model, image(1), LABELS)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert plain(dict(made.dense.state_dict())) == before
    assert all(parameter.grad is None for parameter in made.dense.parameters())
    assert not any(module._forward_hooks for model in (made.model, made.dense) for module in model.modules())
    assert made.model.training


def test_a_task_of_the_users_own_says_how_outputs_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    text = (
        "def loss(outputs, targets): return (outputs - targets).square().mean()\n"
        "def metric(model, batches): return 0.0\nhigher_is_better = False\n"
    )
    file.write_text(text + "def distillation(outputs, dense_outputs): return (outputs - dense_outputs).abs().mean()\n")
    net = nn.Linear(2, 2)
    made = situation(net, [], dense=nn.Linear(2, 2), task=load_task(file))
    inputs, targets = torch.randn(3, 2), torch.randn(3, 2)
    found = Distill(epochs=1, weight=0.25).objective(made)(net, inputs, targets)
    with torch.no_grad():
        plain_loss, apart = (net(inputs) - targets).square().mean(), (net(inputs) - made.dense(inputs)).abs().mean()
    assert found.item() == pytest.approx(0.75 * plain_loss.item() + 0.25 * apart.item())
    file.write_text(text)
    with pytest.raises(
        UserMistake, match=r"task 'own' does not say .*write def distillation\(outputs, dense_outputs\)"
    ):
        Distill(epochs=1).objective(situation(net, [], task=load_task(file)))
    file.write_text(text + "def objective(model, inputs, targets): return model(inputs).sum()\n")
    with pytest.raises(UserMistake, match="calls the model in its own way"):
        Distill(epochs=1).objective(situation(net, [], task=load_task(file)))


def test_a_pattern_that_no_layer_has_is_refused() -> None:
    with pytest.raises(UserMistake, match="no convolution or linear layer has a path like 'layer9"):
        parse_recovery("distill:3:features=1:layers=layer9*")[0].objective(cut_chain())  # type: ignore[union-attr]


def test_fine_tuning_minimises_the_task_s_own_objective() -> None:
    task = Task("some", lambda outputs, targets: (outputs * targets).sum(), lambda *_: 0.0)
    objective = Finetune(epochs=2).objective(situation(nn.Identity(), [], task=task))
    assert objective(nn.Identity(), torch.tensor([2.0]), torch.tensor([3.0])).item() == 6
