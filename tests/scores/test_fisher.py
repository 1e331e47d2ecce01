"""Fisher information of gates against loops over samples, each run by itself."""

import pytest
import torch
from torch.nn import functional

from cutback.scores import Fisher, GroupFisher
from tests.scores.gated import LABELS, PICTURES, double, each_sample, gradients
from tests.scores.networks import NETWORKS, SAMPLES, Batches, assert_equal, rated, traced

BATCHES = Batches(dtype=torch.float64)


@pytest.mark.parametrize("network", NETWORKS)
def test_fisher_sums_the_squares_of_each_sample_and_place(network):
    expected = {
        group: [
            sum(place[unit][n] ** 2 for place in places for n in range(SAMPLES)) / SAMPLES
            for unit in range(len(places[0]))
        ]
        for group, places in each_sample(network, "feature").items()
    }
    assert_equal(rated(traced(network, torch.float64), "fisher", torch.float64), expected, 1e-10)


@pytest.mark.parametrize("network", NETWORKS)
def test_group_fisher_squares_the_sum_over_places(network):
    expected = {
        group: [
            sum(sum(place[unit][n] for place in places) ** 2 for n in range(SAMPLES)) / SAMPLES
            for unit in range(len(places[0]))
        ]
        for group, places in each_sample(network, "consumer").items()
    }
    assert_equal(rated(traced(network, torch.float64), "group-fisher", torch.float64), expected, 1e-10)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_it_is_the_gradient_of_a_mask_for_each_sample_also_in_train_mode(network, training):
    graph = traced(network, torch.float64)
    batches = Batches(sizes=(SAMPLES,), dtype=torch.float64)
    found = rated(graph, GroupFisher(batches, functional.cross_entropy, training=training))
    masks = gradients(network, double(network).train(training), "consumer", PICTURES, LABELS)
    for group, places in masks.items():
        expected = (SAMPLES * sum(places)).square().mean(0)
        assert (found[group] - expected).abs().max() <= 1e-10 * expected.max()


def test_the_order_of_sum_and_square_matters_for_coupled_places_alone():
    found = rated(traced("projected", torch.float64), GroupFisher(BATCHES, functional.cross_entropy))
    for group, places in each_sample("projected", "consumer").items():
        apart = sum(torch.tensor(place, dtype=torch.float64).square() for place in places).mean(1)
        difference = float((found[group] - apart).abs().max() / found[group].max())
        assert difference > 0.1 if len(places) > 1 else difference < 1e-12
    assert {group: len(places) for group, places in each_sample("projected", "consumer").items()} == {
        "stem": 2,
        "inner": 1,
        "outer": 2,
    }


def test_fisher_and_group_fisher_agree_where_one_layer_makes_and_one_consumes():
    graph = traced("flattened", torch.float64)
    first, second = (rated(graph, score(BATCHES, functional.cross_entropy)) for score in (Fisher, GroupFisher))
    assert torch.allclose(first["0"], second["0"], rtol=1e-10)
