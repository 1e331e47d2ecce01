"""How many forward and backward passes a proof takes."""

import dataclasses
from collections import Counter

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

import cutback
from cutback.errors import DataDependentControlFlow, NotEquivalent
from cutback.planning.plan import Kept
from tests.helpers import chain, image, randomised, residual


class Counted(TorchDispatchMode):
    """Counts the convolutions that are computed, and those that are differentiated."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[func] += 1
        return func(*args, **(kwargs or {}))

    def passes(self, convolutions):
        operators = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default
        return tuple(self.calls[operator] / convolutions for operator in operators)


def normed():
    """A network whose group norm mixes channels."""
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.LayerNorm([4, 4]), nn.ReLU()]
    return randomised(nn.Sequential(*layers, nn.Conv2d(8, 2, 1)))


class Rooted(nn.Module):
    """Gives NaN on inputs below zero."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3)

    def forward(self, images):
        return self.head(self.stem(images.sqrt()).relu())


@pytest.mark.parametrize(("build", "convolutions"), [(residual, 4), (chain, 2), (normed, 3)])
def test_a_proof_takes_four_forward_passes_and_one_backward_pass_a_mode(build, convolutions):
    graph = cutback.trace(build(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    with Counted() as counted:
        proof = cutback.prove(graph, plan)
    assert proof.modes == ("eval", "train")
    assert not proof.double
    assert counted.passes(convolutions) == (2 * 4, 2 * 1)


def test_inputs_that_may_not_be_negative_take_one_run_of_the_graph_more():
    graph = cutback.trace(randomised(Rooted()), image().abs())
    plan = cutback.plan(graph, budget="channels=50%")
    with Counted() as counted:
        cutback.prove(graph, plan)
    assert counted.passes(2) == (2 * 5, 2 * 1)


@pytest.mark.parametrize("own_values", [True, False])
@pytest.mark.parametrize(("build", "slot"), [(residual, ("outer.weight", 1)), (normed, ("3.weight", 1))])
def test_each_pair_of_runs_catches_a_wrong_cut_alone(build, slot, own_values, monkeypatch):
    """On the model's values and on random ones: neither comparison leans on the other."""
    graph = cutback.trace(build(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    kept = plan.slices[slot[0]][slot[1]]
    removed = next(index for index in range(kept.total) if index not in kept.indices)
    slices = {name: dict(dimensions) for name, dimensions in plan.slices.items()}
    slices[slot[0]][slot[1]] = Kept(kept.total, (removed, *kept.indices[1:]))
    wrong = dataclasses.replace(plan, slices=slices)
    other = "on_random_values" if own_values else "on_own_values"
    nothing = cutback.Proof(0.0, double=False, comparisons=0)
    monkeypatch.setattr(f"cutback.surgery.verify._Check.{other}", lambda *_: nothing)
    assert cutback.prove(graph, plan).comparisons > 0
    with pytest.raises(NotEquivalent) as caught:
        cutback.prove(graph, wrong)
    assert caught.value.module == slot[0].rpartition(".")[0]


class Growing(nn.Module):
    """Returns another shape from one call to the next."""

    calls = 0

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, images):
        type(self).calls += 1
        features = self.head(self.stem(images))
        return features if self.calls <= self.steady else features[:, : self.calls % 3 + 1]


class Observed(nn.Module):
    """Computes something else while it is recorded than when it runs."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, images):
        return self.head(self.stem(images) * (1 if isinstance(images, FakeTensor) else 2))


def test_a_shape_that_changes_from_call_to_call_is_named():
    model = randomised(Growing())
    Growing.steady = 10**6
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    Growing.steady = 0
    with pytest.raises(DataDependentControlFlow, match="Growing"):
        cutback.prove(graph, plan)


def test_a_model_that_behaves_otherwise_while_recorded_is_named():
    """The dense and the pruned model agree with each other, but not with the graph the plan was made from."""
    graph = cutback.trace(randomised(Observed()), image())
    plan = cutback.plan(graph, budget="channels=50%")
    with pytest.raises(DataDependentControlFlow, match="Observed computes something else than was recorded"):
        cutback.prove(graph, plan)
