"""Connection sensitivity against a loop over samples, each run by itself, and weights."""

import pytest
import torch

from tests.scores.gated import LABELS, PICTURES, double, products, weight_gradient
from tests.scores.networks import NETWORKS, SAMPLES, assert_equal, rated, traced


@pytest.mark.parametrize("network", NETWORKS)
def test_it_sums_the_absolute_products_over_the_weights_of_a_filter(network):
    model = double(network)
    alone = [
        products(network, weight_gradient(model, PICTURES[n : n + 1], LABELS[n : n + 1]), model) for n in range(SAMPLES)
    ]
    expected = {
        group: [
            sum(
                abs(sum(each[group][number][unit][weight] for each in alone) / SAMPLES)
                for number, layer in enumerate(layers)
                for weight in range(len(layer[unit]))
            )
            for unit in range(len(layers[0]))
        ]
        for group, layers in alone[0].items()
    }
    assert_equal(rated(traced(network, torch.float64), "snip", torch.float64), expected, 1e-9)
