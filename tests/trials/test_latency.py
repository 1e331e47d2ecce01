"""Latency budgets on a made-up machine: its layers go in blocks, and its whole passes cost more than their layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.errors import BudgetUnreachable, InvalidBudget, InvalidScore
from cutback.graph.balance import Cell
from cutback.measure.latency import Latency
from cutback.measure.latency_model import LatencyModel
from cutback.measure.layer_call import LayerCall
from cutback.measure.setting import LatencySetting
from cutback.planning.budget import Budget, parse_budgets
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan
from cutback.planning.select import Choice
from cutback.planning.worthwhile import worthwhile
from cutback.trials.latency import noted, plan_to_latency
from tests.helpers import chain, image

WIDTHS = (64, 96, 64)


def layer_time(call: LayerCall, widths: tuple[int, ...]) -> float:
    """Contractions in blocks of 16 output channels; the rest next to nothing."""
    if "conv2d" not in str(call.target):
        return 1e-3
    return 0.05 * math.prod(math.ceil(width / 16) for width in widths)


def pass_time(model: nn.Module) -> float:
    """What a whole pass takes: an overhead, and ever more than the sum of the layers."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    first, *others = layers
    total = 0.05 * math.ceil(first.out_channels / 16)
    total += sum(0.05 * math.ceil(c.in_channels / 16) * math.ceil(c.out_channels / 16) for c in others)
    return 0.4 + 1.3 * total + 0.05 * total**2


class Machine:
    """Times whole passes, and notes how often."""

    def __init__(self) -> None:
        self.rounds = 0

    def __call__(self, models: Mapping[str, nn.Module]) -> dict[str, Latency]:
        self.rounds += 1
        taken = {name: pass_time(model) for name, model in models.items()}
        return {name: Latency(t, t, t, 30, 1, t / taken["dense"]) for name, t in taken.items()}


@pytest.fixture(scope="module")
def graph() -> cutback.Graph:
    return cutback.trace(chain(WIDTHS), image())


def trial_of(graph: cutback.Graph, folder, budget: str | Sequence[str], machine: Machine | None = None, **options):
    def planner(budgets: Sequence[Budget]) -> Plan:
        return make_plan(graph, budget=list(budgets), **options)

    model = LatencyModel(graph, LatencySetting(cache=folder), timer=layer_time)
    return plan_to_latency(graph, parse_budgets(budget), planner, model, machine or Machine())


@pytest.mark.parametrize("target", ["80%", "60%", "45%"])
@pytest.mark.parametrize("allocate", ["uniform", "global", "per-latency"])
def test_the_cut_network_takes_what_was_asked_for(graph: cutback.Graph, tmp_path, target: str, allocate: str) -> None:
    machine = Machine()
    trial = trial_of(graph, tmp_path, f"latency={target}", machine, allocate=allocate)
    small = cutback.apply(graph, trial.plan, prove=False)
    share = pass_time(small) / (pass_time(graph.model) * float(target[:-1]) / 100)
    assert share == pytest.approx(trial.share)
    # Its steps are blocks: one of 24 in the middle layer costs about 4 %.
    assert 0.9 <= share <= 1
    assert machine.rounds <= 7


def test_milliseconds_mean_milliseconds_and_other_budgets_hold_too(graph: cutback.Graph, tmp_path) -> None:
    dense = pass_time(graph.model)
    wanted = 0.6 * dense
    plan = trial_of(graph, tmp_path, [f"latency={wanted:.4f}ms", "params=90%"]).plan
    small = cutback.apply(graph, plan, prove=False)
    assert 0.9 * wanted <= pass_time(small) <= wanted
    assert plan.costs["params"].after <= 0.9 * plan.costs["params"].before


def test_widths_are_those_that_are_really_faster(graph: cutback.Graph, tmp_path) -> None:
    plan = trial_of(graph, tmp_path, "latency=60%").plan
    blocks = sum(math.ceil(len(group.kept) / 16) for group in plan.groups)
    assert blocks < sum(math.ceil(width / 16) for width in WIDTHS)
    assert sum(len(group.kept) for group in plan.groups) > 16 * blocks - 16  # no block is paid for and left empty


