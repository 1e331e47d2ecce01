"""The mean rank of feature maps against plain loops."""

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.scores import HRank
from tests.helpers import image, randomised
from tests.scores.networks import NETWORKS, Batches, assert_equal, features, numbers, rated


def rank(table):
    """Count the pivots of Gaussian elimination."""
    rows = [list(map(float, row)) for row in table]
    smallest = 1e-5 * max((abs(value) for row in rows for value in row), default=0.0)
    found = 0
    for column in range(len(rows[0])):
        pivot = max(rows[found:], key=lambda row: abs(row[column]), default=None)
        if pivot is None or abs(pivot[column]) <= smallest:
            continue
        rows.remove(pivot)
        rows.insert(found, pivot)
        for row in rows[found + 1 :]:
            share = row[column] / pivot[column]
            for place, value in enumerate(pivot):
                row[place] -= share * value
        found += 1
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_hrank_equals_its_loop(network):
    model = NETWORKS[network]().double()
    pictures = Batches(dtype=torch.float64).pictures.double()
    expected = {
        group: [
            sum(np.mean([rank(picture[unit].tolist()) for picture in layer]) for layer in layers)
            for unit in range(layers[0].shape[1])
        ]
        for group, layers in features(network, model, pictures).items()
    }
    assert_equal(rated(model, "hrank", torch.float64), expected)


def test_the_ranks_are_those_planted():
    generator = torch.Generator().manual_seed(0)
    model = randomised(nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4)[..., None, None])
    pictures = torch.zeros(2, 4, 6, 6)
    for number in range(2):
        for channel in range(4):
            left, right = (torch.rand(6, channel + number, generator=generator) for _ in range(2))
            pictures[number, channel] = left @ right.T
    found = rated(cutback.trace(model, pictures), HRank([(pictures, None)]))
    assert numbers(found["0"]) == [0.5, 1.5, 2.5, 3.5]


def test_features_without_positions_have_rank_one_or_zero():
    model = randomised(nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3)))
    found = rated(cutback.trace(model, image()), HRank(Batches()))
    fired = (model[:3](Batches().pictures) > 0).double().mean(0)
    assert numbers(found["1"]) == pytest.approx(numbers(fired))
