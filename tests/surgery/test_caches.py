"""Buffers that forward fills are no other architecture; buffers whose values were recorded are."""

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import StaleGraph
from tests.helpers import image


class Cached(nn.Module):
    """Adds a table of distances that the first forward pass makes for the picture's size."""

    def __init__(self, *, saved: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.register_buffer("table", torch.zeros(1, 1), persistent=saved)

    def forward(self, x):
        if self.table.shape[-1] != x.shape[-1]:
            self.table = torch.arange(x.shape[-1], dtype=x.dtype).expand(x.shape[-2], -1) / x.shape[-1]
        return self.last(self.first(x).relu() + self.table)


def test_a_proven_plan_is_carried_out_after_the_model_has_filled_a_cache(tmp_path):
    torch.manual_seed(0)
    model = Cached()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.prove(graph, plan)
    model(image())
    assert model.table.shape == (8, 8)
    with pytest.raises(StaleGraph, match="table has changed"):  # a proof would meet the filled cache
        cutback.apply_(graph, plan)
    cutback.apply_(graph, plan, prove=False)
    assert model.first.out_channels == 4
    cutback.save(model, plan, tmp_path / "small")
    again = cutback.load(tmp_path / "small", build=Cached)
    assert torch.equal(again(image()), model(image()))


def test_a_plan_of_a_model_with_a_filled_cache_fits_a_fresh_one():
    model = Cached()
    model(image())
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    assert plan.architecture == cutback.plan(cutback.trace(Cached(), image()), budget="channels=50%").architecture


@pytest.mark.parametrize("saved", [False, True])
def test_a_buffer_that_matters_may_not_change(saved):
    model = Cached(saved=saved)
    if not saved:
        model(image())  # its values are now used as they are
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%")
    model(image(shape=(1, 3, 4, 4)))
    with pytest.raises(StaleGraph, match="table has changed"):
        cutback.apply_(graph, plan, prove=False)
