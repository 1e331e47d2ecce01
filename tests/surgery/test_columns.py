"""What a cut has made of groups and of the columns of weights."""

import numpy as np
import torch
from torch import nn

import cutback
from cutback.planning.make import plan_for
from cutback.surgery.columns import columns_cut, followed
from tests.helpers import chain, image, randomised


def test_columns_tell_whose_they_were_and_where_they_are() -> None:
    flat = randomised(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 5), nn.Linear(5, 2)))
    graph = cutback.trace(flat, image(0, (2, 3, 2, 2)))
    plan = plan_for(graph, {"0": [1, 3], "3": [0, 2, 4]})
    columns, skipped = columns_cut(graph, plan)
    assert not skipped
    assert set(columns) == {"3.weight", "4.weight"}
    first = columns["3.weight"]
    assert first.before(0, 3).tolist() == [12, 13, 14, 15]
    assert first.after(0, 3).tolist() == [4, 5, 6, 7]
    assert first.after(0, 2).tolist() == []
    small = cutback.apply(graph, plan)
    rows = first.of_dense(flat[3].weight)[:, torch.tensor(first.kept)]
    assert torch.equal(rows, small[3].weight)
    assert columns["4.weight"].of_dense(flat[4].weight) is flat[4].weight


def test_what_has_inputs_of_its_own_in_each_group_is_told() -> None:
    layers = [nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    graph = cutback.trace(nn.Sequential(*layers, nn.Linear(6, 2)), image())
    columns, skipped = columns_cut(graph, plan_for(graph, {"0": [0, 1, 4, 5]}))
    assert not columns
    assert list(skipped) == ["2.weight"]


def test_groups_are_followed_through_a_cut() -> None:
    graph = cutback.trace(chain((6, 5)), image())
    plan = plan_for(graph, {"0": [5, 1, 2]})
    after = cutback.trace(cutback.apply(graph, plan), image())
    found = followed(graph, after, plan)
    assert {name: (now, sorted(units)) for name, (now, units) in found.items()} == {
        "0": ("0", [1, 2, 5]),
        "3": ("3", [0, 1, 2, 3, 4]),
    }
    _, units = found["0"]
    assert torch.equal(after.model[0].weight, graph.model[0].weight[np.array(units)])
