"""The experiments with pruned activation gradients, shortened, with the bounds of the whole."""

import pytest
import torch

from benchmarks.gradient_pruning import WAYS, noise, steps_table
from benchmarks.gradient_pruning_acceptance import NEAR, RUNS, on_gratings
from cutback.methods.gradient_pruning.rule import normal_zeros


@pytest.mark.slow
def test_training_with_pruned_gradients_loses_nothing_and_cutting_them_does():
    short = ("plain", "0.9", "cut at 0.99")
    found = {how: on_gratings(RUNS[how], norm=True, seed=0, epochs=3, count=768) for how in short}
    assert found["plain"].accuracy > 90
    assert found["0.9"].accuracy >= found["plain"].accuracy - NEAR
    assert found["cut at 0.99"].accuracy < found["plain"].accuracy - 3
    assert found["0.9"].zeros >= normal_zeros(0.9) - 0.02


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("rows", [True, False])
def test_all_ways_to_compute_the_backward_products_give_the_same(rows):
    x, gradient = noise((2, 4, 6), 0.9, rows=rows)
    assert float((gradient == 0).double().mean()) > 0.8
    weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    leaf = x.clone().requires_grad_()
    torch.nn.functional.conv2d(leaf, weight, padding=1).backward(gradient)
    for name, way in WAYS.items():
        for found, expected in zip(way(x, weight.detach(), gradient), (weight.grad, leaf.grad), strict=True):
            assert torch.allclose(found, expected, atol=1e-4), name


def test_the_table_of_steps_counts_zeros_and_measures_time():
    rows = [line.split("|")[1:-1] for line in steps_table(2, 1)[2:]]
    assert [row[0].strip() for row in rows] == ["plain", "0.9", "0.9, no log", "0.99"]
    zeros = {row[0].strip(): float(row[1]) for row in rows if row[1].strip()}
    assert 0.5 < zeros["0.9"] < zeros["0.99"] < 1
    assert all(float(row[4]) > 0 for row in rows)
