"""Optimisers, gradients and copies are cut along, and training goes on."""

import copy
from functools import partial

import pytest
import torch
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

import cutback
from cutback.errors import ArchitectureMismatch, OptimizerStateError, UserMistake
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
    "muon": optim.Muon,
}
ELSEWHERE = {optim.LBFGS: "test_lbfgs.py", optim.SparseAdam: "test_sparse_gradients_and_their_state_are_cut_along"}


def held_by(kind, model):
    """Return the parameters an optimiser takes: Muon takes matrices only."""
    return [parameter for parameter in model.parameters() if kind != "muon" or parameter.dim() == 2]


def test_no_optimizer_of_torch_is_left_out():
    tested = {getattr(make, "func", make) for make in OPTIMIZERS.values()}
    offered = {kind for kind in vars(optim).values() if isinstance(kind, type) and issubclass(kind, optim.Optimizer)}
    assert tested | ELSEWHERE.keys() == offered - {optim.Optimizer}


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
    optimizer = OPTIMIZERS[kind](held_by(kind, model))
    for step in range(2):
        train_step(model, optimizer, step)
    parameters = dict(model.named_parameters())
    before = {
        name: (parameter.shape, copy.deepcopy(optimizer.state.get(parameter, {})))
        for name, parameter in parameters.items()
    }
    assert sum(bool(state) for _, state in before.values()) == len(held_by(kind, model))
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, optimizers=[optimizer])
    assert dict(model.named_parameters()).keys() == parameters.keys()
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name]
        whole, old = before[name]
        assert optimizer.state.get(parameter, {}).keys() == old.keys()
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, kept_part(old[key], plan, name, whole)), (name, key)
            else:
                assert value == old[key]
    weights = [parameter for parameter in held_by(kind, model) if parameter.dim() > 1]
    before_step = [parameter.detach().clone() for parameter in weights]
    train_step(model, optimizer)
    assert model.inner.weight.shape == (5, 4, 3, 3)
    assert model.head.weight.shape == (4, 4)
    assert not any(torch.equal(a, b) for a, b in zip(weights, before_step, strict=True))


def test_sparse_gradients_and_their_state_are_cut_along():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 8, sparse=True)
            self.inner, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, words):
            return self.head(torch.relu(self.inner(self.table(words))))

    words = torch.tensor([[1, 4, 4], [7, 0, 1]])
    model = Words()
    optimizer = optim.SparseAdam(model.table.parameters())
    model(words).square().sum().backward()
    optimizer.step()
    table = model.table.weight
    old, gradient = copy.deepcopy(optimizer.state[table]), table.grad.to_dense()
    graph = cutback.trace(model, words)
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, optimizers=optimizer)
    kept = list(plan.slices["table.weight"][1].indices)
    assert len(kept) == 4
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[table][key], old[key][:, kept])
    assert optimizer.state[table]["step"] == old["step"] == 1
    assert table.grad.is_sparse
    assert torch.equal(table.grad.to_dense(), gradient[:, kept])
    before = table.detach().clone()
    optimizer.zero_grad()
    model(words).square().sum().backward()
    optimizer.step()
    assert (table != before).any(1).tolist() == [row in (0, 1, 4, 7) for row in range(10)]


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


@pytest.mark.parametrize("with_copy", [True, False])
def test_gradients_are_cleared_on_demand_and_nothing_else(with_copy):
    model, other, twin = residual(), residual(), residual()
    for network in (model, other, twin):
        network(image()).sum().backward()
    for network, gradients in ((model, "clear"), (twin, "cut")):
        graph = cutback.trace(network, image())
        plan = cutback.plan(graph, keep={"inner": "50%"})  # the head is not cut, and its gradient is cleared too
        cutback.apply_(graph, plan, copies=[other] if with_copy and network is model else [], gradients=gradients)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all((parameter.grad is None) == with_copy for parameter in other.parameters())
    assert all(parameter.grad.shape == parameter.shape for parameter in twin.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_an_unknown_wish_for_gradients_is_refused():
    model = residual()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(model)
    with pytest.raises(UserMistake, match=r"gradients is 'keep'; pass 'cut' .* or 'clear'"):
        cutback.apply_(graph, plan, gradients="keep")
    assert snapshot(model) == before


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


def test_a_plain_copy_is_cut_along():
    model = residual()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)  # a copy has values of its own
    expected, parameters = copy.deepcopy(other), list(other.parameters())
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan, copies=other)
    cutback.apply_(cutback.trace(expected, image()), plan)
    assert all(a is b for a, b in zip(other.parameters(), parameters, strict=True))
    found = other.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert other.depthwise.groups == model.depthwise.groups == other.stem.out_channels


AVERAGES = {
    "equal": AveragedModel,
    "exponential": partial(AveragedModel, multi_avg_fn=get_ema_multi_avg_fn(0.5)),
    "stochastic": partial(AveragedModel, multi_avg_fn=get_swa_multi_avg_fn()),
    "by hand": partial(AveragedModel, avg_fn=lambda average, new, _: 0.25 * average + 0.75 * new),
    "with buffers": partial(AveragedModel, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_go_on_as_those_of_the_dense_model_would(kind):
    """What an average of the cut model becomes is what the dense one becomes, at the places that stay."""
    model = residual()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    average = AVERAGES[kind](model)
    for step in range(2):
        train_step(model, optimizer, step)
        average.update_parameters(model)
    dense, dense_average = copy.deepcopy(model), copy.deepcopy(average)
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, optimizers=optimizer, copies=average)
    assert average.n_averaged == dense_average.n_averaged == 2
    with torch.no_grad():
        for network in (model, dense):
            for tensor in network.state_dict().values():
                tensor.add_(1)
    average.update_parameters(model)
    dense_average.update_parameters(dense)
    assert average.n_averaged == 3
    whole, found = dense_average.module.state_dict(), average.module.state_dict()
    assert found["inner.weight"].shape == (5, 4, 3, 3)
    for name, tensor in whole.items():
        assert torch.equal(found[name], kept_part(tensor, plan, name, tensor.shape)), name
    assert torch.isfinite(average.eval()(image())).all()


def test_a_copy_of_another_architecture_is_refused_and_nothing_changes():
    model = residual()
    graph = cutback.trace(model, image())
    before = snapshot(model)
    with pytest.raises(ArchitectureMismatch, match="the model it was made for"):
        cutback.apply_(graph, cutback.plan(graph, budget="macs=50%"), copies=[chain()])
    assert snapshot(model) == before
