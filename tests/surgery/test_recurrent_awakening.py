"""Rectified recurrent layers: a unit that is dead on the model's own values hides no mistake from the proof."""

import dataclasses

import pytest
import torch
from torch import nn

import cutback
from benchmarks.zoo.measure import caught
from cutback.planning.plan import Kept
from cutback.surgery.recurrent_awakening import awaken_


class Reader(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.inner = nn.RNN(1, 6, nonlinearity="relu", batch_first=True, **options)
        self.head = nn.Linear(12 if options.get("bidirectional") else 6, 4)

    def forward(self, steps):
        return self.head(self.inner(steps.relu())[0])


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False, "num_layers": 2}])
def test_a_wrong_column_of_the_recurrence_is_caught_where_its_unit_is_dead(options):
    torch.manual_seed(0)
    model, steps = Reader(**options), torch.randn(2, 5, 1)
    for name, parameter in model.inner.named_parameters():
        parameter.data = -parameter.abs() - 10 if "bias" in name else parameter.data
    name = f"inner.weight_hh_l{options.get('num_layers', 1) - 1}"
    for unit in range(6):
        graph = cutback.trace(model, steps)
        scores = {group.name: torch.eye(6)[unit] for group in graph.groups}
        plan = cutback.plan(graph, score=lambda _, scores=scores: scores, budget="channels=10%")
        assert plan.slices[name][1].indices == (unit,)
        assert not caught(graph, plan)
        wrong = Kept(total=6, indices=((unit + 1) % 6,), blocks=1)
        slices = {**plan.slices, name: {**plan.slices[name], 1: wrong}}
        assert caught(graph, dataclasses.replace(plan, slices=slices))


@pytest.mark.parametrize("biased", [True, False])
def test_every_unit_of_every_layer_is_awake_in_some_sequence(biased):
    torch.manual_seed(1)
    layers = nn.RNN(3, 6, num_layers=2, nonlinearity="relu", bias=biased, bidirectional=True)
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            parameter.copy_(-parameter.abs() * (1 if "weight" in name else 10))
        steps = torch.rand(5, 4, 3)
        start = torch.zeros(4, 4, 6)
        parameters = list(layers.parameters())
        arguments = (steps, start, parameters, biased, 2, 0.0, False, True, False)
        assert not torch.rnn_relu(*arguments)[0].any()
        awaken_(arguments, free=lambda number: True)
        lower = nn.RNN(3, 6, nonlinearity="relu", bias=biased, bidirectional=True)
        lower.load_state_dict({name: dict(layers.named_parameters())[name] for name, _ in lower.named_parameters()})
        for found in (lower(steps)[0], layers(steps)[0]):
            assert (found[0, :, :6].amax(0) > 0).all()
            assert (found[-1, :, 6:].amax(0) > 0).all()


def test_parameters_that_are_not_free_stay():
    layers = nn.RNN(3, 6, nonlinearity="relu")
    before = [parameter.detach().clone() for parameter in layers.parameters()]
    with torch.no_grad():
        arguments = (
            torch.rand(5, 4, 3),
            torch.zeros(1, 4, 6),
            list(layers.parameters()),
            True,
            1,
            0.0,
            False,
            False,
            False,
        )
        awaken_(arguments, free=lambda number: False)
    assert all(torch.equal(old, new) for old, new in zip(before, layers.parameters(), strict=True))
