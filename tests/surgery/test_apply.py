"""A cut is made whole or not at all, and only where the graph, the plan and the model belong together."""

import dataclasses
import random

import numpy as np
import pytest
import torch
import torchvision
from torch import nn, optim

import cutback
from cutback.errors import ArchitectureMismatch, NotEquivalent, StaleGraph, UnreachedParameters
from cutback.planning.plan import Kept
from cutback.surgery.transaction import Transaction
from cutback.surgery.verify import prove
from tests.helpers import chain, image, randomised, residual, snapshot, train_step


def tampered(plan, name, dimension, indices):
    """Return the plan with other indices for one slice."""
    total = plan.slices[name][dimension].total
    slices = {state: dict(dimensions) for state, dimensions in plan.slices.items()}
    slices[name][dimension] = Kept(total, tuple(indices))
    return dataclasses.replace(plan, slices=slices)


def one_swapped(plan, name, dimension):
    """Keep another column in the place of the first that is kept."""
    kept = plan.slices[name][dimension]
    other = next(index for index in range(kept.total) if index not in kept.indices)
    return tampered(plan, name, dimension, (other, *kept.indices[1:]))


def one_too_many(plan, name):
    kept = plan.slices[name][0]
    other = next(index for index in range(kept.total) if index not in kept.indices)
    return tampered(plan, name, 0, sorted((*kept.indices, other)))


def reordered(plan, name, dimension):
    return tampered(plan, name, dimension, reversed(plan.slices[name][dimension].indices))


WRONG = {
    "a column swapped": (lambda plan: one_swapped(plan, "outer.weight", 1), "outer"),
    "a filter swapped": (lambda plan: one_swapped(plan, "inner.weight", 0), "inner"),
    "columns in another order": (lambda plan: reordered(plan, "head.weight", 1), "head"),
    "a statistic swapped": (lambda plan: one_swapped(plan, "inner_norm.running_mean", 0), "inner_norm"),
    "one channel too many in a batch norm": (lambda plan: one_too_many(plan, "inner_norm.weight"), "inner_norm"),
    "a bias swapped": (lambda plan: one_swapped(plan, "depthwise.bias", 0), "depthwise"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_cut_is_caught_named_and_undone(what):
    spoil, module = WRONG[what]
    model = residual()
    model.inner.eval()
    optimizer = optim.Adam(model.parameters())
    train_step(model, optimizer)
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(model, [optimizer])
    with pytest.raises(NotEquivalent) as raised:
        cutback.apply_(graph, spoil(plan), optimizers=[optimizer])
    assert raised.value.module == module
    assert module in str(raised.value)
    assert snapshot(model, [optimizer]) == before
    cutback.apply_(graph, plan, optimizers=[optimizer])  # the graph is still good
    assert model.inner.out_channels == 5


@pytest.mark.parametrize("zero_init_residual", [True, False])
def test_a_zero_initialised_last_norm_hides_nothing(zero_init_residual):
    model = torchvision.models.resnet18(weights=None, num_classes=7)
    if zero_init_residual:
        for block in model.modules():
            if isinstance(block, torchvision.models.resnet.BasicBlock):
                nn.init.zeros_(block.bn2.weight)
    graph = cutback.trace(model, image(shape=(1, 3, 33, 33)))
    plan = cutback.plan(graph, budget="channels=50%")
    prove(graph, plan)
    wrong = one_swapped(plan, "layer3.1.conv2.weight", 1)
    with pytest.raises(NotEquivalent) as raised:
        prove(graph, wrong)
    assert raised.value.module == "layer3.1.conv2"


@pytest.mark.parametrize("step", [0, 1, 7, 20, -1])
def test_an_interrupt_in_the_middle_of_a_commit_rolls_back(monkeypatch, step):
    model = residual()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, optimizer)
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(model, [optimizer])
    commit = Transaction.commit

    def interrupted(transaction):
        make, undo = transaction._steps[step]

        def made_then_interrupted():
            make()
            raise KeyboardInterrupt

        transaction._steps[step] = (made_then_interrupted, undo)
        commit(transaction)

    monkeypatch.setattr(Transaction, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cutback.apply_(graph, plan, optimizers=[optimizer])
    assert snapshot(model, [optimizer]) == before
    monkeypatch.undo()
    train_step(model, optimizer)
    cutback.apply_(graph, plan, optimizers=[optimizer])
    train_step(model, optimizer)
    assert model.head.in_features == 4


def test_width_attributes_follow():
    model = residual()
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, keep={"stem": 3, "inner": 4}))
    assert (model.stem.in_channels, model.stem.out_channels) == (3, 3)
    assert (model.inner.in_channels, model.inner.out_channels) == (3, 4)
    assert (model.inner_norm.num_features, model.stem_norm.num_features) == (4, 3)
    assert (model.outer.in_channels, model.outer.out_channels) == (4, 3)
    assert (model.depthwise.in_channels, model.depthwise.out_channels, model.depthwise.groups) == (3, 3, 3)
    assert (model.slope.num_parameters, model.head.in_features, model.head.out_features) == (3, 3, 4)


