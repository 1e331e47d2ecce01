"""How a budget is shared out: each allocation against what its paper or its name says, worked out in the test."""

import itertools

import numpy as np
import pytest
import torch
import torchvision
from scipy import optimize
from torch import nn

import cutback
from cutback.errors import InvalidBudget, UserMistake
from cutback.models import build
from cutback.planning.allocation import allocations
from tests.helpers import chain, image, randomised, residual

# One needs a scan, see below; the other a latency to be measured, see tests/trials/test_latency.py.
NAMES = [name for name in allocations if name not in ("sensitivity", "per-latency")]


class Given:
    """Scores as they are given."""

    def __init__(self, values):
        self.values = values

    def __call__(self, graph):
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in self.values.items()}


def widths(plan):
    return {group.name: len(group.kept) for group in plan.groups}


def scores_for(graph, seed=0, spread=3.0):
    random = np.random.default_rng(seed)
    return Given({group.name: np.exp(random.normal(0, spread, group.units)).tolist() for group in graph.groups})


def kept_score(plan, score, *, normalised):
    found = 0.0
    for group in plan.groups:
        values = np.array(score.values[group.name])
        found += values[list(group.kept)].sum() / (np.abs(values).mean() if normalised else 1.0)
    return found


def layers(*pairs, size=1):
    """Convolutions of one channel width after the other, without norms."""
    return nn.Sequential(*(nn.Conv2d(before, after, size, padding=size // 2, bias=False) for before, after in pairs))


@pytest.fixture(scope="module")
def graphs():
    torch.manual_seed(0)
    grouped = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 16, 3, groups=4),
        nn.GroupNorm(2, 16),
        nn.Conv2d(16, 12, 1),
        nn.Conv2d(12, 2, 1),
    )
    return {
        "residual": cutback.trace(residual(), image()),
        "resnet20": cutback.trace(build("resnet20"), torch.zeros(1, 3, 32, 32)),
        "grouped": cutback.trace(randomised(grouped), image()),
    }


@pytest.mark.parametrize("network", ["residual", "resnet20", "grouped"])
@pytest.mark.parametrize("allocate", NAMES)
def test_every_allocation_meets_its_budget_and_the_cut_is_sound(graphs, network, allocate):
    graph = graphs[network]
    plan = cutback.plan(graph, budget=["macs=70%", "params=75%"], allocate=allocate)
    assert plan.costs["macs"].after <= 0.7 * plan.costs["macs"].before
    assert plan.costs["params"].after <= 0.75 * plan.costs["params"].before
    assert plan == cutback.plan(graph, budget=["macs=70%", "params=75%"], allocate=allocate)
    cutback.prove(graph, plan)


@pytest.mark.parametrize("allocate", NAMES)
def test_every_allocation_heeds_what_is_settled_by_hand_and_the_limits(graphs, allocate):
    graph = graphs["resnet20"]
    options = {"ignore": "layer1.0.conv1", "keep": {"layer2.0.conv1": 20}, "max_removed": "60%", "min_channels": 9}
    plan = cutback.plan(graph, budget="macs=50%", allocate=allocate, **options)
    found = widths(plan)
    assert (found["layer1.0.conv1"], found["layer2.0.conv1"]) == (16, 20)
    assert all(len(group.kept) >= max(9, group.total * 0.4) for group in plan.groups)
    rounded = cutback.plan(graph, budget="macs=50%", allocate=allocate, round_to=4)
    assert all(len(group.kept) % 4 == 0 for group in rounded.groups)
    assert rounded.costs["macs"].after <= 0.5 * rounded.costs["macs"].before


def test_greedy_by_the_published_example():
    model = layers((1, 2), (2, 3), (3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.1, 1.0]).view(2, 1, 1, 1))  # input 0 of the second layer goes
        model[1].weight.copy_(torch.tensor([[10, 1], [2, 3], [0.5, 4]]).view(3, 2, 1, 1))
    graph = cutback.trace(model, image(shape=(2, 1, 4, 4)))
    keep = {"0": 1, "1": 2}
    assert [group.kept for group in cutback.plan(graph, keep=keep, allocate="independent").groups] == [(1,), (0, 1)]
    before = [parameter.clone() for parameter in model.parameters()]
    assert [group.kept for group in cutback.plan(graph, keep=keep, allocate="greedy").groups] == [(1,), (1, 2)]
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


