"""Oracle pruning against plain loops that zero the columns which read a unit, and run the whole network."""

import copy
import re
from importlib import resources

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import cutback
from cutback.errors import InvalidBudget, Ungatable, UserMistake
from cutback.measure import macs
from cutback.methods import OraclePruning
from cutback.methods.oracle.greedy import Greedy
from tests.helpers import chain, image, snapshot
from tests.scores.networks import Batches, grouped, projected

BATCHES = Batches(dtype=torch.float64)
COLUMNS = {"0": lambda m: m[3].weight, "3": lambda m: m[8].weight}
"""The weights of ``chain`` that read the channels of each convolution, along dimension 1."""


def network():
    return chain((6, 5)).double()


def method_of(model, **settings):
    graph = cutback.trace(model, image().to(next(model.parameters()).dtype))
    return OraclePruning(graph, **{"budget": "macs=60%", "loader": BATCHES, "loss": cross_entropy, **settings})


@torch.no_grad()
def loss_of(model, gone):
    """Return the mean loss over six samples without some units, ``(layer, unit)``."""
    silent = copy.deepcopy(model).eval()
    for layer, unit in gone:
        COLUMNS[layer](silent)[:, unit] = 0
    losses = [float(cross_entropy(silent(pictures), labels)) * len(labels) for pictures, labels in BATCHES]
    return sum(losses) / 6


def units():
    return [(layer, unit) for layer, count in (("0", 6), ("3", 5)) for unit in range(count)]


def cost(gone):
    """Return the MACs without some units, by a count of one's own."""
    first, second = (count - sum(layer == own for own, _ in gone) for layer, count in (("0", 6), ("3", 5)))
    return 64 * 9 * (3 * first + first * second) + 4 * second


def gone_by(plan):
    return {(g.name, unit) for g in plan.groups for unit in set(range(g.total)) - set(g.kept)}


def greedily(model, limit, removed=1):
    """Return in which order units go: the least missed first, all others tried again."""
    gone = []
    while cost(gone) > limit:
        alive = [unit for unit in units() if unit not in gone]
        alive = [u for u in alive if sum(u[0] == other[0] for other in alive) > 1]
        order = sorted(alive, key=lambda unit: loss_of(model, [*gone, unit]))
        for unit in order[:removed]:
            if cost(gone) > limit:
                gone.append(unit)
    return gone


def test_rated_once_the_units_go_whose_absence_raises_the_loss_least():
    model = network()
    rises = {unit: loss_of(model, [unit]) - loss_of(model, []) for unit in units()}
    order = sorted(rises, key=rises.__getitem__)
    expected = next(order[:n] for n in range(len(order)) if cost(order[:n]) <= 0.6 * cost([]))
    before = snapshot(model)
    gone = gone_by(method_of(model).target())
    assert snapshot(model) == before
    assert cost(gone) <= 0.6 * cost([])
    assert len(gone - set(expected)) <= 1, "but for one that comes nearer to the budget"
    for layer in ("0", "3"):
        lost = [rise for unit, rise in rises.items() if unit[0] == layer and unit in gone]
        kept = [rise for unit, rise in rises.items() if unit[0] == layer and unit not in gone]
        assert max(lost, default=-1.0) < min(kept)


@pytest.fixture
def orders(monkeypatch):
    """The orders in which greedy runs remove units."""
    found, rescored = [], Greedy.rescored

    def noted(self, task, score, at):
        scores = rescored(self, task, score, at)
        when = {
            (group.name, unit): when
            for group, own in zip(task.graph.groups, scores, strict=True)
            for unit, when in enumerate(own.tolist())
        }
        found.append([unit for unit in sorted(when, key=when.__getitem__) if when[unit] < max(when.values())])
        return scores

    monkeypatch.setattr(Greedy, "rescored", noted)
    return found


@pytest.mark.parametrize(("removed", "share"), [(1, 60), (1, 35), (3, 50)])
def test_greedily_all_others_are_tried_again_after_each_removal(removed, share, orders):
    model = network()
    plan = method_of(model, greedy=True, removed=removed, budget=f"macs={share}%").target()
    expected = greedily(model, share / 100 * cost([]), removed)
    assert orders == [expected]
    assert cost(gone_by(plan)) <= share / 100 * cost([])
    assert len(gone_by(plan) - set(expected)) <= 1, "but for one that comes nearer to the budget"


