"""Balance by counts: which cuts keep equally many in every block, found and checked against every possible cut."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.errors import IllegalCut, NothingToPrune, UnknownName, UserMistake
from cutback.graph.balance import Cell, System
from cutback.planning.make import plan_for
from cutback.planning.plan import Plan
from cutback.surgery.cut import cut_fresh
from cutback.surgery.verify import prove

PICTURES = torch.randn(2, 3, 5, 5)


class Shuffled(nn.Module):
    """Eight channels shuffled in two groups and halved; the halves go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.left, self.right = nn.Conv2d(4, 3, 3), nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        left, right = x.chunk(2, dim=1)
        return self.head(torch.cat([self.left(left).mean((2, 3)), self.right(right).mean((2, 3))], 1))


class Grouped(nn.Module):
    """A grouped convolution between two norms over other groups."""

    def __init__(self, groups: int = 3, norm_groups: int = 2, *, transposed: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 1)
        self.norm = nn.GroupNorm(norm_groups, 12)
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.grouped = kind(12, 18, 3, groups=groups)
        self.last = nn.Conv2d(18, 2, 1)

    def forward(self, x):
        return self.last(self.grouped(self.norm(self.first(x)).relu()).relu())


def brute_force(system: System) -> set[tuple[int, ...]]:
    return {
        counts
        for counts in itertools.product(*(range(size + 1) for size in system.sizes))
        if (system.matrix @ np.array(counts) == system.offsets).all()
        and all(
            sum(c for c, cell in zip(counts, system.cells, strict=False) if cell.group in some) >= 1
            for some in system.together
        )
    }


def small_system() -> System:
    """Two pairs of blocks over cells a to d, {a, b} and {c, d}, {a, c} and {b, d}; some channels stay anyway."""
    cells = tuple(Cell(number, tuple(range(size))) for number, size in enumerate([3, 4, 3, 5]))
    matrix = np.array([[1, 1, -1, -1], [1, -1, 1, -1]])
    return System((0, 1, 2, 3), cells, matrix, np.array([-1, -3]), (frozenset({0, 1}), frozenset({3})))


def test_levels_are_balanced_falling_and_start_whole() -> None:
    system = small_system()
    balanced = brute_force(system)
    assert tuple(system.sizes) in balanced
    levels = [tuple(counts) for counts in system.levels]
    assert levels[0] == tuple(system.sizes)
    assert set(levels) <= balanced
    totals = [sum(counts) for counts in levels]
    assert totals == sorted(set(totals), reverse=True)
    assert totals[-1] <= 4


@pytest.mark.parametrize("wanted", [(1.5, 2, 1.5, 2.5), (0, 4, 0, 0), (3, 0, 3, 5)])
def test_the_nearest_balanced_counts_are_the_nearest_of_all(wanted) -> None:
    system = small_system()
    found = system.nearest(np.array(wanted))
    assert found is not None
    best = min(sum(abs(c - w) for c, w in zip(counts, wanted, strict=False)) for counts in brute_force(system))
    assert sum(abs(c - w) for c, w in zip(found.tolist(), wanted, strict=False)) == pytest.approx(best)


def test_of_all_cuts_of_shuffled_halves_only_legal_ones_are_accepted_and_proven() -> None:
    """Decided here by hand: channels 0, 1, 4, 5 go left, so a cut is legal iff as many of them stay as of the others.

    Those that need no other order of channels must be accepted: with 2k channels left, the left half takes
    ceil(k / 2) of the first four channels and floor(k / 2) of the last four.
    """
    torch.manual_seed(0)
    graph = cutback.trace(Shuffled(), PICTURES)
    groups = {group.name: group for group in graph.groups}
    where = {}
    for name, group in groups.items():
        for slot, indices in group.slices.items():
            if slot.state == "first.0.weight":
                where.update({int(index): (name, unit) for unit, index in enumerate(indices[:, 0])})
    assert sorted(where) == list(range(8))
    accepted = 0
    for kept in itertools.chain.from_iterable(itertools.combinations(range(8), size) for size in (2, 4, 6)):
        cells = [len(set(kept) & set(cell)) for cell in ((0, 1), (2, 3), (4, 5), (6, 7))]
        k = len(kept) // 2
        in_order = cells == [(k + 1) // 2, k // 2, k // 2, (k + 1) // 2]
        units = {
            name: sorted(unit for i in kept for n, unit in [where[i]] if n == name) for name in dict(where.values())
        }
        try:
            plan = plan_for(graph, units)
        except IllegalCut:
            assert not in_order, kept
            continue
        assert cells[0] + cells[2] == k, kept
        accepted += 1
        if accepted % 5 == 0:
            prove(graph, plan)
    assert accepted >= 4 + 16 + 4


@pytest.mark.parametrize("share", [70, 50, 30])
def test_shuffled_halves_are_cut_without_tying_positions(share) -> None:
    torch.manual_seed(0)
    graph = cutback.trace(Shuffled(), PICTURES)
    for seed in range(3):
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(seed=seed))
        assert len(plan.slices["first.0.weight"][0].indices) == {70: 4, 50: 4, 30: 2}[share]
        assert prove(graph, plan).error <= 1e-5


