"""What L-BFGS remembers is cut along: vectors that hold all parameters one after the other."""

import copy

import pytest
import torch
from torch import nn, optim

import cutback
from cutback.errors import OptimizerStateError
from tests.helpers import chain, image, randomised, snapshot


def closure_of(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = (model(image()) - 1).square().mean()
        loss.backward()
        return loss

    return closure


def trained(model, steps=3, **settings):
    optimizer = optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", **settings)
    for _ in range(steps):
        optimizer.step(closure_of(model, optimizer))
    return optimizer


def cut_by_name(vector, shapes, plan):
    """Cut a flat vector by writing it into a state dict, and indexing that."""
    parts, start = [], 0
    for name, shape in shapes.items():
        part = vector[start : start + shape.numel()].reshape(shape)
        start += shape.numel()
        for dimension, kept in plan.slices.get(name, {}).items():
            part = part[(slice(None),) * dimension + (list(kept.indices),)]
        parts.append(part.reshape(-1))
    assert start == len(vector)
    return torch.cat(parts)


@pytest.mark.parametrize("ignore", [[], ["0"]])  # the history is filed under the first parameter, be it cut or not
def test_history_is_cut_by_the_layout_of_the_parameters(ignore):
    model = chain()
    optimizer = trained(model, max_iter=2, history_size=5)
    first = model[0].weight
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    old = copy.deepcopy(optimizer.state[first])
    assert len(old["old_dirs"]) > 1
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%", ignore=ignore)
    cutback.apply_(graph, plan, optimizers=optimizer)
    state = optimizer.state[first]
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert numbers < sum(shape.numel() for shape in shapes.values())
    pairs = [
        (cut_by_name(y, shapes, plan), cut_by_name(s, shapes, plan))
        for y, s in zip(old["old_dirs"], old["old_stps"], strict=True)
    ]
    pairs = [(y, s) for y, s in pairs if torch.dot(y, s) > 1e-10]
    assert pairs
    assert all(torch.equal(found, y) for found, (y, _) in zip(state["old_dirs"], pairs, strict=True))
    assert all(torch.equal(found, s) for found, (_, s) in zip(state["old_stps"], pairs, strict=True))
    for curvature, (y, s) in zip(state["ro"], pairs, strict=True):
        assert float(curvature) == pytest.approx(1 / float(y @ s), rel=1e-5)
    y, s = pairs[-1]
    assert float(state["H_diag"]) == pytest.approx(float(y @ s) / float(y @ y), rel=1e-5)
    assert torch.equal(state["prev_flat_grad"], cut_by_name(old["prev_flat_grad"], shapes, plan))
    assert torch.equal(state["d"], torch.zeros(numbers))
    assert (state["n_iter"], state["func_evals"]) == (old["n_iter"], old["func_evals"])


def test_no_pair_is_made_across_the_cut_and_the_loss_goes_on_falling():
    model = chain()
    optimizer = trained(model, max_iter=2, history_size=10)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=optimizer)
    state = optimizer.state[model[0].weight]
    remembered = [y.clone() for y in state["old_dirs"]]
    optimizer.param_groups[0]["max_iter"] = 1
    closure = closure_of(model, optimizer)
    losses = [optimizer.step(closure).item()]
    assert all(torch.equal(a, b) for a, b in zip(state["old_dirs"], remembered, strict=True))
    optimizer.param_groups[0]["max_iter"] = 5
    losses += [optimizer.step(closure).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert len(state["old_dirs"]) > len(remembered)


def test_pairs_without_positive_curvature_are_forgotten():
    model = randomised(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    optimizer = trained(model, max_iter=2)
    state = optimizer.state[model[0].weight]
    for vector in (*state["old_dirs"], *state["old_stps"]):
        vector.zero_()
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=optimizer)
    assert (state["old_dirs"], state["old_stps"], state["ro"], state["H_diag"]) == ([], [], [], 1)
    before = closure_of(model, optimizer)().item()
    optimizer.step(closure_of(model, optimizer))
    assert closure_of(model, optimizer)().item() < before


@pytest.mark.parametrize("steps", [0, 1])
def test_an_optimizer_that_has_hardly_begun(steps):
    model = chain()
    optimizer = trained(model, steps=steps, max_iter=1)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"), optimizers=optimizer)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step(closure_of(model, optimizer))
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_a_history_of_another_length_is_refused_and_nothing_changes():
    model = chain()
    optimizer = trained(model, max_iter=2)
    optimizer.state[model[0].weight]["old_dirs"][0] = torch.zeros(3)
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(model, [optimizer])
    with pytest.raises(OptimizerStateError, match=r"LBFGS.*shape \(3,\).*new optimiser"):
        cutback.apply_(graph, plan, optimizers=optimizer)
    assert snapshot(model, [optimizer]) == before
