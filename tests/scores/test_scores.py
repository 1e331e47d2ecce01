"""Every registered score against a plain loop, and the checks each score's result passes."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import cutback
from cutback.errors import InvalidScore, UserMistake
from cutback.scores import L1, L2, Random, score_groups, scores
from tests.helpers import chain, image, randomised, residual


def loop_norm(weights: list[Tensor], unit: int, order: int) -> list[float]:
    norms = []
    for weight in weights:
        total = 0.0
        for number in weight[unit].flatten().tolist():
            total += abs(number) ** order
        norms.append(total ** (1 / order))
    return norms


def loop_random(groups: list[int], seed: int) -> list[list[float]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(units, generator=generator).tolist() for units in groups]


# The groups of ``residual()``: stem, outer and depthwise share their channels; inner has its own.
def reference_l1(model, order=1):
    together = [model.stem.weight, model.outer.weight, model.depthwise.weight]
    return {
        "stem": [sum(loop_norm(together, unit, order)) for unit in range(8)],
        "inner": [sum(loop_norm([model.inner.weight], unit, order)) for unit in range(10)],
    }


REFERENCES = {
    "l1": reference_l1,
    "l2": lambda model: reference_l1(model, order=2),
    "random": lambda _: dict(zip(("stem", "inner"), loop_random([8, 10], 0), strict=True)),
}


def rated(graph, score):
    return {group.name: values for group, values in zip(graph.groups, score_groups(graph, score), strict=True)}


@pytest.mark.parametrize("name", sorted(scores))
def test_every_registered_score_equals_its_plain_loop(name):
    model = residual()
    found = rated(cutback.trace(model, image()), name)
    expected = REFERENCES[name](model)
    assert set(found) == set(expected)
    for group, values in expected.items():
        assert found[group] == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("score", [L1, L2])
@pytest.mark.parametrize(
    ("aggregate", "combine"), [("sum", sum), ("mean", lambda values: sum(values) / len(values)), ("max", max)]
)
def test_coupled_filters_are_aggregated(score, aggregate, combine):
    model = residual()
    found = rated(cutback.trace(model, image()), score(aggregate=aggregate))
    together = [model.stem.weight, model.outer.weight, model.depthwise.weight]
    assert found["stem"] == pytest.approx([combine(loop_norm(together, u, score.order)) for u in range(8)], rel=1e-6)


def test_a_transposed_convolution_has_its_filters_along_the_second_dimension():
    model = randomised(nn.Sequential(nn.ConvTranspose2d(3, 6, 2), nn.ReLU(), nn.Conv2d(6, 2, 1)))
    found = rated(cutback.trace(model, image()), "l1")
    expected = [sum(abs(x) for x in model[0].weight[:, unit].flatten().tolist()) for unit in range(6)]
    assert found["0"] == pytest.approx(expected, rel=1e-6)


def test_an_unknown_aggregate():
    with pytest.raises(UserMistake, match=r"'median'.*sum, mean, max"):
        L1(aggregate="median")


def test_random_is_seeded_and_leaves_the_global_state_alone():
    graph = cutback.trace(residual(), image())
    before = torch.get_rng_state()
    first, again, other = (rated(graph, Random(seed))["stem"].tolist() for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_scores_of_half_precision_weights_do_not_overflow():
    model = chain().half()
    with torch.no_grad():
        model[0].weight.fill_(60000)
    found = rated(cutback.trace(model, image().half()), "l1")
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


@pytest.mark.parametrize("score", ["l1", "l2", "random", L1(aggregate="max")])
@pytest.mark.parametrize("name", ["3.weight", "3.bias", "1.weight", "8.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_numbers_are_named(score, name, value):
    model = chain()
    graph = cutback.trace(model, image())
    with torch.no_grad():
        model.get_parameter(name).view(-1)[2] = value
    with pytest.raises(InvalidScore, match=rf"{re.escape(name)} holds NaN or infinity"):
        cutback.plan(graph, score=score, budget="macs=50%")


def test_a_score_of_ones_own_rules():
    graph = cutback.trace(chain(), image())
    wanted = {"0": torch.arange(8.0), "3": -torch.arange(12)}
    plan = cutback.plan(graph, score=Given(wanted), budget="channels=50%")
    assert [group.kept for group in plan.groups] == [(4, 5, 6, 7), (0, 1, 2, 3, 4, 5)]