def test_greedy_against_a_loop_through_a_grouped_layer():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 1, groups=2), nn.Conv2d(8, 10, 1), nn.Conv2d(10, 2, 1))
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=50%", allocate="greedy")
    kept = {group.name: set(group.kept) for group in plan.groups}
    alive = {0, 1, 2}
    for number, (layer, groups) in enumerate(zip(list(model)[:3], (1, 2, 1), strict=True)):
        rows, columns = layer.out_channels // groups, layer.in_channels // groups
        next_groups = 2 if number == 0 else groups  # those of the layer itself, or of the one that reads it
        norms = []
        for row in range(layer.out_channels):
            inputs = [row // rows * columns + column for column in range(columns)]
            norms.append(sum(layer.weight[row, c % columns].abs().sum().item() for c in inputs if c in alive))
        alive = set()
        for block in np.array_split(np.arange(layer.out_channels), next_groups):
            alive |= set(sorted(block, key=lambda row: -norms[row])[: len(block) // 2])
        assert kept[str(number)] == alive


def test_global_ranks_normalised_scores_and_global_raw_those_given():
    graph = cutback.trace(layers((3, 4), (4, 4), (4, 1)), image())
    score = Given({"0": [1.0, 2.0, 3.0, 4.0], "1": [10.0, 60.0, 65.0, 65.0]})
    raw = cutback.plan(graph, score=score, budget="params=57%", allocate="global-raw")
    assert widths(raw) == {"0": 2, "1": 4}  # 1 and 2 are the lowest
    even = cutback.plan(graph, score=score, budget="params=66%", allocate="global")
    assert widths(even) == {"0": 3, "1": 3}  # 10 of 50 and 1 of 2.5 are


def test_isomorphic_takes_the_same_share_of_each_class_and_the_lowest_within():
    graph = cutback.trace(build("resnet20"), torch.zeros(1, 3, 32, 32))
    score = scores_for(graph)
    plan = cutback.plan(graph, score=score, budget="macs=60%", allocate="isomorphic")
    inner = [group for group in plan.groups if group.name.endswith("conv1") and group.name != "conv1"]
    assert len(inner) == 9  # one class: first layers of blocks; the stream has another form
    total, stays = sum(group.total for group in inner), sum(len(group.kept) for group in inner)
    (stream,) = [group for group in plan.groups if group not in inner]
    assert abs(stays / total - len(stream.kept) / stream.total) <= 1 / stream.total
    values = {group.name: np.array(score.values[group.name]) for group in inner}
    ranked = {name: np.sort(found / found.mean()) for name, found in values.items()}
    highest_gone = {g.name: ranked[g.name][g.total - len(g.kept) - 1] for g in inner if len(g.kept) < g.total}
    lowest_kept = {g.name: ranked[g.name][g.total - len(g.kept)] for g in inner if len(g.kept) > 1}
    slack = sorted(np.concatenate(list(ranked.values())))
    place = np.searchsorted(slack, [max(highest_gone.values()), min(lowest_kept.values())])
    assert place[0] - place[1] <= 0.01 * total  # but for the last per cent, one threshold parts them


@pytest.mark.parametrize("cost", ["memory", "params", "macs"])
def test_score_for_what_it_saves_against_a_loop(cost):
    """The published greedy: remove the unit of the lowest ratio, with the widths at hand, until the budget is met."""
    sizes = (3, 6, 5, 7, 2)
    graph = cutback.trace(layers(*itertools.pairwise(sizes)), image(shape=(1, 3, 4, 4)))
    score = scores_for(graph, seed=2, spread=1.0)

    def figure(width):
        if cost == "memory":
            return 4 * 16 * sum(width[1:])
        return sum(a * b for a, b in itertools.pairwise(width)) * (16 if cost == "macs" else 1)

    left = [sorted(score.values[name]) for name in ("0", "1", "2")]
    now = list(sizes)
    while figure(now) > 0.5 * figure(sizes):
        ratios = []
        for layer in range(3):
            after = [*now]
            after[layer + 1] -= 1
            lost = left[layer][-now[layer + 1]] if now[layer + 1] > 1 else np.inf
            ratios.append(lost / (figure(now) - figure(after)))
        now[int(np.argmin(ratios)) + 1] -= 1
    plan = cutback.plan(graph, score=score, budget=f"{cost}=50%", allocate=f"per-{cost}")
    assert plan.costs[cost].before == figure(sizes)
    found = [3, *widths(plan).values(), 2]
    # Where the last step of the loop was a large one, the plan undoes it in favour of finer ones.
    assert found == now or 0 <= figure(sizes) * 0.5 - figure(found) < figure(sizes) * 0.5 - figure(now)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", ["memory=55%", "params=45%", "macs=60%"])
def test_knapsack_keeps_the_highest_score_there_is(seed, budget):
    sizes = (3, 15, 12, 18, 2)
    graph = cutback.trace(layers(*itertools.pairwise(sizes)), image(shape=(1, 3, 4, 4)))
    score = scores_for(graph, seed, spread=0.6)
    quantity, share = budget.removesuffix("%").split("=")

    def figure(width):
        return sum(width) + 2 if quantity == "memory" else sum(a * b for a, b in itertools.pairwise((3, *width, 2)))

    possible = [
        (
            sum(np.sort(values)[len(values) - count :].sum() / np.mean(values) for values, count in counted),
            figure(width),
        )
        for width in itertools.product(*(range(1, size + 1) for size in sizes[1:-1]))
        if figure(width) * 100 <= int(share) * figure(sizes[1:-1])
        for counted in [list(zip(score.values.values(), width, strict=True))]
    ]
    best, cost = max(possible)
    scale = {"memory": 4 * 16, "macs": 16, "params": 1}[quantity]
    unit = "B" if quantity == "memory" else ""
    plan = cutback.plan(graph, score=score, budget=f"{quantity}={cost * scale}{unit}", allocate="knapsack")
    found = kept_score(plan, score, normalised=True)
    assert found <= best + 1e-9
    assert found >= (1 if quantity == "memory" else 0.98) * best - 1e-9  # costs that are products are linearised


def test_knapsack_keeps_more_than_uniform_and_global(graphs):
    graph = graphs["resnet20"]
    score = scores_for(graph, seed=1)
    plans = {
        name: cutback.plan(graph, score=score, budget=["macs=40%", "memory=60%"], allocate=name)
        for name in ("uniform", "global", "knapsack")
    }
    kept = {name: kept_score(plan, score, normalised=True) for name, plan in plans.items()}
    assert kept["knapsack"] >= max(kept["uniform"], kept["global"])


def test_integer_programmes_end_by_counted_work_not_by_the_clock(monkeypatch):
    given, solve = [], optimize.milp

    def one_node(*arguments, options, **others):
        given.append(set(options))
        return solve(*arguments, options=options | {"node_limit": 1}, **others)

    monkeypatch.setattr(optimize, "milp", one_node)
    shuffled = torchvision.models.ShuffleNetV2([2, 2, 2], [8, 16, 32, 64, 32], num_classes=4)  # a balance to solve
    graph = cutback.trace(shuffled, torch.zeros(2, 3, 32, 32))
    score = scores_for(graph, spread=0.6)
    first, second = (cutback.plan(graph, score=score, budget="macs=50%", allocate="knapsack") for _ in range(2))
    assert first == second
    assert first.costs["macs"].after * 2 <= first.costs["macs"].before
    assert given
    assert all("node_limit" in options and "time_limit" not in options for options in given)


def test_an_allocation_of_ones_own():
    class LastFirst(cutback.planning.allocation.Allocation):
        """Empties the last group first."""

        def order(self, task):
            return [n for n in reversed(range(len(task.choices))) for _ in task.choices[n].counts[1:]]

    graph = cutback.trace(chain((8, 12)), image())
    assert widths(cutback.plan(graph, budget="params=80%", allocate=LastFirst()))["0"] == 8


def test_sensitivity_by_name_alone_says_what_it_needs():
    graph = cutback.trace(chain(), image())
    with pytest.raises(UserMistake, match=r"needs the curves of a scan; pass them: allocate=cutback\.Sensitivity"):
        cutback.plan(graph, budget="macs=50%", allocate="sensitivity")
    with pytest.raises(InvalidBudget, match="no allocation is called 3"):
        cutback.plan(graph, budget="macs=50%", allocate=3)
