"""Plans are immutable, survive JSON, and compose to original indices."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.errors import ArchitectureMismatch, CorruptFile, UnsupportedVersion
from cutback.models import build
from cutback.planning.make import plan_for
from cutback.planning.plan import Plan
from tests.helpers import chain, image, randomised, residual


@pytest.fixture(scope="module")
def plan():
    return cutback.plan(cutback.trace(residual(), image()), budget=["macs=50%", "channels=90%"])


def test_nothing_of_a_plan_can_be_changed(plan):
    with pytest.raises(FrozenInstanceError):
        plan.groups = ()
    with pytest.raises(FrozenInstanceError):
        plan.groups[0].kept = (0,)
    with pytest.raises(TypeError):
        plan.slices["stem.weight"] = {}
    with pytest.raises(TypeError):
        plan.slices["stem.weight"][0] = None
    with pytest.raises(TypeError):
        plan.costs["macs"] = None


def test_a_plan_survives_json(plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.to_json() == plan.to_json()
    assert str(again) == str(plan)


def test_a_plan_can_be_copied_and_sent_to_other_processes(plan):
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301 (our own bytes)
    assert copy.deepcopy(plan) == plan


def edited(plan, **changes):
    return json.dumps({**json.loads(plan.to_json()), **changes})


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncated_json(plan, length):
    with pytest.raises(CorruptFile, match="truncated or damaged"):
        Plan.from_json(plan.to_json()[:length])


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "another"}'])
def test_other_json_is_no_plan(text):
    with pytest.raises(CorruptFile, match="not a cutback plan"):
        Plan.from_json(text)


def test_a_future_version_asks_for_an_upgrade(plan):
    with pytest.raises(UnsupportedVersion, match="version 3, this cutback reads up to 2; upgrade"):
        Plan.from_json(edited(plan, version=3))


@pytest.mark.parametrize(
    "change",
    [
        {"version": None},
        {"version": "1"},
        {"version": 0},
        {"slices": []},
        {"slices": {"stem.weight": {"0": [8, 99]}}},
        {"slices": {"stem.weight": {"0": 8}}},
        {"groups": [{"name": "stem"}]},
        {"indices": [["x"]]},
        {"indices": 5},
        {"costs": {"macs": [1]}},
        {"costs": {"macs": ["a", "b"]}},
        {"budgets": None},
        {"architecture": 5},
    ],
)
def test_garbled_parts(plan, change):
    with pytest.raises(CorruptFile, match="lacks or garbles"):
        Plan.from_json(edited(plan, **change))


@pytest.mark.parametrize("part", ["version", "architecture", "result", "groups", "slices", "costs", "indices", "notes"])
def test_missing_parts(plan, part):
    document = json.loads(plan.to_json())
    del document[part]
    with pytest.raises(CorruptFile):
        Plan.from_json(json.dumps(document))


def random_cut(model, inputs, random, lowest=1):
    """Cut a model to random units; return the plan."""
    graph = cutback.trace(model, inputs)
    units = {
        group.name: sorted(random.choice(group.units, random.integers(lowest, group.units + 1), replace=False).tolist())
        for group in graph.groups
    }
    plan = plan_for(graph, units)
    cutback.apply_(graph, plan, prove=False)
    return plan


NETWORKS = {
    "chain": (chain, image()),
    "residual": (residual, image()),
    "padded shortcuts": (lambda: build("resnet20").eval(), image(shape=(2, 3, 16, 16))),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("network", NETWORKS)
def test_two_cuts_equal_their_composition_bit_for_bit(network, seed):
    make, inputs = NETWORKS[network]
    torch.manual_seed(seed)
    twice = make()
    once = copy.deepcopy(twice)
    random = np.random.default_rng(seed)
    first = random_cut(twice, inputs, random)
    second = random_cut(twice, inputs, random)
    both = first.then(second)
    cutback.apply_(cutback.trace(once, inputs), both)  # proven
    found, expected = once.state_dict(), twice.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert both.costs["params"].after == cutback.measure.params(twice)
    assert Plan.from_json(both.to_json()) == both


class Shared(nn.Module):
    """One half of ``whole`` goes with ``left``, the other with ``right``: two groups that begin at one layer."""

    def __init__(self):
        super().__init__()
        self.whole, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, images):
        whole = self.whole(images)
        return self.head((whole + torch.cat([self.left(images), self.right(images)], 1)).relu())


def test_composition_where_a_name_passes_to_another_group():
    model = randomised(Shared())
    graph = cutback.trace(model, image())
    assert [(group.name, group.units) for group in graph.groups] == [("whole", 4), ("whole#2", 4)]
    first = plan_for(graph, {"whole": [2]})
    cutback.apply_(graph, first)
    graph = cutback.trace(model, image())
    second = plan_for(graph, {"whole": [0, 3]})
    cutback.apply_(graph, second)
    both = first.then(second)
    assert [(group.name, group.kept) for group in both.groups] == [("whole", (2,)), ("whole#2", (0, 3))]
    once = randomised(Shared())
    cutback.apply_(cutback.trace(once, image()), both)  # proven
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), model.state_dict().values(), strict=True))


def test_composition_speaks_of_original_indices():
    model = chain((8, 6))
    graph = cutback.trace(model, image())
    first = plan_for(graph, {"0": [1, 3, 5, 7]})
    cutback.apply_(graph, first)
    second = plan_for(cutback.trace(model, image()), {"0": [0, 3], "3": [2, 4]})
    both = first.then(second)
    direct = plan_for(cutback.trace(chain((8, 6)), image()), {"0": [1, 7], "3": [2, 4]})
    assert both.slices == direct.slices
    assert [group.kept for group in both.groups] == [group.kept for group in direct.groups]
    assert both == direct


def test_a_plan_for_another_network_does_not_compose(plan):
    with pytest.raises(ArchitectureMismatch, match="another architecture than the first plan leads to"):
        plan.then(plan)
