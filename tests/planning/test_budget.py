"""Budgets as users write them, and the errors that tell them how to."""

import re

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import InvalidBudget
from cutback.planning.budget import parse_budgets
from tests.helpers import chain, image


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("macs=0%", "between 0 % and 100 %"),
        ("macs=100%", "between 0 % and 100 %"),
        ("params=250%", "between 0 % and 100 %"),
        ("channels=0%", "between 0 % and 100 %"),
        ("50", "cannot read the budget '50'"),
        ("50%", "cannot read the budget '50%'"),
        ("", "cannot read the budget ''"),
        ("macs=-50%", "cannot read the budget"),
        ("macs=half", "cannot read the budget"),
        ("macs=nan%", "cannot read the budget"),
        ("speed=50%", "no budget is called 'speed'"),
        ("channels=8", "must be a share"),
        ("macs=0.5", "less than one; for a share write macs=50%"),
        ("params=0", "less than one"),
        (["macs=50%", "macs=2M"], "two budgets for macs"),
        (0.5, "cannot read the budget 0.5; write for example macs=50%"),
        ([0.5], "cannot read the budget 0.5"),
        ({"macs": 0.5}, "cannot read the budget {'macs': 0.5}"),
        ("latency=100%", "between 0 % and 100 %"),
    ],
)
def test_a_bad_budget_says_what_is_wrong_and_how_to_write_it(written, says):
    with pytest.raises(InvalidBudget, match=re.escape(says)) as raised:
        parse_budgets(written)
    assert "%" in str(raised.value)


@pytest.mark.parametrize(
    ("written", "limit"),
    [("macs=50%", 500), ("params=33.3%", 333), (" macs = 0.2k ", 200), ("params=.0005M", 500), ("macs=999", 999)],
)
def test_limits_are_exact(written, limit):
    (budget,) = parse_budgets(written)
    assert budget.limit(1000) == limit


def test_a_decimal_share_carries_no_binary_noise():
    (budget,) = parse_budgets("macs=58.3%")
    assert budget.limit(1000) == 583  # 1000 * 0.583 is 582.999... in binary


@pytest.mark.parametrize("written", ["params=1G", "macs=1G"])
def test_an_absolute_budget_must_lie_below_the_dense_network(written):
    graph = cutback.trace(chain(), image())
    with pytest.raises(InvalidBudget, match=rf"{re.escape(written[:6])}.*removes nothing.*dense network has"):
        cutback.plan(graph, budget=written)


def test_just_below_the_dense_network_is_a_budget():
    graph = cutback.trace(chain(), image())
    dense = sum(parameter.numel() for parameter in graph.model.parameters())
    plan = cutback.plan(graph, budget=f"params={dense - 1}")
    assert dense - plan.costs["params"].after == 8 * 9 + 3 + 4  # one filter of the second convolution
    with pytest.raises(InvalidBudget):
        cutback.plan(graph, budget=f"params={dense}")


@pytest.mark.parametrize("given", [{}, {"budget": []}, {"budget": None}])
def test_no_budget_at_all(given):
    graph = cutback.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), torch.zeros(1, 3, 4, 4))
    with pytest.raises(InvalidBudget, match="how much to remove"):
        cutback.plan(graph, **given)


@pytest.mark.parametrize("given", [{"round_to": 0}, {"min_channels": 0}, {"round_to": -8}])
def test_rounding_and_minimum_must_be_positive(given):
    graph = cutback.trace(chain(), image())
    with pytest.raises(InvalidBudget, match="at least 1"):
        cutback.plan(graph, budget="macs=50%", **given)


def test_an_unknown_allocation_lists_those_there_are():
    graph = cutback.trace(chain(), image())
    with pytest.raises(InvalidBudget, match=r"no allocation is called 'evenly'.*there are global, .*uniform"):
        cutback.plan(graph, budget="macs=50%", allocate="evenly")
