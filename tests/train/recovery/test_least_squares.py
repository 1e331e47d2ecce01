"""Least-squares reconstruction: exact where it can be, the naive solution elsewhere, and what it skips."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import cutback
from cutback.errors import DataError
from cutback.train import evaluate, fit, load_data
from cutback.train.batches import Sample
from cutback.train.recovery import LeastSquares, Situation, parse_recovery
from tests.helpers import Residual, plain, randomised
from tests.train.recovery.situations import after_cut, situation

CPU = torch.device("cpu")


def images(count: int = 16, size: int = 8, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def calibration(batches: int = 3, **options: int) -> list[tuple[Tensor, None]]:
    """Batches without labels."""
    return [(images(seed=seed, **options), None) for seed in range(1, batches + 1)]


def error(made: Situation, seed: int = 99) -> float:
    """Return how far the cut network's outputs are from the dense one's, relative to their deviation."""
    with torch.no_grad():
        dense, cut = (model.eval()(images(seed=seed)) for model in (made.dense, made.model))
    return float((dense - cut).square().mean().sqrt() / dense.std())


class Twins(nn.Module):
    """Every inner channel has a twin of another scale: half of the channels say all there is to know."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.between = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False) if kind == "depthwise" else nn.Identity()
        groups = 2 if kind == "grouped" else 1
        bias = kind != "norm"
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(6) if kind == "norm" else nn.Identity()
        self.flat = kind == "flat"
        self.head = nn.Linear(6 * 16 if self.flat else 6, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.between(torch.relu(self.first(inputs)))
        features = torch.relu(self.norm(self.second(inner)))
        return self.head(features.flatten(1) if self.flat else features.mean((2, 3)))


def with_twins(kind: str) -> Twins:
    net = randomised(Twins(kind))
    with torch.no_grad():
        for layer in (net.first, net.between):
            if isinstance(layer, nn.Conv2d):
                scale = 1 if layer is net.between else 2
                layer.weight[1::2] = scale * layer.weight[::2]
                if layer.bias is not None:
                    layer.bias[1::2] = scale * layer.bias[::2]
    return net


def keep_even(graph: cutback.Graph) -> dict[str, Tensor]:
    """Score every second unit of the first group lowest."""
    return {group.name: torch.tensor([float(unit % 2 == 0) for unit in range(group.units)]) for group in graph.groups}


@pytest.mark.parametrize("kind", ["plain", "norm", "depthwise", "grouped", "flat"])
def test_what_the_channels_that_stay_still_know_comes_back_exactly(kind: str) -> None:
    net = with_twins(kind)
    small = copy.deepcopy(net)
    graph = cutback.trace(small, images(2))
    plan = cutback.plan(graph, score=keep_even, budget="channels=50%", ignore=["second", "head"])
    cutback.apply_(graph, plan)
    made = situation(small, calibration(), dense=net, plan=plan)
    assert small.first.weight.shape[0] == 2
    assert error(made) > 0.1
    outcome = LeastSquares(ridge=1e-9).apply(made)
    assert outcome.done == ("second",)
    assert error(made) < 1e-3


class Chain(nn.Module):
    """Two convolutions, the second without a bias before a batch norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.second(torch.relu(self.first(inputs))))).mean((2, 3)))


def test_a_layer_gets_the_weights_that_a_naive_solution_gives() -> None:
    net, batches = randomised(Chain()), calibration(2, count=5, size=4)
    made = after_cut(net, images(2), batches)
    kept = [made.plan.slices[f"{path}.weight"][0].indices for path in ("first", "second")]
    before = copy.deepcopy(made.model)
    LeastSquares(ridge=0.01).apply(made)
    rows, errors = [], []
    with torch.no_grad():
        for inputs, _ in batches:
            wanted = net.second(torch.relu(net.first(inputs)))[:, list(kept[1])].double().numpy()
            taken = torch.relu(before.first(inputs))
            given = before.second(taken).double().numpy()
            taken = np.pad(taken.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
            for sample in range(5):
                for row in range(4):
                    for column in range(4):
                        rows.append(taken[sample, :, row : row + 3, column : column + 3].flatten())
                        errors.append(wanted[sample, :, row, column] - given[sample, :, row, column])
    a, e = np.array(rows), np.array(errors)
    a_mean, e_mean = a.mean(0), e.mean(0)
    gram = (a - a_mean).T @ (a - a_mean)
    change = np.linalg.solve(gram + 0.01 * np.mean(np.diag(gram)) * np.eye(len(gram)), (a - a_mean).T @ (e - e_mean))
    expected = before.second.weight.detach().double().flatten(1).numpy() + change.T
    np.testing.assert_allclose(made.model.second.weight.detach().flatten(1), expected, rtol=1e-4, atol=1e-5)
    mean = before.norm.running_mean.double().numpy() - (e_mean - a_mean @ change)
    np.testing.assert_allclose(made.model.norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    assert torch.equal(made.model.norm.running_var, before.norm.running_var)


def test_it_helps_a_residual_network_and_touches_nothing_else() -> None:
    net = randomised(Residual()).train()
    made = after_cut(net, images(2), calibration())
    made.model.stem_norm.eval()
    before, dense = error(made), plain(dict(made.dense.state_dict()))
    made.model.train()
    made.model.stem_norm.eval()
    state = torch.get_rng_state()
    outcome = LeastSquares().apply(made)
    assert made.model.inner.training
    assert not made.model.stem_norm.training
    assert error(made) < 0.5 * before
    assert torch.equal(torch.get_rng_state(), state)
    assert plain(dict(made.dense.state_dict())) == dense
    assert set(outcome.done) == {"inner", "outer", "depthwise", "head"}  # the stem's inputs are all there
    assert not outcome.skipped
    assert "squared errors" in outcome.notes[0]
    for module in [*made.model.modules(), *made.dense.modules()]:
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_statistics_of_before_have_no_part_in_it() -> None:
    net, found = randomised(Residual()), []
    for chain in ("least-squares", "bn,least-squares"):
        made = after_cut(net, images(2), calibration())
        for step in parse_recovery(chain):
            step.apply(made)
        found.append(plain(dict(made.model.state_dict())))
    assert {**dict(found[0]), "stem_norm.num_batches_tracked": 0, "inner_norm.num_batches_tracked": 0} == {
        **dict(found[1]),
        "stem_norm.num_batches_tracked": 0,
        "inner_norm.num_batches_tracked": 0,
    }


class Odd(nn.Module):
    """Layers that cannot be reconstructed, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.normed = weight_norm(nn.Conv2d(8, 8, 1))
        self.back = nn.ConvTranspose2d(8, 8, 1)
        self.centred, self.same = Centred(8, 8, 1), Same(8, 8, 3)
        self.tied, self.again = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.again.weight = self.tied.weight
        self.free = nn.Parameter(torch.randn(8, 8, 1, 1))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.normed(torch.relu(self.stem(inputs)))
        hidden = self.same(torch.relu(self.centred(self.back(torch.relu(hidden)))))
        hidden = nn.functional.conv2d(torch.relu(self.tied(torch.relu(hidden))), self.free)
        return self.head(torch.relu(hidden)).mean((2, 3)) + self.again(hidden).mean()


class Centred(nn.Conv2d):
    """A convolution with another weight than the one it holds."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self._conv_forward(inputs, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Same(nn.Conv2d):
    """A convolution that pads for itself."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(inputs, (1, 1, 1, 1)))


def test_what_it_cannot_treat_it_names() -> None:
    torch.manual_seed(0)
    made = after_cut(Odd(), images(2), calibration())
    before = error(made)
    outcome = LeastSquares().apply(made)
    reasons = dict(outcome.skipped)
    assert reasons == {
        "back": "ConvTranspose2d is no linear layer or convolution",
        "free": "it is used without a layer of its own",
        "normed": "its weight is computed from other parameters",
        "centred": "Centred does not put out the plain product with its weight",
        "same": "Same does not put out the plain product with its weight",
        "tied": "it shares its weight with again",
        "again": "it shares its weight with tied",
    }
    assert outcome.done == ("head",)
    assert error(made) < before


def test_without_batches_or_with_wild_values_it_refuses_and_changes_nothing() -> None:
    made = after_cut(randomised(Residual()), images(2), [])
    before = plain(dict(made.model.state_dict()))
    with pytest.raises(DataError, match="there are no calibration batches"):
        LeastSquares().apply(made)
    made = after_cut(randomised(Residual()), images(2), [(images() * float("inf"), None)])
    outcome = LeastSquares().apply(made)
    assert {reason for _, reason in outcome.skipped} == {"its outputs are not finite"}
    assert plain(dict(made.model.state_dict())) == before


class Failing:
    """Batches of which no more can be read after some time."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[tuple[Tensor, None]]:
        self.passes -= 1
        if not self.passes:
            raise DataError("the disk is gone")
        yield from calibration()


def test_a_failure_on_the_way_leaves_the_network_as_it_was() -> None:
    made = after_cut(randomised(Residual()), images(2), Failing(passes=4))
    before = plain(dict(made.model.state_dict()))
    with pytest.raises(DataError, match="the disk is gone"):
        LeastSquares().apply(made)
    assert plain(dict(made.model.state_dict())) == before
    assert made.model.training


class Small(nn.Module):
    """A network that learns the digits in a few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.second_norm = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.third, self.third_norm = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = nn.functional.max_pool2d(torch.relu(self.first_norm(self.first(inputs))), 2)
        hidden = torch.relu(self.second_norm(self.second(hidden)))
        return self.head((hidden + torch.relu(self.third_norm(self.third(hidden)))).mean((2, 3)))


def test_half_of_the_accuracy_that_a_cut_cost_comes_back_without_labels() -> None:
    data = load_data("digits", seed=0)
    torch.manual_seed(0)
    net = Small()
    fit(net, data, epochs=4, seed=0, batch_size=32)
    blind = [(inputs, None) for inputs, _ in Sample(data.train, 512, 128, CPU, 0)]
    made = after_cut(net, data.train[:2][0], blind)
    dense, cut = (evaluate(model, data.validation).top1 for model in (net, made.model))
    LeastSquares().apply(made)
    recovered = evaluate(made.model, data.validation).top1
    assert dense - cut > 0.2
    assert recovered >= cut + (dense - cut) / 2
