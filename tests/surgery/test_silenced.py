"""The reference of a proof: operators that mix channels see all of those that stay."""

import torch
from torch import nn

import cutback
from tests.helpers import image


class PartlyNormed(nn.Module):
    """Normalises the first five of twelve channels; the literal sizes keep them all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 12, 3), nn.GroupNorm(1, 5), nn.Conv2d(12, 8, 3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        one, other = self.first(x).split([5, 7], 1)
        return self.head(self.last(torch.cat([self.norm(one), other], 1)).relu())


def test_a_norm_behind_a_boundary_sees_every_channel():
    graph = cutback.trace(PartlyNormed(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    assert "first.weight" not in plan.slices
    assert len(plan.slices["head.weight"][1].indices) == 4
    assert cutback.prove(graph, plan).modes == ("eval", "train")
