"""How a score is named, made and checked."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import cutback
from cutback.errors import InvalidScore, UnknownName, UserMistake
from cutback.scores import L1, L2, LAMP, Largest, LInf, Random, describe, make_score, scores
from tests.helpers import chain, image
from tests.scores.networks import projected, rated


def test_scores_of_half_precision_weights_do_not_overflow():
    model = chain().half()
    with torch.no_grad():
        model[0].weight.fill_(60000)
    found = rated(model, "l1", torch.float16)
    assert found["0"].tolist() == [27 * 60000.0] * 8


@dataclass
class Given:
    """A score that returns what it is given."""

    values: dict

    def __call__(self, graph):
        return self.values


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"0": torch.ones(8)}, "Given gave nothing for group 3"),
        ({"0": torch.ones(7), "3": torch.ones(12)}, r"shape \(7,\) for group 0; expected \(8,\)"),
        ({"0": torch.ones(8, 1), "3": torch.ones(12)}, r"shape \(8, 1\) for group 0"),
        ({"0": torch.full((8,), float("inf")), "3": torch.ones(12)}, "of group 0 is not finite; check the score"),
        ({"0": [1.0] * 8, "3": torch.ones(12)}, "gave list for group 0"),
    ],
)
def test_a_bad_result_names_the_score_and_the_group(values, says):
    with pytest.raises(InvalidScore, match=says):
        cutback.plan(cutback.trace(chain(), image()), score=Given(values), budget="macs=50%")


def test_a_score_may_be_given_as_its_class():
    graph = cutback.trace(chain(), image())
    assert cutback.plan(graph, score=L2, budget="macs=50%") == cutback.plan(graph, score="l2", budget="macs=50%")
    with pytest.raises(UserMistake, match=r"score=Given is a class that cannot be made without arguments.*values"):
        cutback.plan(graph, score=Given, budget="macs=50%")


@pytest.mark.parametrize("score", [None, 3, [L1()]])
def test_what_is_no_score_is_quoted(score):
    with pytest.raises(UserMistake, match="is no score; write a name such as score='l1'"):
        cutback.plan(cutback.trace(chain(), image()), score=score, budget="macs=50%")


def test_a_score_that_returns_no_mapping_is_named():
    with pytest.raises(InvalidScore, match="score Given gave NoneType; return a mapping"):
        cutback.plan(cutback.trace(chain(), image()), score=Given(None), budget="macs=50%")


@pytest.mark.parametrize("score", ["l1", "l2", "l1:leader", "lamp", "random", L1(aggregate="max")])
@pytest.mark.parametrize("name", ["3.weight", "3.bias", "1.weight", "8.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_numbers_are_named(score, name, value):
    model = chain()
    graph = cutback.trace(model, image())
    with torch.no_grad():
        model.get_parameter(name).view(-1)[2] = value
    with pytest.raises(InvalidScore, match=rf"{re.escape(name)} holds NaN or infinity"):
        cutback.plan(graph, score=score, budget="macs=50%")


@pytest.mark.parametrize("aggregate", ["sum", "mean", "max", "leader"])
@pytest.mark.parametrize("score", [L1, L2, LInf, Largest])
def test_no_layer_of_a_stream_may_hold_what_is_no_number(score, aggregate):
    model = projected()
    with torch.no_grad():
        model.second.weight[3, 0, 0, 0] = float("inf")
    with pytest.raises(InvalidScore, match=r"second\.weight holds NaN or infinity"):
        rated(model, score(aggregate=aggregate))


def test_a_score_of_ones_own_rules():
    graph = cutback.trace(chain(), image())
    wanted = {"0": torch.arange(8.0), "3": -torch.arange(12)}
    plan = cutback.plan(graph, score=Given(wanted), budget="channels=50%")
    assert [group.kept for group in plan.groups] == [(4, 5, 6, 7), (0, 1, 2, 3, 4, 5)]


def test_a_name_may_carry_an_aggregate():
    assert make_score("lamp:max") == LAMP(aggregate="max")
    with pytest.raises(UserMistake, match=r"'median'.*sum, mean, max, leader"):
        make_score("l1:median")
    with pytest.raises(UserMistake, match="puts coupled slices together in its own way"):
        make_score("group-norm:max")
    with pytest.raises(UnknownName, match="did you mean 'lamp'"):
        make_score("lmp:max")


def test_a_seed_goes_to_what_draws_at_random():
    assert make_score("random", seed=3) == Random(3)
    assert make_score("l1", seed=3) == L1()


def test_a_description_holds_what_the_list_shows():
    found = describe("l1")
    assert (found.name, found.needs, found.aggregate) == ("l1", ("weights",), "sum")
    assert found.source.startswith("Li 2016")
    assert (describe("group-norm").aggregate, describe("group-norm").coupled) == ("", "sum of squares")


ROOT = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(scores))
def test_every_registered_score_is_compared_with_a_plain_loop(name):
    """The loops lie in a file of their own, named after the score's; without one a new score fails here."""
    entry = scores.get(name)
    text = (ROOT / f"test_{entry.__module__.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    assert f'"{name}"' in text or f"{entry.__name__}(" in text
