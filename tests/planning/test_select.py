"""Budgets are hit: never over, and as close below as the permitted steps allow."""

import copy

import numpy as np
import pytest
import torch

import cutback
from cutback.errors import BudgetUnreachable, NothingToPrune
from cutback.models import build
from cutback.planning.cost import CostModel
from cutback.planning.make import plan_for
from cutback.planning.select import best_units, permitted_widths
from tests.helpers import chain, image, residual

NETWORKS = ("resnet20", "vgg16", "mobilenetv1")
CIFAR = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module")
def graphs():
    torch.manual_seed(0)
    return {name: cutback.trace(build(name), CIFAR) for name in NETWORKS}


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        ({"units": 4, "narrower": [3, 2, 1]}, (4, 3, 2, 1)),
        ({"units": 6, "narrower": []}, (6,)),
        ({"units": 8, "narrower": range(7, 0, -1), "most": 3}, (3, 2, 1)),
        ({"units": 20, "narrower": [16, 8], "most": 15}, (8,)),
        ({"units": 20, "narrower": [16, 8], "most": 5}, (8,)),
    ],
)
def test_permitted_widths(arguments, widths):
    assert permitted_widths(**arguments) == widths


def test_best_units_of_equals_the_first_stay():
    assert best_units(np.array([1.0, 2.0, 1.0, 1.0]), 2) == (0, 1)


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("budget", ["macs=85%", "macs=50%", "macs=20%", "params=60%", "params=15%"])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_budget_is_hit_within_one_percent(graphs, name, budget, allocate):
    plan = cutback.plan(graphs[name], budget=budget, allocate=allocate)
    quantity, share = budget.removesuffix("%").split("=")
    cost = plan.costs[quantity]
    assert (int(share) - 1) / 100 * cost.before <= cost.after <= int(share) / 100 * cost.before
    assert plan.notes == ()
    assert plan.budgets == (budget,)


@pytest.mark.parametrize("name", NETWORKS)
def test_of_two_budgets_none_is_exceeded_and_one_binds(graphs, name):
    plan = cutback.plan(graphs[name], budget=["macs=55%", "params=40%"], allocate="global")
    gaps = [share - plan.costs[q].after / plan.costs[q].before for q, share in (("macs", 0.55), ("params", 0.4))]
    assert min(gaps) >= 0
    assert min(gaps) <= 0.01


