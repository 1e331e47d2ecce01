"""What layers may lose at most, in every kind of group."""

import re

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, NothingToPrune
from tests.helpers import chain, image, randomised, residual


class Joined(nn.Module):
    """A convolution of which a slice goes one way and the rest another: two groups share its filters."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 25, 1), nn.Conv2d(10, 5, 1), nn.Conv2d(15, 5, 1)
        self.head, self.parts = nn.Conv2d(10, 2, 1), [10, 15]

    def forward(self, images):
        left, right = self.stem(images).split(self.parts, 1)
        return self.head(torch.cat([self.left(left.relu()), self.right(right)], 1))


NETWORKS = {
    "chain": lambda: chain((10, 20)),
    "residual": residual,
    "grouped": lambda: randomised(
        nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1, groups=4), nn.Conv2d(16, 2, 1))
    ),
    "joined": lambda: randomised(Joined()),
}


def output_channels(model):
    return {path: layer.out_channels for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}


@pytest.mark.parametrize("share", ["25%", 0.5, "80%"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_loses_more_than_the_share(name, share):
    model = NETWORKS[name]()
    graph = cutback.trace(model, image())
    with pytest.raises(BudgetUnreachable, match="max_removed") as raised:
        cutback.plan(graph, budget="params=1%", max_removed=share)
    plan = cutback.plan(graph, budget=f"params={raised.value.lowest['params']}", max_removed=share)
    before = output_channels(model)
    cutback.apply_(graph, plan)
    most = float(share.removesuffix("%")) / 100 if isinstance(share, str) else share
    lost = {path: 1 - width / before[path] for path, width in output_channels(model).items()}
    assert max(lost.values()) <= most + 1e-9
    assert max(lost.values()) > most - 0.13  # and some layer goes as far as its channels allow


def test_a_share_of_channels_gives_way_to_it():
    plan = cutback.plan(cutback.trace(chain((10, 20)), image()), budget="channels=10%", max_removed="70%")
    assert [len(group.kept) for group in plan.groups] == [3, 6]
    assert any("0 keeps 3 of 10, the lowest permitted width" in note for note in plan.notes)


def test_it_goes_together_with_multiples():
    plan = cutback.plan(cutback.trace(chain((10, 20)), image()), budget="channels=10%", max_removed="70%", round_to=4)
    assert [len(group.kept) for group in plan.groups] == [4, 8]


def test_what_leaves_nothing_is_named():
    graph = cutback.trace(chain((8,)), image())
    with pytest.raises(NothingToPrune, match=r"0 whole because of max_removed=10%"):
        cutback.plan(graph, budget="macs=50%", max_removed="10%")
    with pytest.raises(NothingToPrune, match=r"0 whole because of round_to=4 with max_removed=40%"):
        cutback.plan(graph, budget="macs=50%", max_removed=0.4, round_to=4)


@pytest.mark.parametrize("given", ["half", "0%", 0, 1.5, "120%", True, [0.5], "", "%"])
def test_a_share_that_cannot_be_read_is_quoted(given):
    graph = cutback.trace(chain(), image())
    says = f"max_removed={given!r} is no share of a layer's channels"
    with pytest.raises(InvalidBudget, match=re.escape(says)):
        cutback.plan(graph, budget="macs=50%", max_removed=given)
