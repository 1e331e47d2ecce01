"""The experiments with architectures learned apart from weights, shortened, with the bounds of the whole."""

import pytest
import torch

from benchmarks.digits_protocol import digits, network
from benchmarks.planted_inputs import INPUTS, random_mask, relevant, search, teacher, transferred
from benchmarks.subarchitecture_acceptance import half, random_shares, searched, widths
from cutback import measure, trace


@pytest.mark.slow
def test_the_inputs_that_matter_are_found_and_worth_something_on_another_task():
    inputs = relevant(1)
    found = search(teacher(inputs, 1)(4000, 1), 1)
    assert found.kept.nonzero().flatten().tolist() == inputs.tolist()
    assert found.gap <= 0.02
    draw = teacher(inputs, 501)
    right = {
        "whole": transferred(torch.ones(INPUTS), draw, 1),
        "extracted": transferred(found.kept, draw, 1),
        "random": transferred(random_mask(6, 51), draw, 1),
    }
    assert right["extracted"] >= right["whole"] + 0.08
    assert right["extracted"] >= right["random"] + 0.2


def test_without_a_price_or_with_one_cold_temperature_nothing_goes():
    data = teacher(relevant(0), 0)(4000, 0)
    assert search(data, 0, price=0.0, cycles=2).kept.all()
    assert search(data, 0, cold=0.02, warm=0.02, cycles=2).kept.all()


def test_a_search_on_half_of_the_digits_leaves_an_architecture_within_its_budget():
    data = half(digits(0), range(5), shots=20)
    assert sorted(set(data.labels.tolist())) == sorted(set(data.test_labels.tolist())) == [0, 1, 2, 3, 4]
    assert len(data.labels) == 100
    small = searched(network(), data, "macs=25%", 0, epochs=5, floor=0.125)
    share = measure.macs(small, data.pictures[:1]) / measure.macs(network(), data.pictures[:1])
    assert 0.24 <= share <= 0.25
    assert all(width >= least for width, least in zip(widths(small), (2, 4, 4, 8), strict=True))


def test_random_shares_differ_from_layer_to_layer_and_from_seed_to_seed():
    graph = trace(network(), torch.zeros(2, 1, 8, 8))
    first, again, other = (random_shares(seed)(graph) for seed in (0, 0, 1))
    means = [float(own.mean()) for own in first.values()]
    assert max(means) - min(means) > 0.2
    assert all(torch.equal(own, again[name]) for name, own in first.items())
    assert not any(torch.equal(own, other[name]) for name, own in first.items())