def test_the_share_of_channels_rounds_down_in_every_group(graphs):
    plan = cutback.plan(graphs["mobilenetv1"], budget="channels=30%")
    assert [len(group.kept) for group in plan.groups] == [group.total * 3 // 10 for group in plan.groups]


def test_channels_and_macs_together(graphs):
    plan = cutback.plan(graphs["vgg16"], budget=["channels=50%", "macs=10%"])
    assert all(len(group.kept) <= group.total // 2 for group in plan.groups)
    assert 0.09 <= plan.costs["macs"].after / plan.costs["macs"].before <= 0.10


@pytest.mark.parametrize("allocate", ["uniform", "global"])
def test_widths_that_change_are_multiples(graphs, allocate):
    plan = cutback.plan(graphs["mobilenetv1"], budget="macs=40%", round_to=8, allocate=allocate)
    assert all(len(group.kept) % 8 == 0 for group in plan.groups)
    assert 0.39 <= plan.costs["macs"].after / plan.costs["macs"].before <= 0.40


def test_steps_too_coarse_for_the_budget_are_noted():
    plan = cutback.plan(cutback.trace(chain((8, 8)), image()), budget="macs=60%", round_to=4)
    assert [len(group.kept) for group in plan.groups] == [4, 8]
    assert len(plan.notes) == 1
    assert "below the budget" in plan.notes[0]
    assert plan.notes[0] in str(plan)


def test_only_the_budget_that_binds_is_noted():
    graph = cutback.trace(chain((16, 16)), image())
    plan = cutback.plan(graph, budget=["macs=70%", "params=90%"], round_to=4)
    assert [note.partition(":")[0] for note in plan.notes] == ["macs=70%"]
    assert plan.notes[0].endswith("because the next permitted step would be over it")
    plan = cutback.plan(graph, budget=["macs=70%", "params=70%"], round_to=4)  # both stop the next step
    assert [note.partition(":")[0] for note in plan.notes] == ["macs=70%", "params=70%"]


def test_a_budget_that_was_met_by_hand_already_is_no_step_short_of_it():
    plan = cutback.plan(cutback.trace(chain((8, 8)), image()), budget="macs=90%", keep={"0": 2, "3": 2})
    assert len(plan.notes) == 1
    assert "already meets" in plan.notes[0]
    assert "next permitted step" not in plan.notes[0]


def test_min_channels_stay(graphs):
    graph = graphs["resnet20"]
    with pytest.raises(BudgetUnreachable) as raised:
        cutback.plan(graph, budget="macs=1%", min_channels=5)
    lowest = raised.value.lowest["macs"]
    plan = cutback.plan(graph, budget=f"macs={lowest}", min_channels=5)
    assert {len(group.kept) for group in plan.groups} == {5}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_lowest_figure_of_an_unreachable_budget_is_reachable(graphs, name):
    with pytest.raises(BudgetUnreachable, match="lowest reachable") as raised:
        cutback.plan(graphs[name], budget=["macs=1k", "params=1k"])
    lowest = raised.value.lowest
    assert f"{lowest['macs']:,}" in str(raised.value)
    plan = cutback.plan(graphs[name], budget=[f"{quantity}={figure}" for quantity, figure in lowest.items()])
    assert {quantity: cost.after for quantity, cost in plan.costs.items()} == lowest
    assert {len(group.kept) for group in plan.groups} == {1}
    with pytest.raises(BudgetUnreachable):
        cutback.plan(graphs[name], budget=f"macs={lowest['macs'] - 1}")


def test_one_channel_stays_everywhere_and_the_network_still_runs():
    model = residual()
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=1%"))
    assert (model.stem.out_channels, model.inner.out_channels, model.depthwise.groups) == (1, 1, 1)
    assert model(image()).isfinite().all()


def test_ties_are_broken_the_same_way_every_time():
    model = residual()
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    plans = [
        cutback.plan(cutback.trace(copy.deepcopy(model), image()), budget="macs=50%", allocate=allocate)
        for allocate in ("uniform", "uniform", "global", "global")
    ]
    assert plans[0] == plans[1]
    assert plans[2] == plans[3]
    for plan in plans:
        assert all(group.kept == tuple(range(len(group.kept))) for group in plan.groups)


def test_global_takes_the_weak_group_and_uniform_does_not():
    model = chain((40, 40))
    with torch.no_grad():
        model[3].weight[20:] *= 1e-3  # half of the second convolution is worth little
    graph = cutback.trace(model, image())
    weak = cutback.plan(graph, budget="macs=60%", allocate="global")
    assert len(weak.groups[0].kept) == 40
    assert set(range(20)) < set(weak.groups[1].kept)
    even = cutback.plan(graph, budget="macs=60%", allocate="uniform")
    assert abs(len(even.groups[0].kept) - len(even.groups[1].kept)) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_the_cost_model_equals_the_cost_of_the_network_really_cut(seed):
    model = residual() if seed % 2 else build(("lenet5", "resnet20", "alexnet")[seed // 2])
    inputs = image() if seed % 2 else torch.zeros(3, 1 if seed == 0 else 3, *((28, 28) if seed == 0 else (32, 32)))
    graph = cutback.trace(model, inputs)
    random = np.random.default_rng(seed)
    kept = {group.name: range(int(random.integers(1, group.units + 1))) for group in graph.groups}
    plan = plan_for(graph, kept)
    counts = np.array([len(kept[group.name]) for group in graph.groups])
    cost = CostModel(graph)
    cutback.apply_(graph, plan, prove=False)
    assert cost.of("macs", counts) == plan.costs["macs"].after == cutback.measure.macs(model, inputs)
    assert cost.of("params", counts) == plan.costs["params"].after == cutback.measure.params(model)


def test_nothing_to_prune_says_what_keeps_each_layer():
    graph = cutback.trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), image())
    with pytest.raises(NothingToPrune, match=r"0 .*network's output"):
        cutback.plan(graph, budget="macs=50%")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"budget": "macs=50%", "round_to": 16}, "round_to=16"),
        ({"budget": "macs=50%", "min_channels": 9}, "min_channels=9"),
        ({"budget": "macs=50%", "round_to": 4, "min_channels": 5}, "round_to=4 with min_channels=5"),
        ({"keep": {"0": 1.0}}, "keep (pattern '0')"),
        ({"budget": "macs=50%", "ignore": "0"}, "ignored modules (pattern '0')"),
    ],
)
def test_nothing_to_prune_names_the_option_that_leaves_nothing(given, names):
    graph = cutback.trace(chain((8,)), image())
    with pytest.raises(NothingToPrune) as raised:
        cutback.plan(graph, **given)
    assert f"0 whole because of {names}" in str(raised.value)
    assert "output" not in str(raised.value)
