"""The compactor is the identity at first; its gradient follows the rule; it learns by itself."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW

from cutback.errors import InvalidScore, UserMistake
from cutback.methods import ResRep
from cutback.methods.resrep.compactor import Compactor
from tests.helpers import chain, image
from tests.methods.resrep.networks import Basic, Separable, made, method_of, step, traced

RATE, STRENGTH = 0.02, 0.3


@pytest.mark.parametrize("kind", [Basic, Separable])
@pytest.mark.parametrize("training", [True, False])
def test_insertion_changes_no_output(kind, training):
    model = made(kind).train(training)
    expected = copy.deepcopy(model)(image(3))
    with method_of(model, coupled=True) as method:
        assert method._insertion.compactors
        assert torch.allclose(model(image(3)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_it_mixes_channels_whatever_lies_behind_them(dimensions):
    compactor = Compactor(3, torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        compactor.weight.copy_(torch.randn(3, 3, generator=generator))
    features = torch.randn(2, 3, *[2] * dimensions, generator=generator)
    found = compactor(features)
    for sample in range(2):
        for row in range(3):
            expected = sum(compactor.weight[row, column] * features[sample, column] for column in range(3))
            assert torch.allclose(found[sample, row], expected, atol=1e-6)


def test_one_step_without_momentum_moves_rows_as_the_rule_says_and_nothing_else():
    model, labels = made(Basic).train(), torch.arange(4) % 4
    pictures = image(5, (4, 3, 8, 8))
    plain = copy.deepcopy(model)
    cross_entropy(plain(pictures), labels).backward()
    method = method_of(model, rate=RATE, momentum=0.0, strength=STRENGTH, steps=100, interval=50)
    generator = torch.Generator().manual_seed(1)
    with method:
        held = method._insertion
        masks = [torch.rand(n, generator=generator) < 0.5 for n in held.sizes]
        held.reset([mask.numpy() for mask in masks])
        cross_entropy(model(pictures), labels).backward()
        gradients = [compactor.weight.grad.clone() for compactor in held.compactors]
        before = [compactor.weight.detach().clone() for compactor in held.compactors]
        for (name, own), (_, other) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            assert torch.allclose(own.grad, other.grad, atol=1e-6, rtol=1e-4), name
        others = {name: own.grad.clone() for name, own in model.named_parameters()}
        method.before_step()
        assert all(torch.equal(own.grad, others[name]) for name, own in model.named_parameters())
        method.after_step()
        assert any(bool(mask.any()) and not bool(mask.all()) for mask in masks)
        for compactor, mask, gradient, old in zip(held.compactors, masks, gradients, before, strict=True):
            for row in range(len(mask)):
                norm = sum(float(value) ** 2 for value in old[row]) ** 0.5
                for column in range(len(mask)):
                    task = float(gradient[row, column]) if bool(mask[row]) else 0.0
                    expected = -RATE * (task + STRENGTH * float(old[row, column]) / norm)
                    assert float(compactor.weight.detach()[row, column] - old[row, column]) == pytest.approx(
                        expected, abs=1e-7
                    )


def test_the_penalty_of_a_row_of_zero_is_zero():
    compactor = Compactor(2, torch.zeros(1))
    with torch.no_grad():
        compactor.weight[1] = 0
    compactor.reset_(1.0)
    assert torch.equal(compactor.weight.grad, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_momentum_is_the_compactors_own_and_nothing_decays():
    model = made(Basic).train()
    optimizer = SGD(model.parameters(), lr=RATE, momentum=0.5, weight_decay=0.1)
    given = {"steps": 100, "budget": "macs=60%", "interval": 90, "added": 50, "strength": STRENGTH}
    with ResRep(traced(model), optimizers=optimizer, **given) as method:
        held = method._insertion
        velocity = [torch.zeros_like(compactor.weight) for compactor in held.compactors]
        for number in range(3):
            optimizer.param_groups[0]["lr"] = RATE * (number + 1)
            old = [compactor.weight.detach().clone() for compactor in held.compactors]
            model(image(number)).square().mean().backward()
            method.before_step()
            for place, compactor in enumerate(held.compactors):
                velocity[place] = 0.99 * velocity[place] + compactor.weight.grad
            optimizer.step()
            method.after_step()
            for place, compactor in enumerate(held.compactors):
                expected = old[place] - RATE * (number + 1) * velocity[place]
                assert torch.allclose(compactor.weight, expected, atol=1e-6)
                assert compactor.weight.grad is None
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_micro_batches_count_once():
    moved = []
    for parts in (1, 2):
        model = made(Basic).eval()  # batch norms see no batch, so that halves add up
        with method_of(model, momentum=0.0, strength=STRENGTH, interval=5) as method:
            for part in image(5, (4, 3, 8, 8)).chunk(parts):
                (model(part).square().mean() / parts).backward()
            method.before_step()
            method.after_step()
            moved.append([compactor.weight.detach().clone() for compactor in method._insertion.compactors])
    for whole, halves in zip(*moved, strict=True):
        assert torch.allclose(whole, halves, atol=1e-6)


class Scaler:
    """What a gradient scaler tells."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def is_enabled(self) -> bool:
        return True

    def get_scale(self) -> float:
        return self._scale


