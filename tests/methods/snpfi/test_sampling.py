"""Sampled importance and interactions against enumeration of all coalitions, and the errors that are told of them."""

import itertools
import math

import numpy as np
import pytest
import torch

import cutback
from cutback.methods.activations import looked_at
from cutback.methods.snpfi.calibration import calibration
from cutback.methods.snpfi.elimination import Elimination, eliminated
from cutback.methods.snpfi.game import Arena, GroupGame
from cutback.methods.snpfi.sampling import Estimate, interaction, interaction_difference, walked
from cutback.methods.snpfi.worth import CAP, log_odds, log_probability
from tests.helpers import chain, image
from tests.methods.snpfi.networks import (
    LABELS,
    PICTURES,
    A,
    B,
    C,
    D,
    Table,
    exact_importance,
    exact_interaction,
    planted,
    planted_worth,
    subsets,
)

PAIRS = {(A, B): 4.0, (C, D): -3.0}


@pytest.fixture(scope="module")
def game():
    """The planted game, played by the network itself."""
    graph = cutback.trace(planted(), PICTURES[:1])
    with looked_at(graph):
        arena = Arena(graph, ["0"], calibration(graph, [(PICTURES, LABELS)], 4, 16), 16)
        yield GroupGame(arena, "0", 6, log_odds)


def test_every_coalition_is_worth_what_the_formula_says(game) -> None:
    for coalition in subsets(range(6)):
        row = np.zeros((1, 6), dtype=bool)
        row[0, list(coalition)] = True
        assert game.of(row)[0] == pytest.approx(planted_worth(coalition), abs=1e-5)


@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_antithetic_pairs_are_exact_where_at_most_two_filters_interact(game, pairs) -> None:
    walks = walked(game, range(6), pairs, np.random.default_rng(pairs))
    expected = exact_importance(planted_worth, 6, signed=True)
    assert expected == pytest.approx([2, 2, 1.5, 1.5, 1.8, 0])
    assert walks.shapley.mean.tolist() == pytest.approx(expected, abs=1e-5)
    assert walks.shapley.mean.sum() == pytest.approx(8.8, abs=1e-5)
    assert walks.importance.mean.tolist() == pytest.approx(exact_importance(planted_worth, 6), abs=1e-5)


def test_interactions_of_every_order_are_those_that_were_planted(game) -> None:
    generator = np.random.default_rng(0)
    for order in range(5):
        for pair in itertools.combinations(range(6), 2):
            expected = exact_interaction(planted_worth, 6, *pair, order)
            assert expected == pytest.approx(PAIRS.get(pair, 0.0), abs=1e-9)
            found = interaction(game, pair, order, 3, generator)
            assert found.mean == pytest.approx(expected, abs=1e-5)
            assert found.error == pytest.approx(0, abs=1e-5)


def test_a_set_of_any_size_interacts_by_its_alternating_sum() -> None:
    def all_three(coalition) -> float:
        return 5.0 * {0, 1, 3}.issubset(coalition) + 2.0 * (4 in coalition)

    game, generator = Table(all_three, 5), np.random.default_rng(0)
    assert interaction(game, (0, 1, 3), 1, 4, generator).mean == pytest.approx(5.0)
    assert interaction(game, (0, 1, 4), 1, 4, generator).mean == pytest.approx(0.0)
    assert interaction(game, (4,), 2, 4, generator).mean == pytest.approx(2.0)


def test_the_mean_interaction_is_how_marginal_utility_grows() -> None:
    generator = np.random.default_rng(3)
    worths = {coalition: float(generator.normal()) for coalition in subsets(range(5))}
    marginal = []
    for order in range(5):
        gains = [
            worths[tuple(sorted((*context, unit)))] - worths[context]
            for unit in range(5)
            for context in itertools.combinations([other for other in range(5) if other != unit], order)
        ]
        marginal.append(np.mean(gains))
    for order in range(4):
        pairs = [exact_interaction(worths.__getitem__, 5, *p, order) for p in itertools.combinations(range(5), 2)]
        assert np.mean(pairs) == pytest.approx(marginal[order + 1] - marginal[order])
    low, high = walked(Table(worths.__getitem__, 5), range(5), 400, generator).marginal.interval(0.9999)
    assert (low <= marginal).all()
    assert (marginal <= high).all()


def ten_filters():
    """Return what every coalition of ten filters of a network is worth, by running it masked, one at a time."""
    model, images = chain((10, 6)).eval(), image(5, (12, 3, 8, 8))
    labels = torch.arange(12) % 4
    with torch.no_grad():
        maps = model[:3](images)
        worths = {}
        for coalition in subsets(range(10)):
            mask = torch.zeros(1, 10, 1, 1)
            mask[0, list(coalition)] = 1.0
            probabilities = model[3:](maps * mask).double().softmax(1)
            worths[coalition] = float(probabilities[torch.arange(12), labels].log().mean())
    return model, images, labels, worths


@pytest.fixture(scope="module")
def ten():
    return ten_filters()


