"""Which channels are one unit, and what each saves."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import cutback
from cutback.gates import ungatable_groups
from cutback.methods import GroupFisher
from cutback.methods.group_fisher.units import is_internal
from cutback.planning.assemble import plan_for
from tests.helpers import chain
from tests.methods.group_fisher.networks import NETWORKS, Basic, Grouped, Inverted, Pyramid, made, units

PICTURE = torch.zeros(1, 1, 12, 12)


def method_of(model, picture=PICTURE, **settings):
    return GroupFisher(cutback.trace(model, picture), **{"budget": "macs=50%", **settings})


def shuffled(model, seed):
    """Return the model with its layers registered in another order."""
    names = list(model._modules)
    random.Random(seed).shuffle(names)
    model._modules = {name: model._modules[name] for name in names}
    return model


def partition(graph):
    """Return what makes and what reads each group's channels, and how many units it has."""
    made_by = lambda group: frozenset(group.layers)  # noqa: E731
    readers = {}
    for group in graph.groups:
        reading = {s.state.rpartition(".")[0] for s in group.slices if s.role in ("column", "depthwise") or s.consumes}
        readers[made_by(group)] = (frozenset(reading), group.units)
    return readers


@pytest.mark.parametrize("network", NETWORKS)
def test_groups_are_the_expected_ones_in_whatever_order_layers_are_registered(network):
    expected = {}
    for group, makers in network.MAKES.items():
        readers = frozenset(path for path, (read, _) in network.READS.items() if read == group)
        expected[frozenset(makers)] = (readers, units(network)[group])
    for model in (made(network), shuffled(made(network), 1), shuffled(made(network), 2)):
        assert partition(method_of(model).graph) == expected


def test_a_network_traced_with_whole_groups_is_not_traced_again():
    graph = cutback.trace(made(Grouped), PICTURE, granularity="blocks")
    assert GroupFisher(graph, budget="macs=50%").graph is graph
    graph = cutback.trace(made(Basic), PICTURE)
    assert GroupFisher(graph, budget="macs=50%").graph is graph


def test_internal_units_are_read_by_a_single_layer():
    internal = {group.name for group in method_of(made(Basic)).graph.groups if is_internal(group)}
    assert internal == {"a1.0", "b1.0", "c1.0"}
    assert not any(is_internal(g) for g in method_of(made(Inverted)).graph.groups)  # the depthwise layer reads too
    with method_of(made(Basic), internal_only=True) as method:
        assert set(method._gates.groups) == internal


def counted(model):
    """Count MACs and elements of convolutions' outputs by running a model."""
    found = {"macs": 0, "memory": 0}

    def count(layer, _inputs, output):
        positions = output.numel() // (output.shape[-1] if isinstance(layer, nn.Linear) else output.shape[1])
        found["macs"] += positions * layer.weight.numel()
        found["memory"] += output.numel() if isinstance(layer, nn.Conv2d) else 0

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model.eval()(PICTURE)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_unit_saves_is_the_difference_that_deleting_it_makes(network):
    generator = np.random.default_rng(0)
    for normalise in ("memory", "macs"):
        method = method_of(made(network), normalise=normalise)
        with method:
            graph, removals = method.graph, method._removals
        rates = {number: generator.random(group.units) for number, group in enumerate(graph.groups)}
        for _ in range(2):  # whole, and after some units have gone
            candidates = removals.candidates(rates)
            kept = {g.name: np.flatnonzero(a).tolist() for g, a in zip(graph.groups, removals.alive, strict=True)}
            before = counted(cutback.apply(graph, plan_for(graph, kept), prove=False))
            for candidate in candidates:
                ((number, gone),) = candidate.units.items()
                name = graph.groups[number].name
                less = {**kept, name: [unit for unit in kept[name] if unit not in gone]}
                after = counted(cutback.apply(graph, plan_for(graph, less), prove=False))
                scale = 4 if normalise == "memory" else 1  # bytes of an element
                assert candidate.saved == scale * (before[normalise] - after[normalise]), name
            silent = {"box"} if normalise == "memory" else set()
            named = {graph.groups[number].name for c in candidates for number in c.units}
            assert named == {name for name in kept if len(kept[name]) > 1} - silent
            for candidate in candidates:
                removals.remove(candidate)


def test_units_that_save_no_memory_stay_and_such_a_network_is_refused():
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 10))
    with pytest.raises(cutback.errors.BudgetUnreachable), method_of(mlp):
        pass
    with method_of(mlp, normalise="macs") as method:
        assert method._gates.groups == ("1",)


def test_a_group_norm_loses_as_many_units_in_each_group_together():
    net = chain((8,))
    net[1] = nn.GroupNorm(2, 8)
    with method_of(net, torch.zeros(1, 3, 8, 8), normalise="none") as method:
        (candidate,) = method._removals.candidates({0: np.array([5.0, 1, 6, 2, 9, 8, 7, 3])})
        assert candidate.units == {0: (1, 7)}
        assert candidate.importance == 4
        assert method._removals.at_once == {0}


def test_ignored_layers_stay_whole():
    with method_of(made(Pyramid), ignore="lateral*,classify") as method:
        assert set(method._gates.groups) == {"fine.0", "coarse.0", "smooth_fine", "locate"}


class Summed(nn.Module):
    def forward(self, x):
        return x.sum(1)


def test_units_that_no_layer_reads_stay():
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), Summed())
    with method_of(net, budget="macs=70%") as method:
        assert {group.name for group in method.graph.groups} == {"0", "2"}
        assert ungatable_groups(method.graph, "input") == {"2": "it has no input that a gate could stand at"}
        assert method._gates.groups == ("0",)
