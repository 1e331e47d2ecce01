"""The small networks of the comparison are cut to half their MACs, with proof."""

import pytest
import torch

import cutback
from benchmarks import networks

ALL = ("resnext", "regnet", "mobilenet_v1", "mobilenet_v2", "bottleneck", "alexnet")


@pytest.mark.parametrize("name", ALL)
def test_each_is_cut_with_proof(name: str) -> None:
    torch.manual_seed(0)
    model, pictures = getattr(networks, name)(), torch.randn(2, 1, 8, 8)
    graph = cutback.trace(model, pictures)
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan)
    assert 0.48 <= cutback.measure.macs(model, pictures) / plan.costs["macs"].before <= 0.5
    assert model(pictures).shape == (2, 10)
