"""Geometric median and cosine redundancy against plain loops."""

import math

import pytest
import torch

from tests.scores.networks import NETWORKS, assert_equal, flattened, numbers, rated, summed


def loop_fpgm(layer):
    expected = []
    for one in layer:
        total = 0.0
        for other in layer:
            total += math.dist(numbers(one), numbers(other))
        expected.append(total)
    return expected


def cosine(one, other):
    product = sum(a * b for a, b in zip(numbers(one), numbers(other), strict=True))
    return product / math.sqrt(sum(a * a for a in numbers(one)) * sum(b * b for b in numbers(other)))


def loop_cosine(layer):
    filters = list(layer)
    return [
        1 - max(cosine(one, other) for place, other in enumerate(filters) if place != number)
        for number, one in enumerate(filters)
    ]


LOOPS = {"fpgm": loop_fpgm, "cosine": loop_cosine}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LOOPS)
def test_a_similarity_equals_its_loop(name, network):
    model = NETWORKS[network]()
    assert_equal(rated(model, name), summed(network, model, LOOPS[name]))


def test_filters_of_one_direction_are_redundant_and_of_opposite_ones_are_not():
    model = flattened()
    with torch.no_grad():
        model[0].weight[1] = 7 * model[0].weight[3]
        model[0].weight[4] = -model[0].weight[3]
    found = rated(model, "cosine")["0"]
    assert numbers(found[[1, 3]]) == pytest.approx([0, 0], abs=1e-6)
    assert found[4] > 0.5


def test_tiny_filters_still_have_a_direction():
    model = flattened()
    expected = numbers(rated(model, "cosine")["0"])
    with torch.no_grad():
        model[0].weight[2] *= 1e-18
    assert numbers(rated(model, "cosine")["0"]) == pytest.approx(expected, rel=1e-5)