def test_width_attributes_of_transposed_grouped_and_multiplied_convolutions():
    model = nn.Sequential(
        nn.ConvTranspose2d(3, 8, 2),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.ConvTranspose2d(16, 16, 2, groups=16),
        nn.Conv2d(16, 2, 1),
    )
    graph = cutback.trace(randomised(model), image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    widths = [(layer.in_channels, layer.out_channels, layer.groups) for layer in model]
    assert widths == [(3, 4, 1), (4, 8, 4), (8, 8, 8), (8, 2, 1)]


def test_a_graph_is_stale_after_a_cut():
    graph = cutback.trace(chain(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan)
    before = snapshot(graph.model)
    with pytest.raises(StaleGraph, match=r"0\.weight has changed.*trace it again"):
        cutback.apply_(graph, plan)
    assert snapshot(graph.model) == before


@pytest.mark.parametrize("other", [lambda: chain((8, 14)), residual, lambda: nn.Sequential(*chain(), nn.ReLU())])
def test_the_plan_of_another_architecture_is_refused(other):
    plan = cutback.plan(cutback.trace(chain(), image()), budget="channels=50%")
    graph = cutback.trace(other(), image())
    before = snapshot(graph.model)
    with pytest.raises(ArchitectureMismatch, match="another architecture than this"):
        cutback.apply_(graph, plan)
    assert snapshot(graph.model) == before


class Unreached(nn.Module):
    """Has a head that no forward pass uses."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.spare = nn.Conv2d(8, 5, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, images):
        return self.head(self.body(images).relu())


def test_a_cut_beside_unreached_parameters_needs_leave():
    model = randomised(Unreached())
    graph = cutback.trace(model, image())
    assert graph.unreached == ("spare.weight", "spare.bias")
    assert "spare.weight" in str(graph)
    plan = cutback.plan(graph, budget="channels=50%")
    before = snapshot(model)
    with pytest.raises(UnreachedParameters, match=r"spare\.weight.*ignore_unreached=True"):
        cutback.apply_(graph, plan)
    assert snapshot(model) == before
    cutback.apply_(graph, plan, ignore_unreached=True)
    assert (model.body.out_channels, model.spare.in_channels) == (4, 8)


def test_a_proof_leaves_everything_as_it_was():
    model = residual()
    model.inner_norm.eval()
    model.fired = 0
    model.inner.register_forward_hook(lambda *_: None)
    model(image()).sum().backward()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    before, matmul = snapshot(model), torch.backends.cuda.matmul.allow_tf32
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with torch.no_grad():
        proof = prove(graph, plan)
        assert not torch.is_grad_enabled()
    assert proof.error <= 1e-5
    assert proof.comparisons >= 4 * 9  # eval and train mode, own and random values: the output and eight modules
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # noqa: NPY002
    assert torch.backends.cuda.matmul.allow_tf32 == matmul


def test_frozen_parameters_stay_frozen():
    model = residual().requires_grad_(False)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="macs=50%"))
    assert model.head.in_features < 8
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_partly_frozen_parameters_stay_as_they_are():
    model = residual()
    model.stem.requires_grad_(False)
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="macs=50%"))
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["stem.weight"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_cut_and_proven(dtype):
    model = residual().to(dtype)
    graph = cutback.trace(model, image().to(dtype))
    plan = cutback.plan(graph, budget="channels=50%")
    with pytest.raises(NotEquivalent):
        prove(graph, one_swapped(plan, "outer.weight", 1))
    cutback.apply_(graph, plan)
    assert {tensor.dtype for tensor in model.parameters()} == {dtype}
    assert model(image().to(dtype)).dtype == dtype


def test_two_cuts_in_a_row_while_training():
    model = residual()
    optimizer = optim.Adam(model.parameters())
    for wanted in ("macs=70%", "macs=60%"):
        train_step(model, optimizer)
        graph = cutback.trace(model, image())
        cutback.apply_(graph, cutback.plan(graph, budget=wanted), optimizers=[optimizer])
    train_step(model, optimizer)
    assert cutback.measure.macs(model, image()) <= 0.42 * cutback.measure.macs(residual(), image())
