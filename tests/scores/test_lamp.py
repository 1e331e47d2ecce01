"""LAMP against plain loops."""

import pytest
import torch

from tests.scores.networks import NETWORKS, assert_equal, flattened, numbers, rated, summed


def loop(layer):
    squares = [sum(number * number for number in numbers(weights)) for weights in layer]
    expected = []
    for square in squares:
        left = sum(other for other in squares if other >= square)
        expected.append(square / left if left else 0.0)
    return expected


@pytest.mark.parametrize("network", NETWORKS)
def test_lamp_equals_its_loop(network):
    model = NETWORKS[network]()
    assert_equal(rated(model, "lamp"), summed(network, model, loop))


def test_equal_filters_score_the_same_and_the_largest_scores_one():
    model = flattened()
    with torch.no_grad():
        model[0].weight[1] = model[0].weight[3]
        model[0].weight[4] *= 10
    found = rated(model, "lamp")["0"]
    assert found[1] == found[3]
    assert found[4] == 1
    assert_equal({"0": found}, {"0": loop(model[0].weight)})


def test_a_layer_of_zeros_scores_zero():
    model = flattened()
    with torch.no_grad():
        model[0].weight.zero_()
    assert numbers(rated(model, "lamp")["0"]) == [0.0] * 5
