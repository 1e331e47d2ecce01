"""What masks cost: the exact MACs where they are zeros and ones, and smooth in between."""

import pytest
import torch
from torch import nn

import cutback
from cutback import measure
from cutback.methods.subarchitecture.complexity import Complexity
from cutback.planning.cost import CostModel
from tests.helpers import chain, image, residual


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4)
        self.depthwise, self.head = nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 4, 1)

    def forward(self, images):
        return self.head(self.depthwise(self.grouped(self.stem(images).relu()).relu()).relu()).mean((2, 3))


def complexity(model, cost="macs"):
    graph = cutback.trace(model, image())
    return graph, Complexity(graph, range(len(graph.groups)), cost)


def naive(first, second):
    """The MACs of ``chain((8, 12))`` by its layers, given the sums of both masks."""
    return 64 * 9 * (3 * first + first * second) + second * 4


def test_of_a_chain_it_is_the_sum_of_products_of_neighbouring_widths():
    graph, found = complexity(chain((8, 12)))
    mask = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert [group.units for group in graph.groups] == [8, 12]
    expected = naive(float(mask[:8].sum()), float(mask[8:].sum())) / naive(8, 12)
    assert float(found.of(mask)) == pytest.approx(expected, rel=1e-12)
    assert float(found.of(torch.ones(20))) == 1
    prices = found.prices(mask)
    assert prices[:8].tolist() == pytest.approx([(64 * 9 * (3 + float(mask[8:].sum()))) / naive(8, 12)] * 8)
    assert prices[8:].tolist() == pytest.approx([(64 * 9 * float(mask[:8].sum()) + 4) / naive(8, 12)] * 12)


@pytest.mark.parametrize("make", [lambda: chain((8, 12)), residual, Grouped])
def test_at_whole_widths_it_is_what_the_cut_network_has(make):
    model = make()
    graph, found = complexity(model)
    cost = CostModel(graph)
    whole = torch.tensor([group.units for group in graph.groups])
    dense = measure.macs(model, image()[:1])
    assert float(cost.smooth_macs(whole.double())) == dense
    plan = cutback.plan(graph, budget="macs=60%")
    mask = torch.zeros(int(whole.sum()), dtype=torch.float64)
    start = 0
    for group in plan.groups:
        mask[[start + unit for unit in group.kept]] = 1
        start += group.total
    small = cutback.apply(graph, plan)
    assert round(float(found.of(mask)) * dense) == measure.macs(small, image()[:1])


def test_its_derivative_is_that_of_small_changes():
    _, found = complexity(residual())
    mask = 0.2 + 0.7 * torch.rand(sum(found.sizes), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prices = found.prices(mask)
    for unit in range(0, len(mask), 3):
        step = torch.zeros_like(mask)
        step[unit] = 1e-5
        slope = float(found.of(mask + step) - found.of(mask - step)) / 2e-5
        assert float(prices[unit]) == pytest.approx(slope, rel=1e-6)


def test_the_count_of_units_is_their_mean():
    _, found = complexity(chain((8, 12)), "units")
    mask = torch.linspace(0, 1, 20)
    assert float(found.of(mask)) == pytest.approx(0.5)
    assert found.prices(mask).tolist() == pytest.approx([1 / 20] * 20)
