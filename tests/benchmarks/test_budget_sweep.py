"""The budget sweep's own parts."""

from dataclasses import replace
from fractions import Fraction

import pytest

import cutback
from benchmarks.budget_sweep import ALLOCATIONS, TARGETS, Sweep, below, largest_step, page
from cutback.planning.cost import CostModel
from cutback.planning.quantity import quantities
from tests.helpers import chain, image


@pytest.fixture(scope="module")
def graph() -> cutback.Graph:
    return cutback.trace(chain((8, 12)), image())


def test_how_far_below_a_plan_ends_is_told_of_every_budget(graph) -> None:
    plan = cutback.plan(graph, keep={"0": 4})
    # Per place 27 and 72 weights a filter, at 64 places; a head of 48. Parameters: bias and norm have three a filter.
    dense, cut = 64 * (27 * 8 + 72 * 12) + 48, 64 * (27 * 4 + 36 * 12) + 48
    assert below(plan, {"macs": 60}) == {"macs": Fraction(int(0.6 * dense) - cut, dense)}
    weights, left = 27 * 8 + 72 * 12 + 3 * 20 + 48 + 4, 27 * 4 + 36 * 12 + 3 * 16 + 48 + 4
    assert below(plan, {"macs": 40, "params": 70})["params"] == Fraction(int(0.7 * weights) - left, weights)
    assert below(plan, {"macs": 40})["macs"] < 0


def test_the_largest_step_is_that_of_the_costliest_group(graph) -> None:
    macs = quantities.get("macs")(graph, CostModel(graph))
    first = 64 * (27 + 9 * 12)  # a filter of the first layer, and its columns in the second
    assert largest_step(graph, macs, 1) == Fraction(first, macs.dense)
    assert largest_step(graph, macs, 4) == Fraction(4 * first, macs.dense)


@pytest.fixture(scope="module")
def found(graph) -> list:
    sweep = Sweep("chain", graph)
    plan = sweep.ending({"macs": 60}, "uniform", 1)
    return [
        replace(
            plan, target=target, allocation=allocation, round_to=round_to, gap=Fraction(1, 200), step=Fraction(1, 50)
        )
        for target in TARGETS
        for allocation in ALLOCATIONS
        for round_to in (1, 8)
    ]


@pytest.mark.parametrize(
    ("round_to", "gap", "met"),
    [
        (1, Fraction(1, 100), True),
        (1, Fraction(1, 99), False),
        (1, Fraction(-1, 10000), False),
        (8, Fraction(1, 50), True),
        (8, Fraction(1, 49), False),
        (8, Fraction(-1, 10000), False),
    ],
)
def test_the_page_says_which_bounds_are_met(found, round_to, gap, met, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.budget_sweep.Ending.said", property(lambda ending: ending.gap > 0.01))
    changed = next(n for n, ending in enumerate(found) if ending.round_to == round_to)
    text, whole = page([*found[:changed], replace(found[changed], gap=gap), *found[changed + 1 :]])
    assert whole is met
    assert ("MISSED" in text) is not met
    assert text.count("**missed**") == (not met)
    assert "0.50% / 0.50%" in text


def test_what_ends_far_below_has_to_say_so(found) -> None:
    text, whole = page([*found[:-1], replace(found[-1], gap=Fraction(1, 60))])
    assert found[-1].round_to == 8
    assert not whole
    assert "MISSED: what ends more than 1% below says so" in text
