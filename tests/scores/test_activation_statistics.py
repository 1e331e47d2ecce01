"""Statistics of what layers return against plain loops."""

import math

import pytest

from tests.scores.networks import NETWORKS, Batches, assert_equal, outputs, over_images, rated


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values]))


def norm(values):
    return math.sqrt(sum(value * value for value in values))


LOOPS = {
    "mean-mean": lambda maps: mean([mean(values) for values in maps]),
    "mean-std": lambda maps: mean([deviation(values) for values in maps]),
    "mean-l1": lambda maps: mean([sum(abs(value) for value in values) for values in maps]),
    "mean-l2": lambda maps: mean([norm(values) for values in maps]),
    "var-l2": lambda maps: deviation([norm(values) for values in maps]) ** 2,
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LOOPS)
def test_a_statistic_equals_its_loop(name, network):
    model = NETWORKS[network]()
    expected = over_images(outputs(network, model, Batches().pictures), LOOPS[name])
    assert_equal(rated(model, name), expected, 1e-5)