def test_what_is_out_of_reach_is_refused_with_the_lowest_there_is(graph: cutback.Graph, tmp_path) -> None:
    with pytest.raises(BudgetUnreachable, match=r"lowest reachable [\d.]+ ms") as refusal:
        trial_of(graph, tmp_path, "latency=5%")
    lowest = make_plan(graph, keep=dict.fromkeys(("0", "3", "6"), 1))
    truth = pass_time(cutback.apply(graph, lowest, prove=False))
    assert refusal.value.lowest["latency"] / 1e6 == pytest.approx(truth, rel=0.1)


def test_the_plan_says_what_was_measured(graph: cutback.Graph, tmp_path) -> None:
    trial = trial_of(graph, tmp_path, "latency=60%")
    plan = noted(trial, parse_budgets("latency=60%"), "batch 1, cpu, 1 thread")
    assert plan.budgets == ("latency=60%",)
    assert plan.costs["latency"].before == round(pass_time(graph.model) * 1e6)
    assert plan.costs["latency"].after == round(trial.cut.median_ms * 1e6)
    assert f"measured {trial.cut.median_ms:.4g} ms" in str(plan)
    assert "batch 1, cpu, 1 thread" in str(plan)
    assert Plan.from_json(plan.to_json()).costs == plan.costs


def test_a_miss_is_told(graph: cutback.Graph, tmp_path) -> None:
    trial = trial_of(graph, tmp_path, "latency=90%", ignore=["0", "6"], round_to=48)
    assert not trial.hit
    notes = noted(trial, parse_budgets("latency=90%"), "").notes
    assert any("came within 5 % below" in note for note in notes)


