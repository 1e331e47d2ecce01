"""What pruned channels add by their shift: absorbed as the formula says, exact without padding, dropped otherwise."""

import copy

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import NotEquivalent
from cutback.methods.absorbing import absorbed
from cutback.methods.slimming import Slimming
from cutback.methods.slimming.masking import scales_of
from tests.helpers import image, randomised
from tests.methods.slimming.networks import block, run, spread, traced


def network(*, bias: bool, padding: int = 0) -> nn.Sequential:
    """Two convolutions, the second with a bias or with a norm behind it, and a linear layer."""
    second = [nn.Conv2d(8, 6, 3, padding=padding, bias=bias), *([] if bias else [nn.BatchNorm2d(6)]), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=padding), nn.BatchNorm2d(8), nn.ReLU(), *second, *head)
    return spread(randomised(model))


def zeroed(model: nn.Sequential, kept: tuple[int, ...]) -> list[int]:
    """Set the scales of the channels of the first norm that go to zero; return which ones."""
    gone = [channel for channel in range(8) if channel not in kept]
    with torch.no_grad():
        model[1].weight[gone] = 0
    return gone


def cut(model: nn.Module, **settings) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    method = Slimming(traced(model), steps=1, optimizers=optimizer, sparsity=0.0, **settings)
    run(method, model, optimizer, 1)


@pytest.mark.parametrize("bias", [True, False])
def test_the_shift_that_is_absorbed_is_that_of_the_formula(bias) -> None:
    model = network(bias=bias)
    plan = cutback.plan(traced(model), keep={"0": 4})
    dense, kept = copy.deepcopy(model), plan.slices["0.weight"][0].indices
    graph = traced(model)
    with absorbed(graph, plan, scales_of(graph, plan)) as dropped:
        pass
    assert dropped == ()
    state = "3.bias" if bias else "4.running_mean"
    moved = model.state_dict()[state] - dense.state_dict()[state]
    for out in range(6):
        expected = 0.0
        for channel in set(range(8)) - set(kept):
            constant = max(dense[1].bias[channel].item(), 0.0)
            for u in range(3):
                for v in range(3):
                    expected += constant * float(dense[3].weight[out, channel, u, v])
        assert float(moved[out]) == pytest.approx(expected if bias else -expected, abs=1e-5)
    others = {name for name, value in model.state_dict().items() if not torch.equal(value, dense.state_dict()[name])}
    assert others == {state}


@pytest.mark.parametrize("bias", [True, False])
def test_scales_of_zero_are_removed_without_a_trace_where_nothing_is_padded(bias) -> None:
    pictures, errors = image(7), {}
    for absorb in (True, False):
        model = network(bias=bias)
        zeroed(model, (0, 2, 3, 5, 6))
        with torch.no_grad():
            if not bias:
                model[4].weight.add_(10)  # none of the second layer's goes
        dense = copy.deepcopy(model).eval()
        before = model.state_dict()["1.running_mean"].clone()
        budget = "channels=62.5%" if bias else "channels=79%"
        method = Slimming(traced(model), steps=1, budget=budget, absorb=absorb)
        with method:
            method.after_step()
        assert model[0].out_channels == 5
        assert torch.equal(model.state_dict()["1.running_mean"], before[[0, 2, 3, 5, 6]])
        errors[absorb] = float((model.eval()(pictures) - dense(pictures)).abs().max())
    assert errors[True] < 1e-5
    assert errors[False] > 1e-2


def test_padding_leaves_an_error_at_the_border_that_is_smaller_than_that_of_dropping() -> None:
    errors = {}
    for absorb in (True, False):
        model = network(bias=True, padding=1)
        zeroed(model, (0, 2, 3, 5, 6))
        dense = copy.deepcopy(model).eval()
        cut(model, budget="channels=62.5%", absorb=absorb)
        dense[1].running_mean, dense[1].running_var = dense[1].running_mean, dense[1].running_var
        fresh = image(7)
        model[1].running_mean.copy_(dense[1].running_mean[[0, 2, 3, 5, 6]])
        model[1].running_var.copy_(dense[1].running_var[[0, 2, 3, 5, 6]])
        errors[absorb] = float((model.eval()(fresh) - dense(fresh)).abs().mean())
    assert 0 < errors[True] < errors[False]


def test_shifts_that_nothing_can_take_are_dropped_with_a_warning() -> None:
    model = block()
    with pytest.warns(UserWarning, match=r"shifts of pruned channels that .*conv3\.weight.* were dropped"):
        cut(model, budget="channels=50%", absorb=True)
    assert model(image()).isfinite().all()


def test_a_cut_that_fails_leaves_the_shifts_as_they_were(monkeypatch) -> None:
    model = network(bias=True)
    before = copy.deepcopy(model.state_dict())
    method = Slimming(traced(model), steps=1, budget="channels=50%", absorb=True)

    def refuse(*_, **__):
        raise NotEquivalent("no")

    monkeypatch.setattr(method, "cut", refuse)
    with pytest.raises(NotEquivalent), method:
        method.after_step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
