"""Norms of filters against plain loops."""

import pytest
from torch import nn

from cutback.scores import L1, L2
from tests.helpers import randomised, residual
from tests.scores.networks import NETWORKS, assert_equal, numbers, rated, summed


def loop_l1(layer):
    expected = []
    for weights in layer:
        total = 0.0
        for number in numbers(weights):
            total += abs(number)
        expected.append(total)
    return expected


def loop_l2(layer):
    return [sum(number * number for number in numbers(weights)) ** 0.5 for weights in layer]


def loop_linf(layer):
    return [max(abs(number) for number in numbers(weights)) for weights in layer]


def loop_largest(layer):
    return [-total for total in loop_l1(layer)]


LOOPS = {"l1": loop_l1, "l2": loop_l2, "linf": loop_linf, "largest": loop_largest}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", LOOPS)
def test_a_norm_equals_its_loop(name, network):
    model = NETWORKS[network]()
    assert_equal(rated(model, name), summed(network, model, LOOPS[name]))


def test_largest_is_the_reverse_of_l1():
    model = residual()
    assert rated(model, "largest")["inner"].argsort().tolist() == rated(model, "l1")["inner"].argsort().tolist()[::-1]


@pytest.mark.parametrize(("score", "loop"), [(L1, loop_l1), (L2, loop_l2)])
@pytest.mark.parametrize(
    ("aggregate", "combine"), [("sum", sum), ("mean", lambda values: sum(values) / len(values)), ("max", max)]
)
def test_coupled_filters_are_aggregated(score, loop, aggregate, combine):
    model = residual()
    found = rated(model, score(aggregate=aggregate))
    together = zip(*map(loop, (model.stem.weight, model.outer.weight, model.depthwise.weight)), strict=True)
    assert numbers(found["stem"]) == pytest.approx([combine(values) for values in together], rel=1e-6)


def test_a_transposed_convolution_has_its_filters_along_the_second_dimension():
    model = randomised(nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.ReLU(), nn.Conv2d(6, 2, 1)))
    assert_equal(rated(model, "l1"), {"0": loop_l1(model[0].weight.transpose(0, 1))})
