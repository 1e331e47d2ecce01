"""The sweep's own parts: lists, workers, verdicts, records and the page."""

import dataclasses
import os
import time

import pytest
import torch

import cutback
from benchmarks.zoo import records
from benchmarks.zoo.catalogue import SUITES, TIMM_SUITES, Entry, entries, families
from benchmarks.zoo.measure import Row, after_cutting, caught, prunable, summary, verdict, wrong_plan
from benchmarks.zoo.page import page
from benchmarks.zoo.workers import Failure, run
from cutback.planning.plan import Cost
from tests.helpers import chain, image


def row(**values) -> Row:
    return Row(**{"key": "timm:net", "suite": "timm convolutional", "family": "nets", "size": 64} | values)


@pytest.fixture
def traced():
    return cutback.trace(chain(), image())


def test_every_timm_module_is_in_one_list_and_every_torchvision_architecture_is_there() -> None:
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    listed = [name for file in TIMM_SUITES.values() for name in families(file)]
    assert sorted(listed) == sorted(timm.list_modules())
    found = {(entry.suite, entry.name) for entry in entries()}
    for suite, space in SUITES.items():
        names = torchvision.models.list_models(module=space())
        assert {name for where, name in found if where == suite} == set(names)


def test_patterns_match_names_keys_and_families() -> None:
    assert {entry.family for entry in entries(["convnext"])} == {"convnext"}
    assert {entry.name for entry in entries(["torchvision:resnet1?"])} == {"resnet18"}
    assert all(entry.key.startswith("timm:") for entry in entries(["timm:*"]))
    assert entries(["no such thing"]) == []


def test_an_architecture_is_built_at_its_recorded_size() -> None:
    (entry,) = entries(["torchvision:squeezenet1_1"])
    assert entry.build().eval()(torch.zeros(1, 3, entry.size, entry.size)).shape == (1, 1000)


def work(task: str) -> str:
    if task == "slow":
        time.sleep(60)
    if task == "dies":
        os._exit(3)
    if task == "fails":
        raise ValueError("out of order")
    return task * 2


def test_workers_return_results_and_name_what_went_wrong() -> None:
    tasks = ["a", "slow", "dies", "fails"]
    found = dict(run(work, tasks, jobs=4, seconds=3, gigabytes=8))
    assert found["a"] == "aa"
    assert found["slow"] == Failure("not done after 3 seconds")
    assert found["dies"] == Failure("the process died (exit code 3)")
    assert found["fails"] == Failure("ValueError: out of order")


def test_a_row_passes_only_with_enough_removed_and_the_wrong_cut_caught() -> None:
    assert verdict(row(removed=0.7, caught=True), []) == ("passes", "")
    assert verdict(row(removed=0.7, caught=False), [])[0] == "silent"
    assert verdict(row(removed=0.3, caught=True), ["aten::sort: no rule"])[0] == "refuses"
    assert verdict(row(removed=0.3, caught=True), []) == (
        "error",
        "only 30% of the parameters fall: no reason was given",
    )
    assert verdict(row(removed=0.0, caught=None), ["why"])[0] == "refuses"


def test_a_planted_wrong_column_is_caught_and_the_right_plan_holds(traced) -> None:
    plan = cutback.plan(traced, budget="channels=50%")
    wrong = wrong_plan(traced, plan)
    assert wrong is not None
    changed = [name for name in plan.slices if plan.slices[name] != wrong.slices[name]]
    assert len(changed) == 1
    assert caught(traced, wrong)
    assert not caught(traced, plan)


def test_the_prunable_share_is_what_one_unit_a_group_leaves(traced) -> None:
    dense = sum(parameter.numel() for parameter in traced.model.parameters())
    least = cutback.plan(traced, budget="channels=0.1%").costs["params"].after
    assert prunable(traced) == pytest.approx(1 - least / dense)


def test_a_cut_model_that_differs_from_its_plan_is_a_finding(traced) -> None:
    plan = cutback.plan(traced, budget="channels=50%")
    params = plan.costs["params"]
    other = dataclasses.replace(plan, costs={**plan.costs, "params": Cost(params.before, params.after + 1)})
    assert "parameters" in after_cutting(traced, other, image())


def test_a_cut_model_that_is_as_planned_is_no_finding(traced) -> None:
    assert after_cutting(traced, cutback.plan(traced, budget="channels=50%"), image()) == ""


def test_boundaries_are_counted_by_operator_and_reason() -> None:
    found = [("aten::sort", "no rule", "a"), ("aten::fft", "no rule", "b"), ("aten::sort", "no rule", "c")]
    assert summary(found) == ["aten::sort: no rule (a and 1 more)", "aten::fft: no rule (b)"]


def test_records_survive_writing_and_the_page_shows_every_row(tmp_path) -> None:
    rows = [row(outcome="passes", removed=0.7, caught=True), row(key="timm:odd", reason="a | b", outcome="refuses")]
    conditions = {"cutback": "1", "torch": "2"}
    records.write(tmp_path / "zoo.json", conditions, rows)
    assert records.read(tmp_path / "zoo.json") == (conditions, {r.key: r for r in rows})
    assert records.read(tmp_path / "none.json") == ({}, {})
    text = page(rows, conditions, "a machine", "python -m benchmarks.zoo")
    assert "| timm convolutional | 2 | 1 | 50.0% | 97% | 1 | 0 | 0 |" in text
    assert "refuses: a / b |" in text


def test_an_entry_names_its_zoo() -> None:
    assert Entry("timm convolutional", "resnet", "resnet10t", 64).key == "timm:resnet10t"
