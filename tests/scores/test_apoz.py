"""The share of zeros against plain loops."""

import pytest
import torch
from torch import nn

import cutback
from cutback.scores import APoZ
from tests.helpers import randomised
from tests.scores.networks import NETWORKS, Batches, assert_equal, features, numbers, over_images, rated


def loop(maps):
    zeros = total = 0
    for values in maps:
        for value in values:
            zeros += value == 0
            total += 1
    return 1 - zeros / total


@pytest.mark.parametrize("network", NETWORKS)
def test_apoz_equals_its_loop(network):
    model = NETWORKS[network]()
    expected = over_images(features(network, model, Batches().pictures), loop)
    assert_equal(rated(model, "apoz"), expected)


def test_the_share_is_the_one_planted():
    model = randomised(nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].bias.copy_(torch.tensor([0.0, -2.0, -9.0]))
    pictures = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 5.0, 1.0]]).view(2, 1, 2, 2)
    found = rated(cutback.trace(model, pictures), APoZ([(pictures, None)]))
    assert numbers(found["0"]) == [6 / 8, 3 / 8, 0]
