"""Patterns, shares by hand, and what the plan says about itself."""

import re

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, InvalidScore, NothingToPrune, UnknownName, UserMistake
from cutback.models import build
from cutback.planning import make
from cutback.planning.make import plan_for
from tests.helpers import chain, image, residual


@pytest.fixture(scope="module")
def graph():
    return cutback.trace(build("resnet20"), torch.zeros(1, 3, 32, 32))


def widths(plan):
    return {group.name: len(group.kept) for group in plan.groups}


def test_ignoring_a_layer_keeps_its_outputs_only(graph):
    free = widths(cutback.plan(graph, budget="channels=50%"))
    plan = widths(cutback.plan(graph, budget="channels=50%", ignore=["layer2.1.conv1"]))
    assert plan == {**free, "layer2.1.conv1": 32}


def test_ignoring_a_module_keeps_all_layers_in_it(graph):
    plan = widths(cutback.plan(graph, budget="channels=50%", ignore=["layer1", "layer3.*"]))
    changed = {name for name, width in plan.items() if width < graph_width(graph, name)}
    assert changed == {"layer2.0.conv1", "layer2.1.conv1", "layer2.2.conv1"}


def graph_width(graph, name):
    return next(group.units for group in graph.groups if group.name == name)


def test_ignoring_one_layer_of_a_group_keeps_the_group():
    plan = cutback.plan(cutback.trace(residual(), image()), budget="channels=50%", ignore=["depthwise"])
    assert widths(plan) == {"stem": 8, "inner": 5}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"keep": {"stem": "25%", "outer": "75%"}}, ("'stem'", "'outer'")),
        ({"keep": {"inner": "20%", "*": "70%"}}, ("'inner'", "'*'")),
        ({"keep": {"*": "70%", "inner": "20%"}}, ("'inner'", "'*'")),
        ({"keep": {"stem": 0.5}, "ignore": ["depth*"]}, ("ignore pattern 'depth*'", "keep pattern 'stem'")),
    ],
)
def test_patterns_that_contradict_each_other_are_both_named(given, names):
    graph = cutback.trace(residual(), image())
    with pytest.raises(InvalidBudget) as raised:
        cutback.plan(graph, **given)
    assert all(name in str(raised.value) for name in names)


def test_patterns_that_agree_are_fine():
    graph = cutback.trace(residual(), image())
    plan = cutback.plan(graph, keep={"stem": 4, "outer": "50%", "inner": 0.2, "inn*": 2})
    assert widths(plan) == {"stem": 4, "inner": 2}
    plan = cutback.plan(graph, keep={"stem": "100%", "inner": 1}, ignore=["depthwise"])
    assert widths(plan) == {"stem": 8, "inner": 1}


