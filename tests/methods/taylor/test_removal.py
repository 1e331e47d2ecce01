"""Thresholds against a loop over sorted units."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cutback.graph.balance import Cell
from cutback.methods.taylor.removal import block_scores, in_blocks, lowest_removed
from cutback.planning.select import Choice, best_of


def choice(group, scores):
    units = len(scores)
    return Choice((Cell(group, tuple(range(units))),), (np.array(scores),), np.arange(units, 0, -1)[:, None])


def naive(layers, count):
    """Sort the live units of all layers, take the threshold at the count, zero what is not above; spare one a layer."""
    spared = {(n, int(np.argmax(scores))) for n, scores in enumerate(layers)}
    live = [(value, n, u) for n, scores in enumerate(layers) for u, value in enumerate(scores) if (n, u) not in spared]
    threshold = sorted(value for value, _, _ in live)[count - 1]
    return {(n, u) for value, n, u in live if value <= threshold}


def removed(layers, at):
    choices = [choice(n, scores) for n, scores in enumerate(layers)]
    kept = best_of(choices, at, len(layers))
    return {(n, u) for n, scores in enumerate(layers) for u in range(len(scores)) if u not in kept[n]}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9).map(float), min_size=2, max_size=6), min_size=1, max_size=4), st.integers(1, 8)
)
def test_all_layers_compete_and_equals_go_together(layers, count):
    count = min(count, sum(len(scores) - 1 for scores in layers))
    choices = [choice(n, scores) for n, scores in enumerate(layers)]
    at = lowest_removed(choices, np.zeros(len(layers), dtype=np.int64), most=count, enough=lambda _: False, penalty={})
    expected, found = naive(layers, count), removed(layers, at)
    assert [sum(n == m for m, _ in found) for n in range(len(layers))] == [
        sum(n == m for m, _ in expected) for n in range(len(layers))
    ]
    assert sorted(layers[n][u] for n, u in found) == sorted(layers[n][u] for n, u in expected)


def test_no_layer_is_emptied_however_low_its_scores():
    layers = [[0.0, 0.0, 0.0], [5.0, 6.0, 7.0]]
    choices = [choice(n, scores) for n, scores in enumerate(layers)]
    at = lowest_removed(choices, np.zeros(2, dtype=np.int64), most=4, enough=lambda _: False, penalty={})
    assert at.tolist() == [2, 2]


def test_the_last_removal_takes_no_more_than_it_must():
    choices = [choice(0, [1.0, 2.0, 3.0, 4.0]), choice(1, [1.5, 2.5, 9.0])]
    at = lowest_removed(choices, np.zeros(2, dtype=np.int64), most=5, enough=lambda at: int(at.sum()) >= 3, penalty={})
    assert at.tolist() == [2, 1]


def test_units_that_are_gone_do_not_count_again():
    choices = [choice(0, [-np.inf, -np.inf, 3.0, 4.0]), choice(1, [3.5, 9.0, 9.5])]
    at = lowest_removed(choices, np.array([2, 0]), most=1, enough=lambda _: False, penalty={})
    assert at.tolist() == [3, 0]


def test_a_penalty_moves_whole_layers():
    choices = [choice(0, [1.0, 2.0, 3.0]), choice(1, [4.0, 5.0, 6.0])]
    at = lowest_removed(choices, np.zeros(2, dtype=np.int64), most=2, enough=lambda _: False, penalty={0: 0.1, 1: 3.5})
    assert at.tolist() == [1, 1]  # 0.9 and 0.5 are the lowest


def test_blocks_go_whole_and_the_rest_stays():
    whole = in_blocks(choice(0, [float(n) for n in range(11)]), 4)
    assert whole.counts[:, 0].tolist() == [11, 7, 3]
    assert block_scores(whole, 0, {}).tolist() == [1.5, 5.5]
    assert block_scores(whole, 1, {}).tolist() == [5.5]
    other = in_blocks(choice(1, [2.0, 2.0, 2.0, 2.0, 50.0]), 4)
    at = lowest_removed([whole, other], np.zeros(2, dtype=np.int64), most=9, enough=lambda _: False, penalty={})
    assert at.tolist() == [1, 1]  # a third block would be more than nine


def test_cells_of_a_balance_lose_together_by_their_mean():
    linked = Choice(
        (Cell(0, (0, 1, 2)), Cell(0, (3, 4, 5))),
        (np.array([1.0, 5.0, 9.0]), np.array([3.0, 4.0, 8.0])),
        np.array([[3, 3], [2, 2], [1, 1]]),
    )
    assert block_scores(linked, 0, {}).tolist() == [2.0, 4.5]
    alone = choice(1, [1.9, 2.1, 7.0])
    at = lowest_removed([linked, alone], np.zeros(2, dtype=np.int64), most=3, enough=lambda _: False, penalty={})
    assert at.tolist() == [1, 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_scores_below_zero_rank_like_any_others(count):
    choices = [choice(0, [-3.0, -1.0, 2.0, 8.0])]
    at = lowest_removed(choices, np.zeros(1, dtype=np.int64), most=count, enough=lambda _: False, penalty={})
    assert at.tolist() == [count]
