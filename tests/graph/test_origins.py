"""Numbers that remember where they come from are ordinary numbers to everything else."""

import copy
import math

import pytest
import torch
from torch import nn

from cutback.graph.capture import capture
from cutback.graph.inputs import Inputs
from cutback.graph.origins import Formula, Held, KnownInt, SizeOf, evaluated, given_numbers, leaves, plain

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Busy(nn.Module):
    """Calls that take numbers in every way a model's code writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.width, self.sizes, self.flag, self.scale = nn.Conv2d(3, 8, 1), 8, (6, 6), True, 0.5

    def forward(self, x):
        x = self.conv(x)
        batch, channels, *space = x.shape
        x = x.view(batch, self.width // 4, channels // 2, *space).flatten(1, 2)
        x = x[:, : self.width // 2] * self.scale if self.flag else x
        return nn.functional.interpolate(x, size=self.sizes).sum(dim=(2, 3))


def test_recording_origins_records_the_same_graph() -> None:
    with_origins, without = (capture(Busy(), Inputs.of(IMAGES), training=False, origins=o) for o in (True, False))
    assert [(n.name, n.target, str(n.args)) for n in with_origins.nodes] == [
        (n.name, n.target, str(n.args)) for n in without.nodes
    ]
    assert all(type(size) is int for node in with_origins.nodes for size in node.args if isinstance(size, int))


def test_each_number_of_a_call_has_its_origin() -> None:
    recorded = capture(Busy(), Inputs.of(IMAGES), training=False)
    (view,) = [node for node in recorded.nodes if node.name == "view"]
    conv = view.args[0]
    given = given_numbers(view)
    assert given is not None
    batch, blocks, channels, height, width = (origin for _, origin in given.all)
    assert (batch, height, width) == (SizeOf(conv, 0), SizeOf(conv, 2), SizeOf(conv, 3))
    assert isinstance(blocks, Formula)
    assert [*leaves(blocks)] == [Held("", "width")]
    assert [*leaves(channels)] == [SizeOf(conv, 1)]
    assert evaluated(blocks, lambda _: 20) == 5


@pytest.fixture
def known():
    number = KnownInt(8)
    number.origin, number.compared = Held("layer", "width"), []
    return number


def test_a_known_number_counts_like_any_other(known) -> None:
    assert (known + 1, 1 + known, known // 3, 20 // known, known % 3, 2**known) == (9, 9, 2, 2, 2, 256)
    assert (known / 16, known**-1, math.sqrt(known * 2), -known) == (0.5, 0.125, 4.0, -8)
    assert {8: "eight"}[known] == "eight"
    assert [*range(known)][-1] == 7
    assert known in (7, 8)
    assert copy.deepcopy(known) == 8
    assert [type(value) for value in plain((known, [known, slice(known)]))[1]] == [int, slice]
    assert type(plain(torch.Size([known]))[0]) is int


def test_a_negated_number_keeps_its_origin(known) -> None:
    assert evaluated((-(known // 2)).origin, lambda _: 20) == -10


def test_comparisons_are_noted(known) -> None:
    assert known > 5
    assert known.compared == [(Held("layer", "width"), 5)]
