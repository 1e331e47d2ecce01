"""A network that multiplies rounding by millions: float64 is not enough, and a wrong cut is still caught."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import cutback
from cutback.errors import NotEquivalent
from cutback.surgery import verify
from tests.helpers import image
from tests.surgery.test_apply import one_swapped


class Cancelling(nn.Module):
    """In train mode its batch norm leaves the last digits of two nearly equal values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.head = nn.Conv2d(3, 100, 8), nn.Conv2d(100, 24, 1), nn.Conv2d(24, 4, 1)
        self.norm = nn.BatchNorm2d(24, eps=1e-12)

    def forward(self, x):
        return self.head(self.norm(self.wide(self.stem(x) * 1e-3 + 1e5)).relu())


def test_what_the_original_moves_by_itself_is_no_difference(monkeypatch):
    torch.manual_seed(0)
    graph = cutback.trace(Cancelling(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    proof = cutback.prove(graph, plan)
    assert proof.double
    monkeypatch.setattr(verify, "_ROUNDED", 0.0)  # as if rounding in float64 were never more than 1e-9
    with pytest.raises(NotEquivalent, match="1e-09 is allowed"):
        cutback.prove(graph, plan)
    monkeypatch.undo()
    for name in ("wide.weight", "head.weight"):
        with pytest.raises(NotEquivalent):
            cutback.prove(graph, one_swapped(plan, name, 1))


class Casting(nn.Module):
    """Computes a norm in float32 whatever the type of its input, as many models do, and is ill-conditioned after it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem, self.wide, self.head = nn.Conv2d(3, 100, 8), nn.Conv2d(100, 24, 1), nn.Conv2d(24, 4, 1)
        self.norm, self.how = nn.BatchNorm2d(24, eps=1e-12), how

    def forward(self, x):
        y = self.stem(x).movedim(1, -1)
        y = y.float() if self.how == "float" else y.to(torch.float32)
        y = functional.layer_norm(y, (self.stem.out_channels,)).to(x.dtype).movedim(-1, 1)
        return self.head(self.norm(self.wide(y * 1e-3) + 10).relu())


@pytest.mark.parametrize("how", ["float", "to"])
def test_what_a_model_computes_in_float32_is_compared_in_float64(how):
    torch.manual_seed(0)
    graph = cutback.trace(Casting(how), image())
    plan = cutback.plan(graph, budget="channels=50%")
    proof = cutback.prove(graph, plan)
    assert proof.double
    assert proof.error <= 1e-5
    with pytest.raises(NotEquivalent):
        cutback.prove(graph, one_swapped(plan, "wide.weight", 1))
