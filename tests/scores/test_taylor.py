"""Taylor scores of gates against loops over batches and samples."""

import pytest
import torch
from torch.nn import functional

from cutback.scores import Taylor
from tests.scores.gated import LABELS, PICTURES, double, each_sample, gradients
from tests.scores.networks import NETWORKS, SAMPLES, Batches, assert_equal, numbers, rated, traced


def loop(network, model, sizes):
    """The score as the formula has it, over batches of given sizes."""
    batches = list(zip(PICTURES.split(sizes), LABELS.split(sizes), strict=True))
    found = [gradients(network, model, "stream", *batch) for batch in batches]
    return {
        group: [
            sum(sum(float(place[:, unit].sum()) for place in each[group]) ** 2 for each in found)
            / len(found)
            / len(places)
            for unit in range(places[0].shape[1])
        ]
        for group, places in found[0].items()
    }


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_taylor_squares_the_gradient_of_each_batch(network, training):
    expected = loop(network, double(network).train(training), (3, 3))
    batches = Batches(sizes=(3, 3), dtype=torch.float64)
    found = rated(traced(network, torch.float64), Taylor(batches, functional.cross_entropy, training=training))
    assert_equal(found, expected, 1e-9)


def test_by_name_it_is_the_same_in_eval_mode_without_the_smaller_last_batch():
    model = double("projected")
    first = gradients("projected", model, "stream", PICTURES[:4], LABELS[:4])
    expected = {group: numbers(sum(places).sum(0).square() / len(places)) for group, places in first.items()}
    assert {group: len(places) for group, places in first.items()} == {"stem": 1, "inner": 1, "outer": 2}
    assert_equal(rated(traced("projected", torch.float64), "taylor", torch.float64), expected, 1e-9)


@pytest.mark.parametrize("training", [False, True])
def test_it_is_what_scale_and_shift_of_the_norm_say(training):
    model = double("projected").train(training)
    functional.cross_entropy(model(PICTURES), LABELS).backward()
    norm = model.inner_norm
    expected = (norm.weight * norm.weight.grad + norm.bias * norm.bias.grad).square().detach()
    batches = Batches(sizes=(SAMPLES,), dtype=torch.float64)
    found = rated(traced("projected", torch.float64), Taylor(batches, functional.cross_entropy, training=training))
    assert torch.allclose(found["inner"], expected, rtol=1e-9, atol=1e-12 * float(expected.max()))


@pytest.mark.parametrize("network", NETWORKS)
def test_taylor_example_squares_the_gradient_of_each_sample(network):
    name = "taylor-example"
    expected = {
        group: [
            sum(sum(place[unit][n] for place in places) ** 2 for n in range(SAMPLES)) / SAMPLES / len(places)
            for unit in range(len(places[0]))
        ]
        for group, places in each_sample(network, "stream").items()
    }
    assert_equal(rated(traced(network, torch.float64), name, torch.float64), expected, 1e-10)
