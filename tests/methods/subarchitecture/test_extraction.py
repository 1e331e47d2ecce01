"""From numbers to an architecture: those above zero, or the best for their price, and never below the floor."""

import pytest
import torch

import cutback
from cutback.methods.subarchitecture.extraction import extracted, hard_widths, least_widths
from tests.helpers import chain, image
from tests.methods.subarchitecture.test_complexity import Grouped, naive


@pytest.fixture(scope="module")
def graph():
    return cutback.trace(chain((8, 12)), image())


def numbers(first, second):
    theta = {0: torch.full((8,), -1.0), 1: torch.full((12,), -1.0)}
    theta[0][list(first)], theta[1][list(second)] = 0.5, 0.5
    return theta


def kept(plan):
    return [list(group.kept) for group in plan.groups]


PRICES = {0: torch.ones(8), 1: torch.ones(12)}


def test_units_above_zero_stay(graph):
    plan = extracted(graph, numbers([1, 4, 5], [0, 11]), PRICES, (), 0.0)
    assert kept(plan) == [[1, 4, 5], [0, 11]]


def test_of_a_group_below_the_floor_the_highest_stay(graph):
    theta = numbers([], [3])
    theta[0][6] = -0.2
    assert least_widths(graph, [0, 1], 0.125) == {0: 1, 1: 2}
    assert least_widths(graph, [0, 1], 0.0) == {0: 1, 1: 1}
    theta[1][7] = -0.1
    assert kept(extracted(graph, theta, PRICES, (), 0.125)) == [[6], [3, 7]]
    assert kept(extracted(graph, theta, PRICES, (), 0.0)) == [[6], [3]]
    assert hard_widths(theta, {0: 1, 1: 2}) == {0: 1, 1: 2}


def test_where_all_are_above_zero_there_is_nothing_to_cut(graph):
    assert extracted(graph, numbers(range(8), range(12)), PRICES, (), 0.125) is None


def test_within_a_budget_the_best_for_their_price_stay(graph):
    theta = {0: torch.linspace(0.1, 0.8, 8), 1: torch.linspace(-1.0, 0.1, 12)}
    prices = {0: torch.full((8,), 0.1), 1: torch.full((12,), 0.4)}
    budgets = cutback.methods.Subarchitecture(graph, steps=1, cycles=1, budget="macs=50%").budgets
    plan = extracted(graph, theta, prices, budgets, 0.125)
    rates = sorted((float(theta[g][u] / prices[g][u]), g, u) for g in (0, 1) for u in range(len(theta[g])))
    alive = {0: set(range(8)), 1: set(range(12))}
    for _, group, unit in rates:
        if naive(len(alive[0]), len(alive[1])) <= naive(8, 12) / 2:
            break
        if len(alive[group]) > (1, 2)[group]:
            alive[group].remove(unit)
    assert kept(plan) == [sorted(alive[0]), sorted(alive[1])]


def test_a_balance_is_kept_where_units_above_zero_would_break_it():
    graph = cutback.trace(Grouped(), image())
    theta = {
        number: torch.linspace(-1.0, 1.0, group.units) if group.units > 1 else torch.ones(1)
        for number, group in enumerate(graph.groups)
    }
    plan = extracted(graph, theta, {n: torch.ones_like(own) for n, own in theta.items()}, (), 0.125)
    assert plan is not None
    small = cutback.apply(graph, plan)
    assert small(image()).isfinite().all()
    assert sum(len(group.kept) for group in plan.groups) < sum(group.total for group in plan.groups)
