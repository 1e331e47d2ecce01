"""Widths that change become multiples, whatever else a layer holds; where that cannot be, the plan says so."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import cutback
from cutback.errors import NothingToPrune
from cutback.planning.limits import Limits
from cutback.planning.rounding import narrower_widths
from tests.helpers import chain, image, randomised


class Padded(nn.Module):
    """Adds a layer to a narrower one between channels of zeros: so many of the wide one's channels always stay."""

    def __init__(self, before, after):
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 8, 1), nn.Conv2d(8, before + 8 + after, 1)
        self.free, self.head = nn.Conv2d(before + 8 + after, 8, 1), nn.Conv2d(8, 2, 1)
        self.padding = (0, 0, 0, 0, before, after)

    def forward(self, images):
        narrow = self.narrow(images)
        sum_ = (self.wide(narrow) + functional.pad(narrow, self.padding)).relu()
        return self.head(self.free(sum_).relu())


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, [7, 6, 5, 4, 3, 2, 1]),
        ({"round_to": 3}, [6, 3]),
        ({"round_to": 8}, []),
        ({"min_channels": 3}, [7, 6, 5, 4, 3]),
        ({"min_channels": 9}, []),
        ({"round_to": 2, "min_channels": 3}, [6, 4]),
    ],
)
def test_narrower_widths(options, widths):
    assert narrower_widths(cutback.trace(chain((8,)), image()), 0, {}, Limits(**options)) == widths


@pytest.mark.parametrize("budget", ["macs=60%", "channels=60%"])
def test_channels_that_stay_anyway_count_into_the_width(budget):
    graph = cutback.trace(randomised(Padded(3, 5)), image())
    cutback.apply_(graph, cutback.plan(graph, budget=budget, round_to=4))
    assert graph.model.narrow.out_channels % 4 == 0
    assert graph.model.wide.out_channels % 4 == 0
    assert graph.model.narrow.out_channels == graph.model.wide.out_channels - 8 < 8


def test_layers_whose_widths_cannot_both_be_multiples_stay_and_are_noted():
    graph = cutback.trace(randomised(Padded(3, 3)), image())
    plan = cutback.plan(graph, budget="macs=80%", round_to=4)
    cutback.apply_(graph, plan)
    layers = (graph.model.narrow, graph.model.wide, graph.model.free)
    assert [layer.out_channels for layer in layers] == [8, 14, 4]
    assert any("no narrower width makes all of narrow, wide multiples of round_to=4" in note for note in plan.notes)
    graph = cutback.trace(randomised(Padded(3, 3)), image())
    with pytest.raises(NothingToPrune, match=r"round_to=4.*no narrower width makes all of narrow, wide"):
        cutback.plan(graph, budget="macs=80%", round_to=4, ignore="free")


def test_the_least_width_counts_what_stays_anyway():
    graph = cutback.trace(randomised(Padded(3, 3)), image())
    assert narrower_widths(graph, 0, {}, Limits(min_channels=5)) == [
        7,
        6,
        5,
    ]  # the narrow layer's own 5, the wide one has 11
    plan = cutback.plan(graph, budget="channels=1%", min_channels=2)
    assert [len(group.kept) for group in plan.groups] == [2, 2]


class Halves(nn.Module):
    """One half of ``whole`` goes with ``left``, the other with ``right``."""

    def __init__(self):
        super().__init__()
        self.whole, self.head = nn.Conv2d(3, 24, 1), nn.Conv2d(24, 2, 1)
        self.left, self.right = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 12, 1)

    def forward(self, images):
        halves = torch.cat([self.left(images), self.right(images)], 1)
        return self.head((self.whole(images) + halves).relu())


@pytest.mark.parametrize(
    ("options", "widths", "notes"),
    [
        ({"budget": "channels=70%", "round_to": 4}, (16, 8, 8), ()),
        ({"budget": "channels=70%", "round_to": 8}, (16, 8, 8), ()),
        ({"budget": "channels=99%", "keep": {"left": 8}, "round_to": 8}, (16, 8, 8), ()),
        (
            {"budget": "channels=70%", "keep": {"left": 6}, "round_to": 4},
            (18, 6, 12),
            ("right keeps 12 of 12", "right stays whole", "whole keeps 18 channels, no multiple of round_to=4"),
        ),
        ({"budget": "channels=70%", "ignore": "left", "round_to": 8}, (24, 12, 12), None),
    ],
)
def test_groups_that_share_a_layer_round_it_together(options, widths, notes):
    graph = cutback.trace(randomised(Halves()), image())
    if notes is None:
        with pytest.raises(NothingToPrune, match="no narrower width makes all of right, whole multiples of round_to=8"):
            cutback.plan(graph, **options)
        return
    plan = cutback.plan(graph, **options)
    cutback.apply_(graph, plan)
    layers = (graph.model.whole, graph.model.left, graph.model.right)
    assert tuple(layer.out_channels for layer in layers) == widths
    assert len(plan.notes) == len(notes)
    assert all(note.startswith(start) for note, start in zip(plan.notes, notes, strict=True))


def test_a_shared_layer_that_is_no_multiple_is_noted():
    graph = cutback.trace(randomised(Halves()), image())
    plan = cutback.plan(graph, budget="macs=90%", round_to=8)  # one half at 8, the other whole at 12
    assert sorted(len(group.kept) for group in plan.groups) == [8, 12]
    assert any(note.startswith("whole keeps 20 channels, no multiple of round_to=8") for note in plan.notes)


def test_a_layer_alone_has_no_note_where_it_has_no_narrower_width():
    plan = cutback.plan(cutback.trace(chain((8, 24)), torch.zeros(1, 3, 8, 8)), budget="macs=80%", round_to=16)
    assert not any("stays whole" in note for note in plan.notes)
