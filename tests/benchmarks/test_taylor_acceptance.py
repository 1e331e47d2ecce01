"""The acceptance of Taylor pruning in a short form, and the page's verdicts."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.correlation import learnt
from benchmarks.taylor_acceptance import CONTROLS, Result, Seed, bounds, identities, page, pruned
from cutback.gates import Gates
from tests.scores.networks import projected


@cache
def dense():
    return learnt(0, 3)


def test_gate_gradients_are_those_of_scale_and_shift():
    model, data = dense()
    found = identities(model, data.batches()[0])
    assert found["scale and shift"] < 1e-7
    assert found["scale alone"] >= 1e-4
    assert found["largest gradient"] > 1e-3
    assert found["before the norm, train mode"] < 2e-6  # after 8 epochs, as published on the page, below 1e-6


def test_before_the_norm_only_its_epsilon_leaves_a_gradient():
    model, images = copy.deepcopy(dense()[0]).double().train(), torch.randn(8, 1, 8, 8).double()
    with Gates(cutback.trace(model, images), "output") as gates:
        cross_entropy(model(images), torch.arange(8)).backward()
        found = gates.take()["0"].sum(0)
    norm, variance = model[1], model[0](images).var((0, 2, 3), correction=0)
    assert torch.allclose(found, norm.weight * norm.weight.grad * norm.eps / (variance + norm.eps), rtol=1e-6)


def test_a_gate_of_two_blocks_has_the_sum_of_the_gradients_of_two_gates():
    model = projected().double().eval()
    images, labels = torch.randn(4, 3, 8, 8).double(), torch.tensor([0, 1, 2, 3])
    with Gates(cutback.trace(model, images), "stream") as gates:
        cross_entropy(model(images), labels).backward()
        found = gates.take()["outer"].sum(0)
    first, second = (torch.ones(8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    stem = torch.relu(model.stem_norm(model.stem(images)))
    branch = model.outer_norm(model.outer(torch.relu(model.inner_norm(model.inner(stem)))))
    stream = torch.relu(branch + model.projection_norm(model.projection(stem))) * first[:, None, None]
    stream = torch.relu(stream + model.second_norm(model.second(stream))) * second[:, None, None]
    cross_entropy(model.head(stream.mean((2, 3))), labels).backward()
    assert torch.allclose(found, first.grad + second.grad, rtol=1e-10)


def test_iterative_pruning_beats_its_reverse_and_bookkeeping_is_exact():
    model, data = dense()
    found = {name: pruned(model, data, 0, CONTROLS[name], 4, 0) for name in ("taylor", "reversed")}
    assert found["taylor"].anew >= found["reversed"].anew + 10
    for result in found.values():
        assert (result.removed, sum(result.widths)) == (72, 72)
        assert min(result.widths) >= 1
        assert result.error <= 1e-5


GOOD = Seed(
    95.0,
    {"scale and shift": 1e-8, "scale alone": 1e-3, "before the norm, train mode": 1e-8, "largest gradient": 0.1},
    {
        "taylor": Result(60.0, 60.0, 94.0, (8, 16, 16, 32), 72, 1e-6),
        "random": Result(40.0, 40.0, 92.0, (8, 16, 16, 32), 72, 1e-6),
        "reversed": Result(20.0, 20.0, 50.0, (8, 16, 16, 32), 72, 1e-6),
        "l2 of all layers": Result(10.0, 10.0, 50.0, (1, 7, 32, 32), 72, 1e-6),
    },
)


@pytest.mark.parametrize(
    "change",
    [
        {"anew": 29.0},
        {"tuned": 90.9},
        {"widths": (0, 8, 32, 32)},
        {"removed": 71},
        {"error": 2e-5},
        {"scale and shift": 2e-7},
        {"scale alone": 9e-5},
        {"before the norm, train mode": 2e-6},
    ],
)
def test_the_page_says_which_bounds_are_met(change):
    assert all(bounds([GOOD, GOOD]).values())
    (name, value), bad = next(iter(change.items())), GOOD
    if name in GOOD.identities:
        bad = replace(GOOD, identities={**GOOD.identities, name: value})
    else:
        results = {**GOOD.results, "taylor": replace(GOOD.results["taylor"], **{name: value})}
        bad = replace(GOOD, results=results)
    text, met = page([GOOD, bad])
    assert not met
    assert text.count("MISSED") == 1
    assert "| taylor | 60.0 /" in text
