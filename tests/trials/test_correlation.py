"""Coefficients against loops over pairs, and what is compared with what."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import cutback
from cutback import scores
from cutback.errors import UserMistake
from cutback.gates import stream_groups
from cutback.trials.correlation import Agreement
from tests.helpers import chain, image
from tests.scores.networks import Batches, traced

GENERATOR = np.random.default_rng(0)
FIRST = np.round(GENERATOR.normal(size=15), 1)  # rounded, so that some are equal
SECOND = np.round(0.7 * FIRST + 0.3 * GENERATOR.normal(size=15), 1)


def pearson(first, second):
    means = sum(first) / len(first), sum(second) / len(second)
    pairs = [(a - means[0], b - means[1]) for a, b in zip(first, second, strict=True)]
    return sum(a * b for a, b in pairs) / math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))


def ranks(values):
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def kendall(first, second):
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    signs = [(np.sign(first[i] - first[j]), np.sign(second[i] - second[j])) for i, j in pairs]
    untied = [sum(abs(sign[n]) for sign in signs) for n in (0, 1)]
    return sum(a * b for a, b in signs) / math.sqrt(untied[0] * untied[1])


def test_coefficients_are_those_of_loops():
    found = Agreement.between(FIRST, SECOND)
    assert found.units == 15
    assert found.pearson == pytest.approx(pearson(FIRST, SECOND))
    assert found.spearman == pytest.approx(pearson(ranks(FIRST), ranks(SECOND)))
    assert found.kendall == pytest.approx(kendall(FIRST, SECOND))


def test_logarithms_are_of_sizes_and_zeros_are_the_smallest():
    first, second = np.array([0.0, -1.0, 10.0, 1000.0]), np.array([2.0, 3.0, 5.0, 7.0])
    expected = pearson([0.0, 0.0, math.log(10), math.log(1000)], [math.log(value) for value in second])
    assert Agreement.between(first, second).log_pearson == pytest.approx(expected)


@pytest.mark.parametrize("constant", [np.zeros(4), np.ones(4), np.ones(1), np.zeros(0)])
def test_what_has_no_spread_agrees_with_nothing(constant):
    found = Agreement.between(constant, np.arange(1.0, 1.0 + len(constant)))
    assert found == Agreement(len(constant), None, None, None, None)


def test_streams_are_those_of_summed_channels():
    assert stream_groups(traced("projected")) == {"outer"}
    assert stream_groups(traced("residual")) == {"stem"}
    assert stream_groups(traced("grouped")) == frozenset()


def test_scores_are_compared_over_all_units_without_streams_and_in_each_group():
    graph, loader = traced("projected"), Batches(sizes=(3, 3))
    oracle = scores.Oracle(loader, cross_entropy, squared=True)
    told = []
    found = cutback.correlate(
        graph, {"taylor": scores.Taylor(loader, cross_entropy), "l2": "l2"}, oracle, told=lambda *at: told.append(at)
    )
    assert told == [(0, 3, "the oracle"), (1, 3, "taylor"), (2, 3, "l2")]
    truth = {name: values.numpy() for name, values in oracle(graph).items()}
    rated = {name: values.numpy() for name, values in scores.L2()(graph).items()}

    def over(*groups):
        return pearson(*(ranks(np.concatenate([each[group] for group in groups])) for each in (rated, truth)))

    assert found.overall["l2"].spearman == pytest.approx(over("stem", "inner", "outer"))
    assert found.without_streams["l2"].spearman == pytest.approx(over("stem", "inner"))
    assert found.groups["l2"]["outer"].spearman == pytest.approx(over("outer"))
    assert (found.overall["l2"].units, found.without_streams["l2"].units) == (21, 13)
    written = json.loads(found.to_json())
    assert written["streams"] == ["outer"]
    assert written["scores"]["l2"]["overall"]["spearman"] == found.overall["l2"].spearman
    assert written["scores"]["l2"]["values"]["stem"] == rated["stem"].tolist()
    assert written["oracle"]["stem"] == truth["stem"].tolist()


def test_nothing_to_compare_is_said():
    graph = cutback.trace(chain(), image())
    with pytest.raises(UserMistake, match="no score"):
        cutback.correlate(graph, {}, scores.L1())
    with pytest.raises(UserMistake, match="needs a graph"):
        cutback.correlate(chain(), {"l1": "l1"}, scores.L1())  # type: ignore[arg-type]
    with pytest.raises(UserMistake, match="nothing to compare"):
        cutback.correlate(
            cutback.trace(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), image()), {"l1": "l1"}, scores.L1()
        )
