"""The penalty: its sub-gradient, exactly and once a step, its schedules, and how far it pulls."""

import copy
import math

import pytest
import torch

from cutback.errors import UserMistake
from cutback.methods.slimming import Slimming, pull
from cutback.methods.slimming.sparsity import SCHEDULES, sub_gradient
from tests.helpers import chain, image
from tests.methods.slimming.networks import batch_norms, spread, traced


def gradients(model, *, micro_batches=1, **settings):
    """Gradients of one step, without the method and as it leaves them before the step."""
    method = Slimming(traced(model), steps=4, budget="channels=50%", **settings)
    with method:
        for number in range(micro_batches):
            (model(image(number)).square().mean() + method.penalty()).backward()
            method.after_backward()
        plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        method.before_step()
    return plain, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradients_of_scales_differ_by_exactly_the_signed_strength() -> None:
    model = spread(chain())
    with torch.no_grad():
        model[1].weight[3] = 0
    plain, changed = gradients(model, sparsity=0.0123, micro_batches=3)
    scales = {f"{path}.weight": module.weight for path, module in batch_norms(model).items()}
    assert len(scales) == 2
    for name, before in plain.items():
        expected = before
        if name in scales:
            signs = [(value > 0) - (value < 0) for value in scales[name].tolist()]
            expected = before + 0.0123 * torch.tensor(signs, dtype=torch.float32)
        assert torch.equal(changed[name], expected), name


def test_the_sub_gradient_is_that_of_the_loss_with_the_penalty() -> None:
    model = spread(chain())
    _, changed = gradients(copy.deepcopy(model), sparsity=0.01)
    (model(image()).square().mean() + 0.01 * sum(m.weight.abs().sum() for m in batch_norms(model).values())).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(changed[name], parameter.grad, atol=1e-7), name


@pytest.mark.parametrize("alpha", [0.5, 3.0, 40.0])
def test_the_smooth_form_is_the_derivative_of_its_formula(alpha) -> None:
    scales = torch.linspace(-1.3, 1.3, 27, dtype=torch.float64, requires_grad=True)
    smooth = sum((math.e ** (-alpha * s) + 1).log() + (math.e ** (alpha * s) + 1).log() for s in scales) / alpha
    smooth.backward()
    assert torch.allclose(sub_gradient(scales.detach(), alpha), scales.grad)


def test_the_smooth_form_tends_to_the_sign() -> None:
    scales = torch.tensor([-0.3, -0.01, 0.0, 0.02, 1.0])
    assert torch.allclose(sub_gradient(scales, 1e4), scales.sign())
    plain, changed = gradients(spread(chain()), sparsity=1.0, smooth=2.0)
    scale = spread(chain())[1].weight
    assert torch.allclose(changed["1.weight"] - plain["1.weight"], torch.tanh(scale), atol=1e-6)


def test_schedules_change_the_strength_as_they_say() -> None:
    strengths = {}
    for schedule in SCHEDULES:
        model = spread(chain())
        method = Slimming(traced(model), steps=4, budget="channels=50%", sparsity=1.0, schedule=schedule)
        strengths[schedule] = found = []
        with method:
            for _ in range(3):  # of four: the last one cuts
                model.zero_grad()
                method.before_step()
                found.append(round(float(model[1].weight.grad.abs().max()), 6))
                method.after_step()
    assert strengths == {"constant": [1, 1, 1], "rising": [0, 0.25, 0.5], "falling": [1, 0.75, 0.5]}


def test_the_pull_is_that_of_published_runs() -> None:
    cifar = [0.1] * 80 * 782 + [0.01] * 40 * 782 + [0.001] * 40 * 782
    assert pull(1e-4, cifar, 0.9) == pytest.approx(6.6, rel=0.06)
    assert pull(1e-5, cifar, 0.9) == pytest.approx(0.66, rel=0.06)


def test_the_pull_of_a_run_is_recorded_and_too_small_a_one_is_noted() -> None:
    model = spread(chain())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    method = Slimming(traced(model), steps=3, budget="channels=50%", optimizers=optimizer, sparsity=0.01)
    with method:
        for _ in range(3):
            optimizer.zero_grad()
            model(image()).square().mean().backward()
            method.before_step()
            optimizer.step()
            method.after_step()
    assert method.records()["pull"] == pytest.approx(3 * 0.01 * 0.1 / 0.5)
    assert any("pulled scales by at most 0.006" in note for note in method.plan().notes)


def test_frozen_scales_get_no_gradient() -> None:
    model = spread(chain())
    model[1].weight.requires_grad_(False)
    method = Slimming(traced(model), steps=2, budget="channels=50%")
    with method:
        model(image()).sum().backward()
        method.before_step()
    assert model[1].weight.grad is None
    model[4].weight.requires_grad_(False)
    with pytest.raises(UserMistake, match="requires_grad"):
        Slimming(traced(model), steps=2, budget="channels=50%")
