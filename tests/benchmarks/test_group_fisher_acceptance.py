"""The small-scale experiment on one seed and in fewer steps, with the bounds of the whole."""

import pytest
import torch

from benchmarks.gratings import gratings
from benchmarks.group_fisher_acceptance import (
    GAIN,
    HOW,
    LEAD,
    LEAST,
    accuracy,
    correlations,
    left,
    page,
    pruned,
    trained,
)


@pytest.fixture(scope="module")
def model():
    return trained(0, gratings(2000, seed=0))


def test_importance_foretells_what_the_loss_rises_by(model) -> None:
    importance, norm, _ = correlations(model, gratings(1000, seed=2))
    assert importance >= LEAST
    assert importance - norm >= LEAD


@pytest.mark.slow
def test_units_by_importance_beat_units_by_chance_before_any_fine_tuning(model) -> None:
    train, test = gratings(2000, seed=0), gratings(1000, seed=1)
    found = {how: pruned(model, how, 0, train, interval=4) for how in ("memory", "chance")}
    right = {how: accuracy(small, test) for how, (small, _) in found.items()}
    assert right["memory"] - right["chance"] >= GAIN
    assert all(left(small, model)[0] <= 0.5 for small, _ in found.values())
    assert all(steps % 4 == 0 for _, steps in found.values())


@pytest.mark.parametrize(
    ("ranks", "chance", "missed"),
    [((0.9, 0.5, 0), 0.7, 0), ((0.8, 0.5, 0), 0.7, 1), ((0.9, 0.8, 0), 0.7, 1), ((0.9, 0.5, 0), 0.77, 1)],
)
def test_the_page_says_which_bounds_are_met(ranks, chance, missed) -> None:
    rows = {how: [(0.84, 0.5, 0.7)] * 3 for how in HOW} | {"chance": [(chance, 0.5, 0.7)] * 3}
    text, met = page([0.95], [ranks] * 3, rows)
    assert met == (not missed)
    assert text.count("MISSED") == missed


def test_gratings_are_the_same_for_the_same_seed_and_as_noisy_as_asked_for() -> None:
    first, second = gratings(60, seed=3, noise=0.0), gratings(60, seed=3, noise=0.0)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[0].abs().max() <= 1
    assert 0.3 < first[0].square().mean() < 0.7
    noisy = gratings(60, seed=3, noise=1.5)[0]
    assert abs(float((noisy - first[0]).std()) - 1.5) < 0.1
