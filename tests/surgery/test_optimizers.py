"""Optimisers, gradients and copies are cut along, and training goes on."""

import copy
from functools import partial

import pytest
import torch
from torch import optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import cutback
from cutback.errors import ArchitectureMismatch, OptimizerStateError
from tests.helpers import chain, image, residual, snapshot, train_step

OPTIMIZERS = {
    "sgd": partial(optim.SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adam": optim.Adam,
    "adamw": partial(optim.AdamW, amsgrad=True),
    "rmsprop": partial(optim.RMSprop, momentum=0.9, centered=True),
    "adagrad": optim.Adagrad,
    "adadelta": optim.Adadelta,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "adamax": optim.Adamax,
    "asgd": optim.ASGD,
    "rprop": optim.Rprop,
    "adafactor": optim.Adafactor,
}


def kept_part(tensor, plan, name, whole):
    """Return what the plan keeps of a tensor that belongs to a parameter, by plain indexing."""
    for dimension, kept in plan.slices.get(name, {}).items():
        if tensor.dim() == len(whole) and tensor.shape[dimension] == whole[dimension]:
            index = [slice(None)] * tensor.dim()
            index[dimension] = list(kept.indices)
            tensor = tensor[tuple(index)]
    return tensor


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_of_every_optimizer_is_cut_along(kind):
    model = residual()
    optimizer = OPTIMIZERS[kind](model.parameters())
    for step in range(2):
        train_step(model, optimizer, step)
    parameters = dict(model.named_parameters())
    before = {
        name: (parameter.shape, copy.deepcopy(optimizer.state[parameter])) for name, parameter in parameters.items()
    }
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, optimizers=[optimizer])
    assert dict(model.named_parameters()).keys() == parameters.keys()
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
        whole, old = before[name]
        assert optimizer.state[parameter].keys() == old.keys()
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, kept_part(old[key], plan, name, whole)), (name, key)
            else:
                assert value == old[key]
    before_step = model.inner.weight.detach().clone()
    train_step(model, optimizer)
    assert model.inner.weight.shape == before_step.shape == (5, 4, 3, 3)
    assert not torch.equal(model.inner.weight, before_step)


def test_training_after_the_cut_equals_training_the_same_network_anew():
    """The cut optimiser takes exactly the step an optimiser with the cut state takes on a fresh network."""
    model = residual()
    optimizer = optim.AdamW(model.parameters())
    train_step(model, optimizer)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="macs=50%"), optimizers=[optimizer])
    fresh = copy.deepcopy(model)
    other = optim.AdamW(fresh.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for network, own in ((model, optimizer), (fresh, other)):
        train_step(network, own, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True))


def test_gradients_are_cut_along_and_accumulation_goes_on():
    model = residual()
    model(image()).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, kept_part(gradients[name], plan, name, shapes[name]))
    model(image(1)).sum().backward()
    assert model.inner.weight.grad.shape == model.inner.weight.shape


def test_a_loss_from_before_the_cut_does_not_break_the_next_backward():
    model = residual()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    old_loss = model(image()).square().mean()
    old_loss.backward(retain_graph=True)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=[optimizer])
    optimizer.zero_grad()
    loss = model(image()).square().mean()
    loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
    assert old_loss.grad_fn is not None


@pytest.mark.parametrize("first", [True, False])
def test_history_in_one_piece_is_refused_and_nothing_changes(first):
    model = chain()
    optimizer = optim.LBFGS(model.parameters(), max_iter=2, history_size=3)

    def closure():
        optimizer.zero_grad()
        loss = model(image()).square().mean()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    graph = cutback.trace(model, image())
    # LBFGS files its history under its first parameter, whether that one is cut or not.
    plan = cutback.plan(graph, budget="channels=50%", ignore=[] if first else ["0"])
    before = snapshot(model, [optimizer])
    with pytest.raises(OptimizerStateError, match=r"LBFGS.*new optimiser"):
        cutback.apply_(graph, plan, optimizers=[optimizer])
    assert snapshot(model, [optimizer]) == before


@pytest.mark.parametrize(
    "strange", [torch.zeros(3), torch.zeros(8, 3, 3), [torch.zeros(8)], {"m": torch.zeros(8, 3, 3, 3)}]
)
def test_state_of_unknown_shape_is_refused(strange):
    model = chain()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model[0].weight]["memory"] = strange
    graph = cutback.trace(model, image())
    before = snapshot(model, [optimizer])
    with pytest.raises(OptimizerStateError, match=r"SGD: memory of 0\.weight"):
        cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=[optimizer])
    assert snapshot(model, [optimizer]) == before


def test_several_optimizers_and_one_without_state():
    model = residual()
    head = optim.Adam(model.head.parameters())
    body = optim.SGD([p for name, p in model.named_parameters() if not name.startswith("head")], lr=0.1, momentum=0.9)
    model(image()).sum().backward()
    body.step()
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=[head, body])
    for optimizer in (head, body):
        train_step(model, optimizer)
    assert head.state[model.head.weight]["exp_avg"].shape == (4, 4)


@pytest.mark.parametrize("averaged", [True, False])
def test_copies_are_cut_along(averaged):
    model = residual()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)) if averaged else copy.deepcopy(model)
    inner = ema.module if averaged else ema
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.mul_(1.5)  # a copy has values of its own
    expected, parameters = copy.deepcopy(inner), list(inner.parameters())
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan, copies=[ema])
    cutback.apply_(cutback.trace(expected, image()), plan)
    assert all(a is b for a, b in zip(inner.parameters(), parameters, strict=True))
    found = inner.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert inner.depthwise.groups == model.depthwise.groups == inner.stem.out_channels
    if averaged:
        ema.update_parameters(model)
    assert torch.isfinite(ema.eval()(image())).all()


def test_a_copy_of_another_architecture_is_refused_and_nothing_changes():
    model = residual()
    graph = cutback.trace(model, image())
    before = snapshot(model)
    with pytest.raises(ArchitectureMismatch, match="the model it was made for"):
        cutback.apply_(graph, cutback.plan(graph, budget="macs=50%"), copies=[chain()])
    assert snapshot(model) == before
