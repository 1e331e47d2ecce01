"""The second pass: where kept labels stood, and choices that it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.graph.replay import Illegal, positions
from cutback.graph.second_pass import second_pass


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([7, 8, 9], [9, 7], [2, 0]),
        ([5, 5, 6, 6], [6, 6], [2, 3]),
        ([5, 6, 5, 6], [6, 5, 6, 5], [1, 0, 3, 2]),
        ([5, 6], [7], None),
        ([5], [5, 5], None),
        ([], [], []),
    ],
)
def test_positions_of_labels_repeated_ones_in_turn(before, after, expected) -> None:
    found = positions(np.array(before, dtype=np.int64), np.array(after, dtype=np.int64))
    assert (None if found is None else found.tolist()) == expected


class Halves(nn.Module):
    """Rectifies the first half of its channels, sized by the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.a(x)
        half = x.shape[1] // 2
        return self.b(torch.cat([x[:, :half].relu(), x[:, half:]], 1))


def test_halves_that_keep_equally_many_pass_in_natural_order() -> None:
    graph = cutback.trace(Halves(), torch.randn(1, 3, 4, 4))
    (group,) = graph.groups
    assert group.units == 8
    stays = np.isin(np.arange(8), [0, 2, 5, 6])
    orders, _ = second_pass(graph, [stays])
    assert orders["a.weight", 0].tolist() == [0, 2, 5, 6]
    assert orders["b.weight", 1].tolist() == [0, 2, 5, 6]
    with pytest.raises(Illegal):
        second_pass(graph, [np.isin(np.arange(8), [0, 1, 2, 6])])


def test_a_narrower_model_that_fails_is_illegal_at_the_failing_call() -> None:
    class Fixed(Halves):
        def forward(self, x):
            x = self.a(x)
            return self.b(x.view(-1, 8, 16).view(-1, 8, 4, 4))

    graph = cutback.trace(Halves(), torch.randn(1, 3, 4, 4))
    fixed = replace(graph, model=Fixed())
    with pytest.raises(Illegal) as caught:
        second_pass(fixed, [np.isin(np.arange(8), [0, 1, 2, 4, 5, 6])])
    assert "shape" in str(caught.value)
    assert caught.value.node.op == "call_function"