@pytest.mark.parametrize("transposed", [False, True])
def test_groups_of_a_convolution_keep_different_positions(transposed) -> None:
    torch.manual_seed(0)
    network = Grouped(transposed=transposed)
    graph = cutback.trace(network, PICTURES)
    first, grouped = graph.groups
    assert (first.units, grouped.units) == (12, 18)
    kept = {
        first.name: [0, 2, 5, 7, 8, 10],
        grouped.name: [0, 5, 6, 11, 13, 17],
    }  # 2 of every 4, 2 of every 6
    plan = plan_for(graph, kept)
    proof = prove(graph, plan)
    assert proof.error <= 1e-5
    whole = network.grouped.weight.detach().clone()
    cutback.apply_(graph, plan)
    weight = network.grouped.weight.detach()
    for block in range(3):
        inputs = [c for c in kept[first.name] if c // 4 == block]
        outputs = [c for c in kept[grouped.name] if c // 6 == block]
        for i, c in enumerate(inputs):
            for j, f in enumerate(outputs):
                if transposed:
                    assert torch.equal(weight[2 * block + i, j], whole[c, f % 6])
                else:
                    assert torch.equal(weight[2 * block + j, i], whole[f, c % 4])
    assert network(PICTURES).shape[:2] == (2, 2)


def test_unequal_groups_are_refused_and_change_nothing() -> None:
    graph = cutback.trace(Grouped(), PICTURES)
    with pytest.raises(IllegalCut, match="equally many"):
        plan_for(graph, {graph.groups[1].name: [0, 1, 6, 12]})


def test_keep_and_ignore_respect_the_balance() -> None:
    graph = cutback.trace(Grouped(), PICTURES)
    plan = cutback.plan(graph, budget="channels=50%", keep={"grouped": 10})
    kept = plan.slices["grouped.weight"][0].indices
    assert [sum(index // 6 == block for index in kept) for block in range(3)] == [3, 3, 3]
    plan = cutback.plan(graph, budget="channels=50%", ignore="grouped")
    assert 0 not in plan.slices["grouped.weight"]
    prove(graph, plan)


class Heads(nn.Module):
    """Self-attention over positions, with heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.heads = nn.Conv2d(3, 6, 1), 4
        self.both, self.last = nn.Linear(6, 3 * 24), nn.Linear(24, 2)

    def forward(self, x):
        x = self.first(x).flatten(2).transpose(1, 2)
        b, n, _ = x.shape
        q, k, v = self.both(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = (q @ k.transpose(-1, -2) * 0.4).softmax(-1) @ v
        return self.last(x.transpose(1, 2).flatten(2))


def test_whole_groups_of_a_convolution_go() -> None:
    torch.manual_seed(0)
    network = Grouped(norm_groups=1)
    graph = cutback.trace(network, PICTURES, granularity={"grouped": "blocks"})
    (group,) = graph.groups
    assert (group.units, set(group.layers)) == (3, {"first", "grouped"})
    plan = plan_for(graph, {group.name: [0, 2]})
    assert prove(graph, plan).error <= 1e-5
    whole = network.grouped.weight.detach().clone()
    cutback.apply_(graph, plan)
    assert (network.grouped.groups, network.grouped.in_channels, network.grouped.out_channels) == (2, 8, 12)
    assert torch.equal(network.grouped.weight, whole[[*range(6), *range(12, 18)]])
    assert cutback.measure.params(network) == plan.costs["params"].after
    assert cutback.measure.macs(network, PICTURES) == plan.costs["macs"].after


@pytest.mark.parametrize(("granularity", "units"), [("channels", 24), ("blocks", 4)])
def test_heads_shrink_alike_or_go_whole(granularity, units) -> None:
    torch.manual_seed(0)
    network = Heads()
    graph = cutback.trace(network, PICTURES, granularity=granularity)
    assert max(group.units for group in graph.groups if "both" in group.layers) == units
    plan = cutback.plan(graph, budget="channels=50%", score=cutback.scores.Random(seed=0))
    assert prove(graph, plan).error <= 1e-5
    cutback.apply_(graph, plan)
    assert network.heads == {"channels": 4, "blocks": 2}[granularity]
    assert network.both.out_features == 36
    assert network(PICTURES).shape == (2, 25, 2)


@pytest.mark.parametrize(
    ("granularity", "error"),
    [("heads", UserMistake), ({"grouped": "groups"}, UserMistake), ({"nose": "blocks"}, UnknownName)],
)
def test_a_granularity_that_is_none_is_refused(granularity, error) -> None:
    with pytest.raises(error, match="granularity"):
        cutback.trace(Grouped(), PICTURES, granularity=granularity)


def test_a_grouped_convolution_cut_until_it_is_depthwise_composes_with_further_cuts() -> None:
    torch.manual_seed(0)
    network, fresh = Grouped(norm_groups=1), Grouped(norm_groups=1)
    graph = cutback.trace(network, PICTURES)
    first = plan_for(graph, {graph.groups[0].name: [1, 6, 11], graph.groups[1].name: [0, 3, 7, 8, 12, 17]})
    cutback.apply_(graph, first)
    graph = cutback.trace(network, PICTURES)
    (group,) = graph.groups  # one channel a group is left, so that a group goes with its channel
    second = plan_for(graph, {group.name: [0, 2]})
    cutback.apply_(graph, second)
    cut_fresh(fresh, Plan.from_json(first.then(second).to_json()))
    fresh.load_state_dict(network.state_dict())
    assert (fresh.grouped.groups, fresh.grouped.weight.shape) == (2, (4, 1, 3, 3))
    assert torch.equal(fresh(PICTURES), network(PICTURES))


def test_balances_of_channels_that_all_stay_are_none() -> None:
    net, pictures = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)), torch.randn(2, 3, 8, 8)
    graph = cutback.trace(net, pictures)
    assert not graph.groups
    with pytest.raises(NothingToPrune, match="output"):
        cutback.plan(graph, budget="channels=50%")
