"""Taylor scores of weights against loops over batches and weights."""

import pytest
import torch
from torch.nn import functional

from cutback.scores import TaylorWeight
from tests.scores.gated import LABELS, PICTURES, double, products, weight_gradient
from tests.scores.networks import NETWORKS, Batches, assert_equal, rated, traced


@pytest.mark.parametrize("network", NETWORKS)
def test_taylor_weight_sums_the_squares_of_each_batch_and_weight(network):
    model = double(network)
    found = [
        products(network, weight_gradient(model, PICTURES[start : start + 3], LABELS[start : start + 3]), model)
        for start in (0, 3)
    ]
    expected = {
        group: [
            sum(sum(value**2 for value in layer[unit]) for each in found for layer in each[group]) / len(found)
            for unit in range(len(layers[0]))
        ]
        for group, layers in found[0].items()
    }
    batches = Batches(sizes=(3, 3), dtype=torch.float64)
    assert_equal(rated(traced(network, torch.float64), TaylorWeight(batches, functional.cross_entropy)), expected, 1e-9)


def test_by_name_it_leaves_out_the_smaller_last_batch():
    model = double("flattened")
    layers = products("flattened", weight_gradient(model, PICTURES[:4], LABELS[:4]), model)["0"]
    expected = {"0": [sum(value**2 for value in unit) for unit in layers[0]]}
    assert_equal(rated(traced("flattened", torch.float64), "taylor-weight", torch.float64), expected, 1e-9)
