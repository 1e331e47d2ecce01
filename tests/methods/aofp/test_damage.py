"""The damage of a step against a loop over all numbers."""

import pytest
import torch
from torch import distributed

from cutback.methods.aofp.damage import Damages

CPU = torch.device("cpu")


def maps(seed, number=6):
    return torch.randn(number, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def loop(whole, without):
    changed = size = 0.0
    for a, b in zip(whole.flatten().tolist(), without.flatten().tolist(), strict=True):
        changed += (a - b) ** 2
        size += a * a
    return changed / size


def test_it_is_the_squared_change_by_the_squared_norm_of_the_whole_batch():
    damages, whole, without = Damages(["a", "b"], CPU), maps(0), maps(1)
    damages.add("b", whole, without)
    found = damages.take()
    assert found["a"] is None
    assert found["b"] == pytest.approx(loop(whole, without), rel=1e-6)
    assert damages.take() == {"a": None, "b": None}, "a step begins anew"


def test_micro_batches_say_what_the_whole_batch_says():
    damages, whole, without = Damages(["a"], CPU), maps(0), maps(1)
    for part, other in zip(whole.split([1, 3, 2]), without.split([1, 3, 2]), strict=True):
        damages.add("a", part, other)
    assert damages.take()["a"] == pytest.approx(loop(whole, without), rel=1e-6)
    means = [loop(part, other) for part, other in zip(whole.split([1, 3, 2]), without.split([1, 3, 2]), strict=True)]
    assert sum(means) / 3 != pytest.approx(loop(whole, without), rel=1e-3), "no mean of quotients"


def test_a_layer_that_returns_zeros_says_nothing():
    damages = Damages(["a"], CPU)
    damages.add("a", torch.zeros(2, 3), torch.ones(2, 3))
    assert damages.take() == {"a": None}


def test_half_precision_does_not_overflow():
    damages, whole = Damages(["a"], CPU), torch.full((4, 100), 300.0)
    damages.add("a", whole.half(), (whole / 2).half())
    assert damages.take()["a"] == pytest.approx(0.25)


def test_processes_add_their_norms(monkeypatch):
    """Another process has seen twice as much, and no damage."""
    whole, without = maps(0), maps(1)
    norm = whole.double().square().sum()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        distributed, "all_reduce", lambda tensor, _: tensor.add_(torch.tensor([[0.0, 2 * float(norm)]]))
    )
    damages = Damages(["a"], CPU)
    damages.add("a", whole, without)
    assert damages.take()["a"] == pytest.approx(loop(whole, without) / 3, rel=1e-6)