class Slower(Machine):
    """A machine on which the cuts that are tried take longer than their layers tell."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __call__(self, models: Mapping[str, nn.Module]) -> dict[str, Latency]:
        times = super().__call__(models)
        if "cut" in times:
            taken = times["cut"].median_ms * self.factor
            times["cut"] = Latency(taken, taken, taken, 30, 1, taken / times["dense"].median_ms)
        return times


def test_what_is_measured_far_over_the_target_is_refused(graph: cutback.Graph, tmp_path) -> None:
    with pytest.raises(BudgetUnreachable, match=r"measured to take [\d.]+ ms, 1\d\d\.\d% of the target") as refusal:
        trial_of(graph, tmp_path, "latency=20%", Slower(1.6))
    assert refusal.value.lowest["latency"] / 1e6 > 1.05 * 0.2 * pass_time(graph.model)


def test_a_little_over_the_target_is_taken_and_told(graph: cutback.Graph, tmp_path) -> None:
    trial = replace(trial_of(graph, tmp_path, "latency=60%"), tried=3)
    over = trial.target_ms * 1.03
    late = replace(trial, cut=Latency(over, over, over, 30, 1, over / trial.dense.median_ms))
    notes = noted(late, parse_budgets("latency=60%"), "").notes
    assert any("3.0% over the target; none of the plans tried (3) came below it" in note for note in notes)
    assert late.miss > replace(trial, target_ms=over * 9).miss


def test_a_machine_that_slows_down_between_two_passes_is_not_taken_for_a_slow_cut(graph, tmp_path) -> None:
    trial = trial_of(graph, tmp_path, "latency=60%")
    slow = trial.cut.median_ms * 1.4
    assert replace(trial, cut=replace(trial.cut, median_ms=slow)).share == trial.share


def test_where_another_budget_binds_nothing_more_is_tried(graph: cutback.Graph, tmp_path) -> None:
    machine, budgets = Machine(), ["latency=80%", "macs=30%"]
    trial = trial_of(graph, tmp_path, budgets, machine)
    assert trial.share < 0.9
    assert (trial.tried, machine.rounds) == (1, 2)
    notes = noted(trial, parse_budgets(budgets), "").notes
    assert sum("latency" in note for note in notes) == 1


def test_other_budgets_are_checked_before_anything_is_scored_or_timed(graph, tmp_path, monkeypatch) -> None:
    def scored(graph: cutback.Graph) -> Mapping[str, torch.Tensor]:
        pytest.fail("scored")

    monkeypatch.setattr("cutback.trials.latency_budget.LatencyModel", lambda *_: pytest.fail("timed"))
    setting, budgets = LatencySetting(cache=tmp_path), ["macs=0.01%", "latency=60%"]
    with pytest.raises(BudgetUnreachable, match="macs"):
        cutback.plan(graph, score=scored, budget=budgets, allocate="per-latency", latency=setting)


def test_a_score_that_fails_does_so_before_anything_is_timed(graph, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cutback.trials.latency_budget.LatencyModel", lambda *_: pytest.fail("timed"))
    with pytest.raises(InvalidScore, match="return a mapping"):
        cutback.plan(graph, score=lambda _: None, budget="latency=60%", latency=LatencySetting(cache=tmp_path))


def test_how_latency_is_written() -> None:
    assert [str(budget) for budget in parse_budgets(["latency=8.5ms"])] == ["latency=8.5ms"]
    assert [str(budget) for budget in parse_budgets(["latency=250us"])] == ["latency=0.25ms"]
    for written in ("latency=8", "latency=8MiB"):
        with pytest.raises(InvalidBudget, match=r"no unit of latency .*latency=8ms"):
            parse_budgets(written)


def test_a_planner_that_does_not_measure_refuses(graph: cutback.Graph) -> None:
    with pytest.raises(InvalidBudget, match="needs measurements"):
        make_plan(graph, budget="latency=60%")
    with pytest.raises(InvalidBudget, match="needs measurements"):
        make_plan(graph, budget="macs=60%", allocate="per-latency")


def test_plan_measures_this_machine_and_remembers(tmp_path) -> None:
    graph = cutback.trace(chain((32, 48)), image(shape=(1, 3, 64, 64)))
    calls = []

    def score(traced: cutback.Graph) -> Mapping[str, torch.Tensor]:
        calls.append(traced)
        return cutback.scores.L2()(traced)

    setting = cutback.measure.LatencySetting(batch=2, threads=1, cache=tmp_path)
    plan = cutback.plan(graph, score=score, budget="latency=70%", allocate="per-latency", latency=setting)
    assert len(calls) == 1
    assert plan.budgets == ("latency=70%",)
    # A busy machine may miss the target; what it measured stands there all the same.
    assert 0 < plan.costs["latency"].after < plan.costs["latency"].before
    assert any("measured" in note and "batch 2, cpu, 1 thread" in note for note in plan.notes)
    assert len(list(tmp_path.iterdir())) == 1
    assert cutback.apply_(graph, plan) is not None


def choice(units: int) -> Choice:
    scores = (np.arange(units, dtype=np.float64),)
    return Choice((Cell(0, tuple(range(units))),), scores, np.arange(units, 0, -1)[:, None])


def levels(units: int, cost) -> list[int]:
    def costs(kept: np.ndarray) -> np.ndarray:
        return np.array([cost(int(row[0])) + 5.0 for row in kept])

    return worthwhile(choice(units), np.array([units]), costs).counts[:, 0].tolist()


def test_only_the_edges_of_a_staircase_are_worth_having() -> None:
    assert levels(64, lambda width: math.ceil(width / 16)) == [64, 48, 32, 16, 1]
    # A little of the cost is linear everywhere, as norms and activations are.
    assert levels(64, lambda width: math.ceil(width / 16) + 0.002 * width) == [64, 48, 32, 16, 1]


def test_of_a_straight_line_every_width_is_worth_having() -> None:
    assert levels(40, lambda width: 0.1 * width) == list(range(40, 0, -1))


def test_a_width_that_costs_more_than_a_wider_one_is_left_out() -> None:
    found = levels(24, lambda width: width + (3 if width % 8 else 0))
    assert {24, 16, 8} <= set(found)
    assert not {23, 22, 21, 15, 14, 13} & set(found)
