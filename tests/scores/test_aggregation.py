"""Which layer leads a stream, and how coupled slices are put together."""

import pytest
import torch
from torch import nn

import cutback
from cutback.models import build
from cutback.scores import L1
from cutback.scores.aggregation import aggregated, layers_before
from tests.helpers import image, randomised, residual
from tests.scores.networks import numbers, projected, rated


def loop(weight):
    return [sum(abs(number) for number in numbers(filters)) for filters in weight]


def test_slices_are_put_together():
    parts = [torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[10.0, 3.0], [20.0, -1.0]]).double()]
    found = {how: aggregated(parts, how, [4, 2]).tolist() for how in ("sum", "mean", "max", "leader")}
    assert found == {"sum": [14, 21], "mean": [14 / 3, 7], "max": [10, 20], "leader": [13, 19]}


def test_the_projection_leads_although_the_branch_runs_first():
    model = projected()
    with torch.no_grad():  # the branch's norms contradict the projection's
        order = torch.tensor(loop(model.projection.weight)).argsort()
        for place, unit in enumerate(order.tolist()):
            model.outer.weight[unit] *= 100 / (1 + place)
            model.second.weight[unit] *= 100 / (1 + place)
    found = rated(model, L1(aggregate="leader"))
    assert numbers(found["outer"]) == pytest.approx(loop(model.projection.weight), rel=1e-6)
    assert found["outer"].argsort().tolist() == order.tolist() != rated(model, "l1")["outer"].argsort().tolist()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, score="l1:leader", keep={"outer": 4})
    assert next(group.kept for group in plan.groups if group.name == "outer") == tuple(sorted(order[4:].tolist()))


def test_without_a_projection_what_begins_the_stream_leads():
    model = residual()
    assert numbers(rated(model, "l1:leader")["stem"]) == pytest.approx(loop(model.stem.weight), rel=1e-6)


class Bottleneck(nn.Module):
    """Its last convolution is 1x1 too, and runs before the projection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.reduce, self.middle, self.expand = nn.Conv2d(4, 3, 1), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 9, 1)
        self.projection, self.head = nn.Conv2d(4, 9, 1), nn.Conv2d(9, 2, 1)

    def forward(self, images):
        stem = self.stem(images).relu()
        branch = self.expand(self.middle(self.reduce(stem).relu()).relu())
        return self.head((branch + self.projection(stem)).relu())


def test_of_two_1x1_convolutions_the_projection_leads():
    model = randomised(Bottleneck())
    found = rated(model, "l1:leader")
    assert numbers(found["expand"]) == pytest.approx(loop(model.projection.weight), rel=1e-6)


def test_layers_are_counted_on_the_longest_way():
    before = layers_before(cutback.trace(projected(), image()))
    assert {name: before[f"{name}.weight"] for name in ("stem", "inner", "outer", "projection", "second", "head")} == {
        "stem": 0,
        "inner": 1,
        "outer": 2,
        "projection": 1,
        "second": 3,
        "head": 4,
    }
    assert before["outer_norm.weight"] == 3


def test_a_weight_that_is_computed_belongs_to_its_layer():
    layers = [nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 2, 1)]
    before = layers_before(cutback.trace(nn.Sequential(*layers), image()))
    assert {name: count for name, count in before.items() if "weight" in name} == {
        "0.parametrizations.weight.original0": 0,
        "0.parametrizations.weight.original1": 0,
        "1.weight": 1,
        "2.weight": 2,
    }


def test_the_streams_of_a_cifar_resnet_are_led_by_stem_and_projections():
    model = build("resnet20", shortcut="B")
    graph = cutback.trace(model, image(shape=(2, 3, 32, 32)))
    rates = L1(aggregate="leader")(graph)
    streams = [group for group in graph.groups if len(group.layers) > 1]
    leaders = []
    for group in streams:
        fitting = [
            path
            for path in group.layers
            if loop(model.get_submodule(path).weight) == pytest.approx(numbers(rates[group.name]), rel=1e-5)
        ]
        leaders += fitting
    modules = dict(model.named_modules())
    assert len(leaders) == len(streams) == 3
    assert [modules[path].kernel_size for path in leaders] == [(3, 3), (1, 1), (1, 1)]
