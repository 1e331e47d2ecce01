"""The small networks of the comparison are cut to half their MACs, with proof."""

import pytest
import torch

import cutback
from benchmarks import networks

SMALL = ("resnext", "regnet", "mobilenet_v1", "mobilenet_v2", "bottleneck", "alexnet")
GRAY, COLOUR = (1, 28, 28), (3, 32, 32)
LARGER = [("alexnet28", GRAY), ("bottleneck32", COLOUR), ("mobilenet_v1_28", GRAY), ("resnet18_32", COLOUR)]
ALL = [*((name, (1, 8, 8)) for name in SMALL), *LARGER]


@pytest.mark.parametrize(("name", "shape"), ALL)
def test_each_is_cut_with_proof(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model, pictures = getattr(networks, name)(), torch.randn(2, *shape)
    graph = cutback.trace(model, pictures)
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan)
    assert 0.48 <= cutback.measure.macs(model, pictures) / plan.costs["macs"].before <= 0.5
    assert model(pictures).shape == (2, 10)
