"""The small networks of the comparison are cut to half their MACs, with proof."""

import pytest
import torch

import cutback
from benchmarks import networks

SMALL = ("resnext", "regnet", "mobilenet_v1", "mobilenet_v2", "bottleneck", "alexnet")
LARGER = ("alexnet", "bottleneck", "mobilenet_v1_", "resnet18_")
ALL = [(name, (1, 8, 8)) for name in SMALL]
ALL += [(f"{name}{end}", shape) for name in LARGER for end, shape in (("28", (1, 28, 28)), ("32", (3, 32, 32)))]


@pytest.mark.parametrize(("name", "shape"), ALL)
def test_each_is_cut_with_proof(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model, pictures = getattr(networks, name)(), torch.randn(2, *shape)
    graph = cutback.trace(model, pictures)
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan)
    assert 0.48 <= cutback.measure.macs(model, pictures) / plan.costs["macs"].before <= 0.5
    assert model(pictures).shape == (2, 10)
