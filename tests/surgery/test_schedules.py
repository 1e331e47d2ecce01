"""Learning rate schedulers and gradient scalers do not notice a cut."""

import copy

import pytest
import torch
from torch.optim import SGD, lr_scheduler
from torch.optim.swa_utils import SWALR

import cutback
from tests.helpers import image, residual, snapshot

SCHEDULERS = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 5),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=6),
    "by hand": lambda optimizer: lr_scheduler.LambdaLR(optimizer, [lambda step: 0.5**step, lambda step: 0.9**step]),
    "warm-up": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)], [3]
    ),
    "averaging": lambda optimizer: SWALR(optimizer, 0.5, anneal_epochs=4),
}


def grouped(model):
    head = list(model.head.parameters())
    body = [parameter for name, parameter in model.named_parameters() if not name.startswith("head")]
    return SGD([{"params": body}, {"params": head, "lr": 0.05}], lr=0.1, momentum=0.9)


def rates(model, cut, make):
    """Return the learning rates of six steps with a cut in the middle."""
    optimizer = grouped(model)
    scheduler, groups, found = make(optimizer), [id(group) for group in optimizer.param_groups], []
    for step in range(6):
        if step == 3 and cut:
            graph = cutback.trace(model, image())
            cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=optimizer)
        optimizer.zero_grad()
        loss = model(image(step)).square().mean()
        loss.backward()
        optimizer.step()
        found.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
        scheduler.step()
    assert [id(group) for group in optimizer.param_groups] == groups
    return found


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_schedule_goes_on_through_a_cut(kind):
    model = residual()
    whole = rates(copy.deepcopy(model), cut=False, make=SCHEDULERS[kind])
    assert len({str(step) for step in whole}) > 1
    assert rates(model, cut=True, make=SCHEDULERS[kind]) == whole
    assert model.inner.out_channels == 5


def test_a_plateau_is_remembered_through_a_cut():
    model = residual()
    optimizer = grouped(model)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.1)
    scheduler.step(1.0)
    scheduler.step(2.0)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=optimizer)
    scheduler.step(2.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.005])


@pytest.mark.parametrize("gradients", ["cut", "clear"])
def test_a_gradient_scaler_is_untouched(gradients):
    model = residual()
    optimizer, scaler = grouped(model), torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for step in range(2):
        if step == 1:
            before = copy.deepcopy(scaler.state_dict())
            graph = cutback.trace(model, image())
            plan = cutback.plan(graph, budget="channels=50%")
            cutback.apply_(graph, plan, optimizers=optimizer, gradients=gradients)
            assert scaler.state_dict() == before
        optimizer.zero_grad()
        scaler.scale(model(image(step)).square().mean()).backward()
        scaler.unscale_(optimizer)
        weights = snapshot(model)
        scaler.step(optimizer)
        scaler.update()
        assert snapshot(model) != weights
    assert scaler.get_scale() == 16.0


def test_a_cut_between_unscaling_and_stepping():
    """The scaler takes the step with the gradients that stay, divided once by its scale."""
    model = residual()
    optimizer, scaler = SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.scale(model(image()).square().mean()).backward()
    scaler.unscale_(optimizer)
    dense = copy.deepcopy(model)
    for mine, other in zip(model.parameters(), dense.parameters(), strict=True):
        other.grad = mine.grad.clone()
    SGD(dense.parameters(), lr=0.1).step()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, optimizers=optimizer)
    scaler.step(optimizer)
    scaler.update()
    rows, columns = (list(plan.slices["inner.weight"][dimension].indices) for dimension in (0, 1))
    assert torch.equal(model.inner.weight, dense.inner.weight[rows][:, columns])
