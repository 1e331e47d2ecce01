"""Widths that a model's code takes for one another, found from where the numbers in its calls come from."""

import numpy as np
import pytest
import torch
from torch import nn

from cutback.graph.capture import capture
from cutback.graph.equal import equal_parts
from cutback.graph.followed import follow
from cutback.graph.groups import couple
from cutback.graph.inputs import Inputs

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two convolutions, a (8) and b (8) beside each other, and what the given function makes of their results."""

    def __init__(self, function) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.d = nn.Conv2d(8, 2, 1)
        self.function, self.heads, self.width = function, 2, 8

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        return self.c(a) + self.d(self.function(self, a, b))


PAIRS = {
    "a shape": lambda _, a, b: b.flatten(2).reshape(2, a.shape[1], 36).unflatten(2, (6, 6)),
    "unpacked": lambda _, a, b: taken_apart(a, b),
    "a size": lambda _, a, b: b.flatten(2).reshape(2, a.size(1), 36).unflatten(2, (6, 6)),
    "a formula": lambda net, a, b: b.view(2, net.heads, a.shape[1] // net.heads, 36).view(2, -1, 6, 6),
    "an attribute": lambda net, a, b: b.view(2, net.width, 36).view(2, -1, 6, 6) + 0 * a.view(2, net.width, 36).mean(),
}


def taken_apart(a, b):
    batch, width, height, _ = a.shape
    return b.flatten(2).reshape(batch, width, height * height).unflatten(2, (6, 6))


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_the_two_widths_are_named(name: str) -> None:
    model, inputs = Two(PAIRS[name]), Inputs.of(IMAGES)
    captures = [capture(model, inputs, training=False)]
    graph, _ = couple(model, inputs, captures)
    coupling = graph.coupling
    found = follow(graph)
    (parts, *_) = equal_parts(found.equal, captures, coupling.labellings, coupling.states)
    assert len(parts[0]) == len(parts[1])
    names = [{graph.groups[g].name for g in np.unique(coupling.owners.group[coupling.components[p]])} for p in parts]
    assert sorted(name for each in names for name in each) == ["a", "b"]
    assert found.refused


def test_the_same_width_by_another_name_is_no_pair() -> None:
    model, inputs = Two(lambda _, a, b: (a + b).view(2, a.shape[1], 36).view(2, b.shape[1], 6, 6)), Inputs.of(IMAGES)
    graph, _ = couple(model, inputs, [capture(model, inputs, training=False)])
    found = follow(graph)
    assert not found.equal
    assert not found.refused
    assert graph.groups
