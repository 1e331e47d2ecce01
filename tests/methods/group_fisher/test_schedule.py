"""When units go, when the model is cut, and that masked is sliced."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim import SGD

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, InvalidScore, UserMistake
from cutback.measure import macs
from cutback.methods import GroupFisher
from tests.methods.group_fisher.networks import NETWORKS, Basic, made

PICTURES = torch.randn(16, 1, 12, 12, generator=torch.Generator().manual_seed(5))
CLASSES = torch.arange(16) % 10


def method_of(network=Basic, **settings):
    model = made(network).train()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
    graph = cutback.trace(model, PICTURES[:2])
    return GroupFisher(graph, **{"budget": "macs=50%", "optimizers": optimizer, "interval": 3, **settings})


def step(method):
    optimizer = method.optimizers[0]
    optimizer.zero_grad()
    (F.cross_entropy(method.graph.model(PICTURES), CLASSES) + method.penalty()).backward()
    method.after_backward()
    method.before_step()
    optimizer.step()
    return method.after_step()


def dead(method):
    return sum(int((~alive).sum()) for alive in method._removals.alive)


def test_one_unit_goes_after_every_interval_and_the_sums_begin_anew():
    with method_of(cut_every=100) as method:
        for number in range(1, 13):
            assert not step(method)
            assert dead(method) == number // 3
            assert bool(method._sums.total.any()) == bool(number % 3)


def test_several_units_go_at_once_where_so_set_and_the_cheapest_for_what_they_save():
    with method_of(removed=4, cut_every=100, interval=1, normalise="macs") as method:
        seen = {}
        candidates, remove = method._removals.candidates, method._removals.remove

        def watched(importances):
            seen["now"] = candidates(importances)
            return seen["now"]

        def chosen(removal):
            ratios = [candidate.importance / candidate.saved for candidate in seen["now"]]
            assert removal.importance / removal.saved == min(ratios)
            remove(removal)

        method._removals.candidates, method._removals.remove = watched, chosen
        step(method)
        assert dead(method) == 4


def test_it_cuts_every_so_many_removals_and_stops_at_the_first_with_which_the_budget_is_met():
    method = method_of(interval=2, cut_every=12)
    model = method.graph.model
    dense, cuts, figures = macs(model, PICTURES[:1]), [], []
    with method:
        for number in range(1, 300):
            before = {group.name: group.units for group in method.graph.groups}, dead(method)
            if step(method):
                cuts.append(number)
                figures.append(method.plan().costs["macs"].after)
            if method.finished:
                break
    assert method.finished
    assert all(number % 24 == 0 for number in cuts[:-1])
    assert number == cuts[-1]
    assert figures[-1] <= dense // 2 < figures[-2]
    assert macs(model, PICTURES[:1]) == figures[-1]
    assert sum(before[0].values()) - before[1] - 1 == sum(len(g.kept) for g in method.plan().groups)
    assert method.plan().budgets == ("macs=50%",)
    units = sum(group.total - len(group.kept) for group in method.plan().groups)
    assert 2 * units == number  # one unit every other step: the last one met the budget, the one before did not
    assert not step(method)  # training goes on without it


def test_without_the_last_unit_the_budget_was_not_met():
    method = method_of(budget="macs=90%", interval=1, cut_every=1)
    figures = []
    with method:
        while not method.finished:
            assert step(method)
            figures.append(method.plan().costs["macs"].after)
    dense = method.plan().costs["macs"].before
    assert len(figures) > 2
    assert figures[-1] <= 0.9 * dense < figures[-2]


@pytest.mark.parametrize("network", NETWORKS)
def test_masked_is_sliced(network):
    with method_of(network, budget="macs=25%", interval=1, cut_every=100, normalise="macs") as method:
        for _ in range(4):
            step(method)
        assert dead(method) == 4
        model = method.graph.model.eval()
        with torch.no_grad():
            masked = model(PICTURES)
            method._cut_out({})
            assert torch.allclose(model(PICTURES), masked, atol=1e-5, rtol=1e-5)
        assert dead(method) == 0


def test_every_group_keeps_a_unit():
    with method_of(budget="params=8%", interval=1, removed=50, normalise="none", cut_every=10**6) as method:
        while not method.finished:
            step(method)
    assert min(len(group.kept) for group in method.plan().groups) >= 1


def test_it_tells_a_log_what_is_masked_and_what_is_left():
    with method_of(interval=1, cut_every=100) as method:
        dense = method.records()
        assert dense == {"masked": 0, "macs": macs(made(Basic), PICTURES[:1])}
        step(method)
        assert method.records()["masked"] == 1
        assert method.records()["macs"] < dense["macs"]


def test_units_that_masks_silence_otherwise_than_a_cut_are_cut_at_once():
    with method_of(interval=1, cut_every=100) as method:
        method._removals.at_once.update(range(len(method.graph.groups)))
        assert step(method)


def test_gradients_that_are_not_finite_are_named():
    with method_of(interval=1) as method:
        method._sums.total.fill_(float("nan"))
        with pytest.raises(InvalidScore, match=r"group stem\.0 are not finite"):
            step(method)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"budget": None}, UserMistake, "give one"),
        ({"budget": "channels=50%"}, InvalidBudget, "bound a figure"),
        ({"interval": 0}, UserMistake, "interval=0"),
        ({"removed": 1.5}, UserMistake, r"removed=1\.5"),
        ({"cut_every": True}, UserMistake, "cut_every=True"),
        ({"normalise": "flops"}, UserMistake, "memory, macs, none"),
        ({"importance": "size"}, UserMistake, "fisher, gradient"),
    ],
)
def test_bad_settings_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        method_of(**settings)


def test_a_budget_out_of_reach_is_refused_before_any_work():
    with pytest.raises(BudgetUnreachable, match="lowest reachable"), method_of(budget="macs=0.01%"):
        pass
    method = method_of(budget="macs=0.1%", internal_only=True)
    with pytest.raises(BudgetUnreachable), method:
        pass
    assert "forward" not in vars(method.graph.model)


def test_several_budgets_are_all_met():
    method = method_of(budget=["macs=70%", "memory=60%"], interval=1, removed=3)
    with method:
        while not method.finished:
            step(method)
    costs = method.plan().costs
    assert all(cost.after <= share * cost.before for cost, share in ((costs["macs"], 0.7), (costs["memory"], 0.6)))
    assert np.isclose(costs["memory"].before, 4 * 12 * 12 * 8 * 3 + 4 * 6 * 6 * 16 * 5)