def test_the_scale_of_mixed_precision_is_taken_out_and_overflows_are_left_out():
    found = {}
    for scale in (1.0, 1024.0, float("inf")):
        model = made(Basic).train()
        with method_of(model, strength=STRENGTH, interval=5) as method:
            (model(image()).square().mean() * scale).backward()
            method.before_step(Scaler(scale))
            method.after_step()
            found[scale] = method._insertion.compactors[0].weight.detach().clone()
    assert torch.allclose(found[1.0], found[1024.0], atol=1e-6)
    assert torch.equal(found[float("inf")], torch.eye(len(found[1.0])))


def test_a_network_trained_by_another_optimiser_keeps_its_compactors_own():
    model = made(Basic).train()
    optimizer = AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    method = ResRep(
        traced(model),
        steps=4,
        budget="macs=60%",
        optimizers=optimizer,
        interval=1,
        added=50,
        threshold=0.9,
        strength=9.0,
    )
    with method:
        for number in range(4):
            step(method, number)
            schedule.step()  # PyTorch's schedules refuse an optimiser with another number of groups
    assert method.finished


def test_a_model_that_does_not_run_the_compactors_is_refused():
    model = made(Basic).train()
    other = copy.deepcopy(model)
    with method_of(model) as method:
        other(image()).sum().backward()
        with pytest.raises(UserMistake, match="no gradient has reached"):
            method.before_step()


def test_divergence_is_named():
    model = made(Basic).train()
    with method_of(model) as method:
        with torch.no_grad():
            method._insertion.compactors[0].weight.fill_(float("nan"))
        with pytest.raises(InvalidScore, match="diverged"):
            step(method)


def test_no_optimiser_that_holds_the_convolutions_is_refused():
    model = made(Basic)
    method = ResRep(traced(model), steps=3, budget="macs=60%", interval=1, added=50)
    with pytest.raises(UserMistake, match="none of the optimizers"), method:
        pass
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_compiled_before_runs_the_compactors_while_they_are_in_it():
    model = chain((8,)).train()
    compiled = torch.compile(model, backend="eager")
    plain = compiled(image())
    with method_of(model, added=4) as method:
        with torch.no_grad():
            method._insertion.compactors[0].weight.mul_(2)
        assert not torch.allclose(compiled(image()), plain, atol=1e-2)
        compiled(image()).square().mean().backward()
        method.before_step()
        method.after_step()
    assert torch.allclose(compiled(image()), plain, atol=1e-5)


def test_a_copy_of_the_model_made_meanwhile_is_one_of_its_own():
    model = made(Basic).eval()
    with method_of(model) as method:
        copied = copy.deepcopy(model)
        with torch.no_grad():
            method._insertion.compactors[0].weight.zero_()
            expected = model(image())
            for parameter in model.parameters():
                parameter.zero_()
            assert not torch.equal(copied(image()), model(image()))
            assert not torch.equal(copied(image()), expected)