class Doubled(nn.Module):
    """A depthwise layer with two channels for each of its input's."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 2, 1)

    def forward(self, images):
        return self.head(self.twice(self.stem(images).relu()).relu())


def test_a_number_of_channels_is_one_of_the_layer_it_is_said_of():
    graph = cutback.trace(Doubled(), image())
    assert widths(cutback.plan(graph, keep={"stem": 4})) == {"stem": 4}
    assert widths(cutback.plan(graph, keep={"twice": 8})) == {"stem": 4}


class Rooted(nn.Module):
    """Holds its first layer as a bare parameter."""

    def __init__(self):
        super().__init__()
        self.matrix, self.middle, self.head = nn.Parameter(torch.randn(3, 8)), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, images):
        return self.head(self.middle((images.mean((2, 3)) @ self.matrix).relu()).relu())


def test_a_parameter_of_the_model_itself_can_be_named():
    graph = cutback.trace(Rooted(), image())
    assert [group.name for group in graph.groups] == ["matrix", "middle"]
    assert widths(cutback.plan(graph, budget="channels=50%", ignore=["matrix"])) == {"matrix": 8, "middle": 3}
    plan = cutback.plan(graph, keep={"matr*": "25%"})
    assert widths(plan) == {"matrix": 2, "middle": 6}
    cutback.apply_(graph, plan)
    assert graph.model.matrix.shape == (3, 2)


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"round_to": 1.5}, InvalidBudget, "round_to=1.5 must be a whole number"),
        ({"round_to": True}, InvalidBudget, "round_to=True"),
        ({"min_channels": "4"}, InvalidBudget, "min_channels='4'"),
        ({"keep": ["0"]}, InvalidBudget, "keep=['0'] does not say what stays of which layer; write for example keep={"),
        ({"keep": "0"}, InvalidBudget, "keep='0'"),
        ({"keep": {0: 0.5}}, InvalidBudget, "keep={0: 0.5}"),
        ({"keep": {"0": "1/0"}}, InvalidBudget, "cannot read keep='1/0'"),
        ({"ignore": 3}, UserMistake, "ignore=3 is no list of module path patterns"),
        ({"ignore": [3]}, UserMistake, "write ignore=['head*']"),
        ({"score": 3}, UserMistake, "score=3 is no score"),
    ],
)
def test_arguments_of_another_kind_are_quoted(given, kind, says):
    graph = cutback.trace(chain(), image())
    with pytest.raises(kind, match=re.escape(says)):
        cutback.plan(graph, budget="macs=50%", **given)


def test_a_plan_needs_a_graph():
    with pytest.raises(UserMistake, match=r"plan needs a graph, not Sequential; pass what cutback\.trace"):
        cutback.plan(chain(), budget="macs=50%")


def test_one_pattern_needs_no_list(graph):
    once = cutback.plan(graph, budget="channels=50%", ignore="layer1")
    assert once == cutback.plan(graph, budget="channels=50%", ignore=["layer1"])
    with pytest.raises(NothingToPrune, match=r"ignored modules \(pattern '\*'\)"):
        cutback.plan(graph, budget="channels=50%", ignore="*")


@pytest.mark.parametrize("argument", ["ignore", "keep"])
def test_a_pattern_that_matches_nothing_lists_near_misses(graph, argument):
    given = {"ignore": ["layer1.0.convl"]} if argument == "ignore" else {"keep": {"layer1.0.convl": 0.5}}
    with pytest.raises(UnknownName, match=re.escape("'layer1.0.convl'") + r".*did you mean.*'layer1\.0\.conv1'"):
        cutback.plan(graph, budget="macs=50%", **given)


def test_keeping_by_hand_names_layers_that_can_be_cut(graph):
    with pytest.raises(UnknownName, match=r"'layer1\.0\.bn1' matches no layer that can be cut"):
        cutback.plan(graph, keep={"layer1.0.bn1": 0.5})


def test_an_unknown_score_lists_near_misses(graph):
    with pytest.raises(UnknownName, match=r"no score is called 'll'; .*l1"):
        cutback.plan(graph, score="ll", budget="macs=50%")


class Untouched:
    """A score that may not be asked."""

    def __call__(self, graph):
        pytest.fail("scored before it was known whether the budget can be met")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"budget": "macs=1k"}, BudgetUnreachable),
        ({"budget": ["macs=50%", "memory=1B"]}, BudgetUnreachable),
        ({"budget": "macs=50%", "max_removed": "10%"}, BudgetUnreachable),
        ({"budget": "macs=50%", "ignore": "*"}, NothingToPrune),
    ],
)
def test_what_cannot_be_reached_is_refused_before_scoring(graph, given, error):
    with pytest.raises(error):
        cutback.plan(graph, score=Untouched(), **given)


def test_bad_scores_and_weights_are_refused_before_budgets_are_measured(monkeypatch):
    model = chain()
    graph = cutback.trace(model, image())
    monkeypatch.setattr(make, "CostModel", lambda graph: pytest.fail("measured first"))
    with pytest.raises(UnknownName, match="no score is called 'll'"):
        cutback.plan(graph, score="ll", budget="macs=1k")
    with torch.no_grad():
        model[3].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InvalidScore, match=r"3\.weight holds NaN"):
        cutback.plan(graph, score=Untouched(), budget="macs=1k")


@pytest.mark.parametrize(
    ("share", "channels"),
    [
        (1 - 0.9, 4),
        ("10%", 4),
        (0.7, 28),
        ("33%", 13),
        (0.001, 1),
        (7, 7),
        (40, 40),
        ("100%", 40),
        (1.0, 40),
        (1, 1),
    ],
)
def test_shares_by_hand_round_down_exactly(share, channels):
    graph = cutback.trace(chain((40, 8)), image())
    assert widths(cutback.plan(graph, keep={"0": share, "3": 5})) == {"0": channels, "3": 5}


@pytest.mark.parametrize("share", [0, -1, 41, 1.5, "0%", "120%", "half", "x%", True, float("nan")])
def test_a_bad_share_by_hand_is_quoted(share):
    graph = cutback.trace(chain((40, 8)), image())
    with pytest.raises(InvalidBudget, match=f"keep={re.escape(repr(share))}"):
        cutback.plan(graph, keep={"0": share})


def test_layers_kept_by_hand_stand_while_a_budget_rules_the_rest(graph):
    plan = cutback.plan(graph, budget="macs=60%", keep={"layer1.*.conv1": "25%"})
    assert {name: width for name, width in widths(plan).items() if name.startswith("layer1")} == dict.fromkeys(
        (f"layer1.{block}.conv1" for block in range(3)), 4
    )
    assert 0.59 <= plan.costs["macs"].after / plan.costs["macs"].before <= 0.60


def test_a_share_no_permitted_width_reaches_is_noted():
    plan = cutback.plan(cutback.trace(chain((8, 24)), image()), budget="channels=50%", round_to=8)
    assert widths(plan) == {"0": 8, "3": 8}
    assert plan.notes == ("0 keeps 8 of 8, the lowest permitted width",)


@pytest.mark.parametrize("units", [{"0": []}, {"0": [0, 0]}, {"0": [8]}, {"0": [-1]}])
def test_units_by_hand_must_exist_once(units):
    with pytest.raises(InvalidBudget, match="group 0 must keep distinct units between 0 and 7, at least one"):
        plan_for(cutback.trace(chain(), image()), units)


def test_an_unknown_group_lists_near_misses(graph):
    with pytest.raises(UnknownName, match=r"did you mean 'layer1\.0\.conv1'"):
        plan_for(graph, {"layer1.0.conv": [0]})


def test_the_plan_prints_what_changes():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    text = str(cutback.plan(cutback.trace(model, image()), keep={"0": 2}))
    first = next(line for line in text.splitlines() if line.startswith("0 "))
    assert first.split() == ["0", "2/8", "1,536", "384", "0"]
    assert "1 groups stay whole" in text
    assert "macs: 5,376 -> 1,920 (35.7%)" in text