def test_the_two_differ_where_two_filters_do_one_job(orders):
    """Each of two equal filters is missed a little, both together much: greedy pruning tries the second one again."""
    model = network()
    with torch.no_grad():
        for tensor in (*model[0].parameters(), *model[1].parameters(), *model[1].buffers()):
            if tensor.dim():
                tensor[1] = tensor[0]
        model[3].weight[:, 1] = model[3].weight[:, 0]
    alone = {unit: loss_of(model, [("0", unit)]) for unit in range(6)}
    assert alone[0] == pytest.approx(alone[1], rel=1e-12)
    plan, dense = method_of(model, budget="macs=30%").target(), loss_of(model, [])
    together = loss_of(model, [("0", 0), ("0", 1)]) - dense
    assert abs(together - 2 * (alone[0] - dense)) > 1e-3, "two that are not independent"
    method_of(model, greedy=True, budget="macs=30%").target()
    assert orders == [greedily(model, 0.3 * cost([]))]
    once = sorted(units(), key=lambda unit: loss_of(model, [unit]))
    assert orders[0] != once[: len(orders[0])]
    assert plan.costs["macs"].after <= 0.3 * cost([])


def test_it_cuts_when_it_is_attached_and_counts_what_that_took():
    model = chain((6, 5))
    method = method_of(model, loader=Batches(), greedy=False)
    dense = macs(model, image()[:1])
    with method:
        assert method.finished
        assert not method.after_step()
    assert macs(model, image()[:1]) <= 0.6 * dense
    assert method.records() == {"oracle_macs": method.macs}
    with FlopCounterMode(display=False) as counter:
        for pictures, _ in Batches():
            model_again = chain((6, 5)).eval()
            model_again(pictures)
    whole = counter.get_total_flops() // 2
    assert whole < method.macs < (1 + 6 + 5) * whole, "one pass with all, and less than one for each unit"


def test_greedy_pruning_costs_more():
    costs = []
    for greedy in (False, True):
        method = method_of(network(), greedy=greedy, budget="macs=30%")
        method.target()
        costs.append(method.macs)
    assert costs[1] > 3 * costs[0]


def test_ignored_layers_stay_whole_and_are_not_tried():
    method = method_of(network(), ignore="3")
    whole = method_of(network())
    assert {layer for layer, _ in gone_by(method.target())} == {"0"}
    whole.target()
    assert method.macs < whole.macs


@pytest.mark.parametrize("greedy", [False, True])
def test_coupled_and_balanced_units_go_together(greedy):
    for build in (projected, grouped):
        model = build()
        with method_of(model, loader=Batches(), greedy=greedy, removed=2, budget="macs=55%") as method:
            assert method.plan().costs["macs"].after <= 0.55 * method.plan().costs["macs"].before
        assert model(image()).isfinite().all()


@pytest.mark.parametrize("absolute", [False, True])
def test_rises_are_signed_or_absolute(absolute):
    model, seen = network(), {}
    method = method_of(model, absolute=absolute, greedy=True, removed=9, budget="macs=35%")
    plan = method.target()
    dense = loss_of(model, [])
    for unit in units():
        change = loss_of(model, [unit]) - dense
        seen[unit] = abs(change) if absolute else change
    assert min(seen.values()) < 0 or absolute
    first = sorted(seen, key=seen.__getitem__)[: len(gone_by(plan))]
    assert len(set(first) & gone_by(plan)) >= len(first) - 1


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"budget": None}, InvalidBudget, "give a budget"),
        ({"budget": "latency=50%"}, InvalidBudget, "has to be measured"),
        ({"budget": "channels=50%", "greedy": True}, InvalidBudget, "with greedy=True none"),
        ({"removed": 0}, UserMistake, "removed=0"),
        ({"samples": 1.5}, UserMistake, r"samples=1\.5"),
    ],
)
def test_bad_settings_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        method_of(network(), **settings)


def test_a_share_of_each_layers_channels_is_met_where_units_are_rated_once():
    plan = method_of(network(), budget="channels=50%").target()
    assert [len(group.kept) for group in plan.groups] == [3, 2]


class Sequential(nn.Module):
    """A convolution, and an LSTM whose hidden channels nothing can silence."""

    def __init__(self):
        super().__init__()
        self.stem, self.cells, self.head = nn.Conv2d(3, 6, 3), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, images):
        rows = torch.relu(self.stem(images)).mean(2).transpose(1, 2)
        return self.head(self.cells(rows)[0][:, -1])


def test_units_that_cannot_be_silenced_are_named():
    method = method_of(Sequential(), loader=Batches(), budget="macs=80%")
    with pytest.raises(Ungatable, match=r"cells.*ignore="):
        method.target()


def test_the_page_runs_as_it_stands(capsys):
    page = resources.files("cutback.methods.oracle").joinpath("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102
    assert "macs:" in capsys.readouterr().out
