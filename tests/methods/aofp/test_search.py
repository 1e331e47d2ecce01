"""The search of one layer, fed with damages that are known."""

import itertools

import numpy as np
import pytest
import torch

from cutback.methods.aofp.search import Search


def fed(search, damage, half, seed=0):
    """Run a half on a damage that is a function of the filters that are out; return what was drawn."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for _ in range(half):
        search.draw(generator)
        drawn.append(frozenset(np.flatnonzero(search.out).tolist()))
        search.add(damage(drawn[-1]))
    return drawn


def among(filters, searched):
    """Return a search among some of a layer's filters."""
    search = Search(filters, 0)
    search.searched = np.zeros(filters, dtype=bool)
    search.searched[list(searched)] = True
    return search


def test_halves_get_smaller_down_to_a_single_filter_and_begin_anew():
    search, sizes, picked = Search(32, 0), [], range(32)
    for _ in range(5):
        drawn = fed(search, lambda out: sum(range(1000, 1032)[k] for k in out), 40)
        sizes.append((len(picked), search.granularity))
        assert all(len(out) == search.granularity and out <= set(picked) for out in drawn)
        assert len(set(drawn)) > 1
        decision = search.decision(threshold=1.0)
        assert decision.searched == len(picked)
        assert set(decision.picked) <= set(picked)
        search.follow(decision)
        assert not search.damage.any()
        assert not search.drawn.any()
        assert search.done == 0
        picked = decision.picked
    assert sizes == [(32, 16), (16, 8), (8, 4), (4, 2), (2, 1)]
    assert decision.action == "restart"
    assert bool(search.searched.all())


@pytest.mark.parametrize(("filters", "granularities"), [(7, [3, 1]), (3, [1]), (2, [1])])
def test_odd_numbers_are_rounded_down(filters, granularities):
    search, found = Search(filters, 0), []
    while True:
        found.append(search.granularity)
        fed(search, lambda _: 1.0, 30)
        decision = search.decision(0.5)
        search.follow(decision)
        if decision.action == "restart":
            break
    assert found == granularities


def test_a_single_filter_is_left_alone():
    assert Search(1, 0).granularity == 0


def test_means_are_those_of_a_loop_over_what_was_drawn():
    search, weights = (
        among(10, (0, 2, 3, 5, 7, 8, 9)),
        torch.rand(10, generator=torch.Generator().manual_seed(1)).tolist(),
    )
    drawn = fed(search, lambda out: sum(weights[k] for k in out) ** 2, 25)
    for k in range(10):
        seen = [sum(weights[j] for j in out) ** 2 for out in drawn if k in out]
        if k in (1, 4, 6):
            assert not seen
        mean = sum(seen) / len(seen) if seen else float("inf")
        assert search.means()[k] == pytest.approx(mean)


def test_the_half_of_the_lowest_means_is_picked_and_goes_where_the_worst_is_below_the_threshold():
    costs = [9.0, 1.0, 5.0, 2.0, 8.0, 3.0, 7.0, 4.0]
    search = Search(8, 0)
    fed(search, lambda out: sum(costs[k] for k in out), 4000)
    decision = search.decision(threshold=1e9)
    assert decision.picked == (1, 3, 5, 7), "the lowest first"
    means = search.means()
    assert decision.worst == pytest.approx(max(means[list(decision.picked)]))
    assert search.decision(decision.worst).action == "halve", "not where it is equal"
    assert search.decision(decision.worst * (1 + 1e-12)).action == "prune"
    search.follow(search.decision(1e9), gone=4)
    assert search.filters == 4
    assert search.searched.tolist() == [True] * 4
    assert search.granularity == 2


def test_a_filter_that_was_never_out_is_not_free():
    search = Search(4, 0)
    search.out = np.array([True, True, False, False])
    search.add(0.0)
    assert search.means().tolist() == [0, 0, float("inf"), float("inf")]
    search.searched[1] = False
    search.out = np.array([True, False, False, False])
    search.add(0.0)
    assert search.decision(1.0).picked == (0,)
    search.searched[0] = False
    decision = search.decision(1.0)
    assert decision.worst == float("inf")
    assert decision.action == "restart"


def test_an_iteration_that_says_nothing_passes():
    search = Search(4, 0)
    fed(search, lambda _: None, 3)
    assert search.done == 3
    assert not search.drawn.any()
    assert search.decision(1e9).action == "halve"


def test_means_come_near_the_conditional_means_over_all_subsets():
    """Eight filters, half of them out: all 70 subsets, with interactions; the benchmark has 40 seeds."""
    generator = torch.Generator().manual_seed(0)
    alone = torch.tensor([0.7, 1.1, 0.5, 1.3, 1.2, 0.6, 1.0, 0.4])
    pairs = 0.05 * torch.rand(8, 8, generator=generator)
    table = {
        frozenset(subset): float(alone[list(subset)].sum() + pairs[list(subset)][:, list(subset)].sum())
        for subset in itertools.combinations(range(8), 4)
    }
    assert len(table) == 70
    exact = [sum(t for s, t in table.items() if k in s) / 35 for k in range(8)]
    best, agreed = set(sorted(range(8), key=exact.__getitem__)[:4]), 0
    for seed in range(10):
        search = Search(8, 0)
        fed(search, table.__getitem__, 2000, seed)
        assert max(abs(m / e - 1) for m, e in zip(search.means().tolist(), exact, strict=True)) <= 0.05
        agreed += set(search.decision(0.0).picked) == best
    assert agreed >= 9


def test_a_search_goes_on_from_its_state():
    searches = [Search(9, 5), Search(9, 5)]
    generators = [torch.Generator().manual_seed(3) for _ in searches]
    for _ in range(7):
        searches[0].draw(generators[0])
        searches[0].add(0.5)
    searches[1] = Search.from_state(searches[0].state_dict())
    generators[1].set_state(generators[0].get_state())
    for search, generator in zip(searches, generators, strict=True):
        search.draw(generator)
        search.add(0.25)
    first, second = (search.state_dict() for search in searches)
    assert first.keys() == second.keys()
    assert all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first)
    assert first["start"] == 5
    assert first["done"] == 8
