"""Sensitivity curves, and what follows from them: ratios, a skip list, one ratio a stage, and an allocation."""

import numpy as np
import pytest
import torch

import cutback
from cutback import Sensitivity
from cutback.errors import CorruptFile, UserMistake
from cutback.graph.balance import Cell
from cutback.models import build
from cutback.planning.allocation import Task
from cutback.planning.allocations.sensitivity import SensitivityGuided
from cutback.planning.select import Choice
from cutback.planning.sensitivity import stages
from tests.helpers import chain, image

SCAN = Sensitivity(0.9, {"a": {0.5: 0.8, 0.25: 0.9}, "b": {0.25: 0.6, 0.5: 0.7}}, "l2")


def test_straight_lines_join_the_points_and_never_rise():
    assert SCAN.loss("a", 0.0) == SCAN.loss("a", 0.25) == 0
    assert SCAN.loss("a", 0.375) == pytest.approx(0.05)
    assert SCAN.loss("a", 0.75) == pytest.approx(0.5)  # half way to no accuracy at all
    assert SCAN.loss("b", 0.25) == pytest.approx(0.3)
    assert SCAN.loss("b", 0.5) == pytest.approx(0.3)  # the later point is no better than the earlier


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.3, 0.6, 0.9])
def test_a_ratio_is_the_largest_share_that_costs_no_more(loss):
    for group, ratio in SCAN.ratios(loss).items():
        fine = np.linspace(0, 1, 10_001)
        fits = [share for share in fine if SCAN.loss(group, share) <= loss + 1e-9]
        assert ratio == pytest.approx(max(fits), abs=2e-4)


def test_what_falls_early_is_skipped():
    assert SCAN.skipped(loss=0.05, removed=0.25) == ["b"]
    assert SCAN.skipped(loss=0.05, removed=0.5) == ["a", "b"]
    assert SCAN.skipped(loss=0.5, removed=0.5) == []


def test_json_brings_everything_back():
    again = Sensitivity.from_json(SCAN.to_json())
    assert again == SCAN
    assert list(again.curves["a"]) == [0.25, 0.5]
    assert hash(again) == hash(SCAN)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"format": "cutback sensitivity", "version": 2}', SCAN.to_json().replace("0.8", "8")]
)
def test_what_is_no_scan_is_refused(text):
    with pytest.raises(CorruptFile, match="no sensitivity scan"):
        Sensitivity.from_json(text)


@pytest.mark.parametrize("curve", [{}, {0.0: 0.5}, {1.0: 0.5}, {0.5: 1.5}])
def test_a_curve_lies_between_nothing_and_everything(curve):
    with pytest.raises(UserMistake, match="curve of a must map shares"):
        Sensitivity(0.9, {"a": curve})


def test_one_ratio_a_stage_which_skipped_groups_do_not_limit():
    graph = cutback.trace(build("resnet20"), torch.zeros(1, 3, 32, 32))
    found = stages(graph)
    inner = {size: [f"layer{n}.{b}.conv1" for b in range(3)] for n, size in ((1, (32, 32)), (2, (16, 16)), (3, (8, 8)))}
    assert {size: [name for name in names if name != "conv1"] for size, names in found.items()} == inner
    curves = {group.name: {0.5: 0.8} for group in graph.groups} | {"layer2.1.conv1": {0.5: 0.1}}
    scan = Sensitivity(0.9, curves)
    ratios = scan.stage_ratios(graph, loss=0.1)
    assert {ratios[name] for name in inner[16, 16]} == {0.0625}
    assert {ratios[name] for name in inner[8, 8]} == {0.5}
    skipped = scan.skipped(loss=0.2, removed=0.5)
    assert skipped == ["layer2.1.conv1"]
    ratios = scan.stage_ratios(graph, loss=0.1, skip=skipped)
    assert "layer2.1.conv1" not in ratios
    assert {ratios[name] for name in inner[16, 16] if name != "layer2.1.conv1"} == {0.5}
    plan = cutback.plan(graph, keep={name: 1 - ratio for name, ratio in ratios.items() if name != "conv1"})
    assert {g.name: len(g.kept) / g.total for g in plan.groups if g.name.startswith("layer3")} == dict.fromkeys(
        inner[8, 8], 0.5
    )


def test_an_allocation_by_curves_loses_the_same_accuracy_everywhere():
    graph = cutback.trace(chain((40, 50, 60)), image())
    curves = {"0": {0.25: 0.89, 0.5: 0.85}, "3": {0.25: 0.8, 0.5: 0.6}, "6": {0.25: 0.88, 0.5: 0.75}}
    scan = Sensitivity(0.9, curves)
    plan = cutback.plan(graph, budget="macs=45%", allocate=scan)
    assert 0.44 <= plan.costs["macs"].after / plan.costs["macs"].before <= 0.45
    losses = {group.name: scan.loss(group.name, 1 - len(group.kept) / group.total) for group in plan.groups}
    one_more = {group.name: scan.loss(group.name, 1 - (len(group.kept) - 1) / group.total) for group in plan.groups}
    assert max(losses.values()) <= min(one_more.values()) + 0.03  # one more unit costs up to 0.03
    assert len(plan.groups[1].kept) / 50 > len(plan.groups[0].kept) / 40


def test_flat_curves_give_the_same_share_of_each_group():
    graph = cutback.trace(chain((40, 40)), image())
    scan = Sensitivity(0.9, {"0": {0.9: 0.9}, "3": {0.9: 0.9}})
    plan = cutback.plan(graph, budget="macs=50%", allocate=scan)
    assert abs(len(plan.groups[0].kept) - len(plan.groups[1].kept)) <= 1


def test_a_group_that_stays_whole_among_others_needs_no_curve():
    graph = cutback.trace(chain((8, 8)), image())
    cells = (Cell(0, tuple(range(8))), Cell(1, tuple(range(8))))
    scores = (np.arange(8.0), np.arange(8.0))
    choice = Choice(cells, scores, np.array([[8, 8], [4, 8], [2, 8]]))
    allocation = SensitivityGuided(Sensitivity(0.9, {"0": {0.5: 0.8}}))
    assert list(allocation.order(Task(graph, [choice], {}, {}))) == [0, 0]
    shrinking = Choice(cells, scores, np.array([[8, 8], [4, 4]]))
    with pytest.raises(UserMistake, match="no curve for group '3'"):
        allocation.order(Task(graph, [shrinking], {}, {}))


def test_a_group_without_a_curve_is_named_unless_it_is_ignored():
    graph = cutback.trace(chain((8, 8)), image())
    scan = Sensitivity(0.9, {"0": {0.5: 0.8}})
    with pytest.raises(UserMistake, match=r"no curve for group '3'.*scan it, or ignore"):
        cutback.plan(graph, budget="macs=80%", allocate=scan)
    plan = cutback.plan(graph, budget="macs=80%", allocate=scan, ignore="3")
    assert len(plan.groups[1].kept) == 8
