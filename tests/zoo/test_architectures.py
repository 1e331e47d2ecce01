"""Proven cuts on public architectures, and planted wrong ones that the proof must catch."""

import dataclasses

import pytest
import torch

import cutback
from cutback.errors import NotEquivalent
from cutback.planning.plan import Kept, Plan
from cutback.surgery.verify import prove
from tests.zoo.architectures import ARCHITECTURES, slots_of

SMALL = sorted(name for name, architecture in ARCHITECTURES.items() if architecture.planted)
"""Those in which wrong cuts are planted here; ``make zoo`` plants one in each architecture there is."""


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.fixture(scope="module")
def traced(architecture):
    torch.manual_seed(0)
    model = architecture.build()
    return cutback.trace(model, torch.randn(1, 3, architecture.size, architecture.size))


def replaced(plan: Plan, state: str, dimension: int, indices: list[int]) -> Plan:
    slices = {name: dict(dimensions) for name, dimensions in plan.slices.items()}
    slices[state][dimension] = Kept(slices[state][dimension].total, tuple(indices))
    return dataclasses.replace(plan, slices=slices)


def test_cuts_of_some_percent_of_channels_are_proven(architecture, traced) -> None:
    assert not traced.train_failure
    assert not traced.unreached
    for share in architecture.shares:
        plan = cutback.plan(traced, budget=f"channels={share}%")
        proof = prove(traced, plan)
        assert proof.comparisons > 40
        assert proof.error <= 1e-5
    assert plan.costs["params"].after <= 0.6 * plan.costs["params"].before


@pytest.mark.parametrize("architecture", SMALL, indirect=True)
def test_a_swapped_consumer_column_is_caught(traced) -> None:
    plan = cutback.plan(traced, budget="channels=50%")
    columns = slots_of(plan, traced, "column")
    slot = columns[len(columns) * 2 // 3]
    kept = plan.slices[slot.state][slot.dimension]
    removed = next(index for index in range(kept.total) if index not in kept.indices)
    swapped = replaced(plan, slot.state, slot.dimension, [*kept.indices[:-1], removed])
    with pytest.raises(NotEquivalent) as caught:
        prove(traced, swapped)
    assert caught.value.module == slot.state.rpartition(".")[0]


@pytest.mark.parametrize("architecture", SMALL, indirect=True)
def test_one_channel_too_many_at_one_place_is_caught(traced) -> None:
    plan = cutback.plan(traced, budget="channels=50%")
    filters = slots_of(plan, traced, "filter")
    slot = filters[len(filters) // 2]
    kept = plan.slices[slot.state][slot.dimension]
    with pytest.raises(NotEquivalent):
        prove(traced, replaced(plan, slot.state, slot.dimension, list(kept.indices[:-1])))


def test_the_cut_model_runs_and_counts_as_planned() -> None:
    model = ARCHITECTURES["resnet18"].build()
    images = torch.randn(2, 3, 64, 64)
    graph = cutback.trace(model, images)
    plan = cutback.plan(graph, budget="macs=50%")
    cutback.apply_(graph, plan, prove=False)
    assert cutback.measure.macs(model, images) == plan.costs["macs"].after
    assert cutback.measure.params(model) == plan.costs["params"].after
    assert model(images).shape == (2, 1000)
