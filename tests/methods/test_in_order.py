"""Widths by one threshold over groups, also where groups are linked."""

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.errors import NothingToPrune
from cutback.methods.in_order import ByThreshold, Leaving, ranks, widths_at
from cutback.planning.limits import Limits
from cutback.planning.make import make_plan
from tests.helpers import chain, image

LEAVING = {
    "0": Leaving([3, 1, 0, 2], np.array([0.1, 0.2, 0.9, 1.0])),
    "3": Leaving([0, 4, 2, 1, 3], np.array([0.15, 0.05, 0.3, 0.4, 1.0])),
}


def kept(budget: str) -> dict[str, tuple[int, ...]]:
    graph = cutback.trace(chain((4, 5)), image())
    plan = make_plan(graph, score=lambda graph: ranks(graph, LEAVING), budget=budget, allocate=ByThreshold(LEAVING))
    return {group.name: group.kept for group in plan.groups}


def test_the_lowest_keys_go_first_in_the_order_of_each_group() -> None:
    # Steps by key: 0.1 of the first, twice 0.15 of the second (its 0.05 is not reached before), 0.2, 0.3, ...
    dense = 64 * 9 * (3 * 4 + 4 * 5) + 4 * 5
    for first, second in ((3, 5), (3, 4), (3, 3), (2, 3), (2, 2)):
        macs = 64 * 9 * (3 * first + first * second) + 4 * second
        assert macs < dense
        found = kept(f"macs={macs}")
        assert found == {
            "0": tuple(sorted([3, 1, 0, 2][4 - first :])),
            "3": tuple(sorted([0, 4, 2, 1, 3][5 - second :])),
        }


def test_widths_at_a_threshold_keep_what_limits_ask_for() -> None:
    graph = cutback.trace(chain((4, 5)), image())
    assert widths_at(graph, LEAVING, 0.2, Limits(), "epsilon") == {"0": 2, "3": 3}
    assert widths_at(graph, LEAVING, 5.0, Limits(min_channels=2), "epsilon") == {"0": 2, "3": 2}
    with pytest.raises(NothingToPrune, match=r"epsilon=0\.01; write a larger one"):
        widths_at(graph, LEAVING, 0.01, Limits(), "epsilon")


def test_linked_blocks_lose_equally_many_each_by_its_own_order() -> None:
    torch.manual_seed(0)
    grouped = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1, groups=2), nn.Flatten())
    graph = cutback.trace(nn.Sequential(grouped, nn.Linear(6 * 16, 4)), image(0, (2, 3, 4, 4)))
    name = graph.groups[0].name
    leaving = {name: Leaving([0, 1, 2, 3, 4, 5, 6, 7], np.linspace(0.1, 0.8, 8))}
    plan = make_plan(
        graph,
        score=lambda graph: ranks(graph, leaving),
        budget="macs=75%",
        ignore=["0.2"],
        allocate=ByThreshold(leaving),
    )
    (stay,) = (group.kept for group in plan.groups if group.name == name)
    assert len([unit for unit in stay if unit < 4]) == len([unit for unit in stay if unit >= 4]) < 4
    assert 3 in stay
    assert 7 in stay