def test_coalitions_in_one_pass_are_worth_what_they_are_one_by_one(ten) -> None:
    model, images, labels, worths = ten
    graph = cutback.trace(model, images[:2])
    with looked_at(graph):
        pictures = calibration(graph, [(images[:5], labels[:5]), (images[5:], labels[5:])], 12, 8)
        assert [len(own) for _, own in pictures.batches] == [8, 4]
        game = GroupGame(Arena(graph, ["0"], pictures, 40), "0", 10, log_probability)
        chosen = list(worths)[:: 1 + len(worths) // 90]
        rows = np.zeros((len(chosen), 10), dtype=bool)
        for row, coalition in zip(rows, chosen, strict=True):
            row[list(coalition)] = True
        assert game.of(rows).tolist() == pytest.approx([worths[coalition] for coalition in chosen], abs=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_intervals_cover_the_exact_importance_of_each_of_ten_filters(ten, signed) -> None:
    game, exact = Table(ten[3].__getitem__, 10), exact_importance(ten[3].__getitem__, 10, signed=signed)
    covered = np.zeros(10)
    for seed in range(100):
        walks = walked(game, range(10), 16, np.random.default_rng(seed))
        low, high = (walks.shapley if signed else walks.importance).interval(0.99)
        covered += (low <= exact) & (exact <= high)
    assert covered.min() >= 95
    assert (high - low).min() > 0
    assert (high - low).max() < max(np.abs(exact)), "intervals that say something"


def test_errors_shrink_with_the_square_root_of_the_draws(ten) -> None:
    game = Table(ten[3].__getitem__, 10)
    few, many = (walked(game, range(10), n, np.random.default_rng(0)).importance for n in (25, 400))
    assert float(np.mean(few.error / many.error)) == pytest.approx(4.0, rel=0.3)


def test_intervals_of_skewed_draws_are_those_of_the_transformed_mean() -> None:
    drawn = np.random.default_rng(0).exponential(size=(12, 1)) ** 2
    found = Estimate.of(drawn)
    mean, count = drawn.mean(), len(drawn)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in drawn.flat) / count)
    skewness = sum((value - mean) ** 3 for value in drawn.flat) / count / deviation**3
    error = deviation * math.sqrt(count / (count - 1)) / math.sqrt(count)

    def transformed(truth: float) -> float:
        t = (mean - truth) / error
        root = math.sqrt(count)
        return t + skewness * t**2 / (3 * root) + skewness**2 * t**3 / (27 * count) + skewness / (6 * root)

    low, high = found.interval(0.99)
    assert transformed(low.item()) == pytest.approx(3.105806516, rel=1e-6)  # Student's, 11 degrees of freedom
    assert transformed(high.item()) == pytest.approx(-3.105806516, rel=1e-6)
    assert high.item() - mean > mean - low.item()
    plain = Estimate.of(np.array([[1.0], [2.0], [3.0]])).interval(0.99)
    assert plain[1].item() == pytest.approx(2 + 9.924843 / math.sqrt(3), rel=1e-6)


def test_one_draw_has_no_error_that_could_be_told() -> None:
    single = Estimate.of(np.ones((1, 3)))
    assert np.isinf(single.error).all()
    low, high = single.interval()
    assert (low == -np.inf).all()
    assert (high == np.inf).all()


def test_the_difference_of_interactions_is_that_of_random_pairs_in_random_contexts() -> None:
    zero = Table(lambda _: 0.0, 6)
    found = interaction_difference(Table(planted_worth, 6), zero, 3000, np.random.default_rng(1))
    assert found is not None
    assert abs(found.mean - 7 / 15) < 4 * found.error < 0.15
    same = interaction_difference(Table(planted_worth, 6), Table(planted_worth, 6), 20, np.random.default_rng(1))
    assert same is not None
    assert same.mean == 0
    assert interaction_difference(Table(len, 1), Table(len, 1), 20, np.random.default_rng(1)) is None


def test_elimination_keeps_both_that_need_each_other_and_one_of_the_redundant_pair(game) -> None:
    found = eliminated(game, pairs=2, block=1, generator=np.random.default_rng(0))
    kept = set(found.order[3:])
    assert {A, B} < kept
    assert len(kept & {C, D}) == 1
    assert found.worth[3] == pytest.approx(6.0, abs=1e-5)
    assert found.order[0] == 5
    assert found.strength[3] == pytest.approx(7 / 8.8, abs=1e-5)


def test_one_ranking_for_all_keeps_neither_of_the_redundant_pair(game) -> None:
    once = eliminated(game, pairs=2, block=5, generator=np.random.default_rng(0))
    shapley = set(np.argsort(-once.first.shapley.mean)[:3].tolist())
    assert shapley == {A, B, 4}
    assert planted_worth(tuple(sorted(shapley))) == pytest.approx(4.8)


def test_widths_follow_from_the_strength_of_all_widths_not_below() -> None:
    worth = np.array([0.0, 5.0, 9.0, 7.0, 9.5, 10.0])
    found = Elimination((0, 1, 2, 3, 4), None, None, worth)
    assert found.strength.tolist() == pytest.approx([0, 0.5, 0.9, 0.7, 0.95, 1])
    widths = {epsilon: found.leaving.width(epsilon) for epsilon in (0.0, 0.05, 0.1, 0.29, 0.31, 0.49, 0.5)}
    by_hand = {}
    for epsilon in widths:
        least = [k for k in range(1, 6) if all(found.strength[m] >= 1 - epsilon - 1e-12 for m in range(k, 6))]
        by_hand[epsilon] = min(least)
    assert widths == by_hand
    assert list(widths.values()) == [5, 4, 4, 4, 2, 2, 1]


def test_a_layer_on_a_shortcut_is_told_in_nats() -> None:
    found = Elimination((0, 1), None, None, np.array([-1.0, -0.99, -0.97]))
    assert found.strength.tolist() == pytest.approx([0.97, 0.98, 1.0])


def test_worths_by_the_formula() -> None:
    logits, labels = torch.tensor([[1.0, -2.0, 0.5], [40.0, 0.0, 0.0]]), torch.tensor([2, 0])
    probability = float(torch.tensor(0.5).exp() / logits[0].exp().sum())
    assert float(log_probability(logits, labels)[0]) == pytest.approx(np.log(probability), abs=1e-6)
    odds = log_odds(logits, labels).tolist()
    assert odds == pytest.approx([np.log(probability / (1 - probability)), CAP], abs=1e-6)
