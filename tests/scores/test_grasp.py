"""Gradient flow against differences of gradients between two points along the gradient."""

import copy

import pytest
import torch
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.scores import GraSP
from tests.scores.gated import LABELS, PICTURES, double, products, weight_gradient
from tests.scores.networks import NETWORKS, Batches, assert_equal, rated, traced

STEP = 1e-8  # short, lest an activation changes its sign on the way


def moved(model, gradient, step):
    """A copy of a model a step along the gradient of its weights, norms and biases left alone."""
    result = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, slope in zip(result.parameters(), gradient.parameters(), strict=True):
            parameter.add_(slope, alpha=step * (parameter.dim() > 1))
    return result


@pytest.mark.parametrize("network", NETWORKS)
def test_it_is_the_weights_times_the_change_of_the_gradient_along_itself(network):
    model = double(network)
    gradient = weight_gradient(model, PICTURES, LABELS)
    ahead, behind = (weight_gradient(moved(model, gradient, step), PICTURES, LABELS) for step in (STEP, -STEP))
    parts = [products(network, each, model) for each in (ahead, behind)]
    expected = {
        group: [
            sum(
                (after - before) / (2 * STEP)
                for layer, other in zip(layers, parts[1][group], strict=True)
                for after, before in zip(layer[unit], other[unit], strict=True)
            )
            for unit in range(len(layers[0]))
        ]
        for group, layers in parts[0].items()
    }
    found = rated(traced(network, torch.float64), "grasp", torch.float64)
    largest = max(abs(value) for values in expected.values() for value in values)
    for group, values in expected.items():
        assert found[group].tolist() == pytest.approx(values, rel=1e-4, abs=1e-6 * largest)


def test_a_loader_that_gives_other_samples_the_second_time_is_refused():
    class Shrinking:
        times = 0

        def __iter__(self):
            self.times += 1
            return iter(list(Batches())[self.times - 1 :])

    with pytest.raises(UserMistake, match="gave 6 samples and then 2"):
        rated(traced("flattened"), GraSP(Shrinking(), functional.cross_entropy))


def test_the_aggregate_is_chosen():
    graph = traced("projected", torch.float64)
    batches = Batches(dtype=torch.float64)
    both = [GraSP(batches, functional.cross_entropy, aggregate=how) for how in ("sum", "mean")]
    summed, mean = (rated(graph, score)["outer"] for score in both)
    expected = {"outer": (summed / 3).tolist()}
    assert_equal({"outer": mean}, expected)
