"""The small-scale experiment on fewer pictures, with the bounds of the whole where these have room for it."""

import pytest
import torch

from benchmarks.aofp_acceptance import (
    LAYERS,
    WIDTHS,
    Found,
    Tried,
    by_magnitude,
    invariance,
    page,
    planted,
    proxy,
    pruned,
    rescaled,
    trained,
)
from benchmarks.gratings import gratings
from benchmarks.group_fisher_acceptance import accuracy


@pytest.fixture(scope="module")
def data():
    return gratings(200, seed=0)


@pytest.fixture(scope="module")
def model():
    return trained(0, gratings(2000, seed=0), steps=120)


def test_damage_at_the_next_layer_foretells_the_loss(model, data) -> None:
    found = Found()
    proxy(model, data, found)
    assert [met for met, _ in found.bounds] == [True, True]


def test_rescaled_networks_compute_the_same_and_give_the_same_picks(model, data) -> None:
    other, found = rescaled(model, 1), Found()
    with torch.no_grad():
        assert torch.allclose(model(data[0]), other(data[0]), atol=1e-4)
    assert all(by_magnitude(model, layer) != by_magnitude(other, layer) for layer in LAYERS)
    invariance(model, data, found, half=20, seeds=1)
    assert all(met for met, _ in found.bounds)


def test_dead_filters_are_planted_and_tried_like_others(model, data) -> None:
    dull, dead = planted(model)
    with Tried(dull, data) as tried:
        out = torch.zeros(32, dtype=torch.bool)
        out[list(dead)] = True
        assert tried.damages({"3": out})["3"] == 0
        assert tried.damages({"3": ~out})["3"] > 0.5


def test_a_high_threshold_halves_the_network_soon_and_a_low_one_does_not(model) -> None:
    train, test = gratings(2000, seed=0), gratings(500, seed=1)
    small, method = pruned(model, train, 0.2, 200, half=20)
    assert method.finished
    assert method.plan().costs["macs"].after <= 0.5 * method.plan().costs["macs"].before
    assert accuracy(small, test) > 0.4, "ten classes, before any fine-tuning"
    _, other = pruned(model, train, 0.01, 60, half=20)
    assert not other.finished
    assert sum(other.widths().values()) >= 0.8 * sum(WIDTHS.values())


def test_the_page_says_which_bounds_are_met() -> None:
    found = Found()
    found.table("Some", ("one", "two"), [(0.5, 1000)])
    found.bound(met=True, text="first")
    assert page(found)[1]
    found.bound(met=False, text="second")
    text, met = page(found)
    assert not met
    assert "- met: first\n- MISSED: second" in text
    assert "| 0.500 | 1,000 |" in text
