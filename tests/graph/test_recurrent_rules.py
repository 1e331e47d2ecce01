"""Recurrent layers: hidden units shrink in every gate, layer and direction, and the module still works."""

import copy

import pytest
import torch
from torch import nn

import cutback
from cutback.surgery.verify import prove

SEQUENCES = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """linear (6 features) -> recurrent layer (8 hidden units) -> linear."""

    def __init__(self, layer: nn.RNNBase, states=lambda _net, _x: None) -> None:
        super().__init__()
        outgoing = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.before, self.layer, self.after = nn.Linear(5, 6), layer, nn.Linear(outgoing, 3)
        self.states = states

    def forward(self, x):
        found, _ = self.layer(self.before(x), self.states(self, x))
        return self.after(found)


LAYERS = {
    "lstm": lambda: nn.LSTM(6, 8),
    "lstm, deep and both ways": lambda: nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True),
    "lstm, projected": lambda: nn.LSTM(6, 8, 2, bidirectional=True, proj_size=5),
    "lstm, dropout, no biases": lambda: nn.LSTM(6, 8, 2, dropout=0.5, bias=False),
    "gru, deep and both ways": lambda: nn.GRU(6, 8, 2, bidirectional=True),
    "gru": lambda: nn.GRU(6, 8, batch_first=True),
    "tanh": lambda: nn.RNN(6, 8, 3),
    "relu": lambda: nn.RNN(6, 8, nonlinearity="relu", bidirectional=True),
}


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_hidden_units_shrink_and_the_cut_is_proven(name: str) -> None:
    torch.manual_seed(0)
    model = Between(LAYERS[name]())
    for share, width in ((70, 5), (50, 4), (30, 2)):
        pruned = copy.deepcopy(model)
        graph = cutback.trace(pruned, SEQUENCES)
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(share))
        cutback.apply_(graph, plan)
        assert pruned.layer.hidden_size == width
        assert pruned.layer.input_size == pruned.before.out_features < 6
        assert all(p is q for p, q in zip(pruned.layer.parameters(), pruned.layer._flat_weights, strict=True))
        pruned.train()(SEQUENCES).sum().backward()
        assert all(p.grad.shape == p.shape for p in pruned.parameters())


def test_a_cut_layer_computes_what_a_layer_with_dead_units_does() -> None:
    """A unit whose gates and columns are zero in the original leaves the others as they are."""
    torch.manual_seed(0)
    model = Between(nn.LSTM(6, 8))
    silent = copy.deepcopy(model)
    graph = cutback.trace(model, SEQUENCES)
    plan = cutback.plan(graph, budget="channels=50%", ignore="before")
    gone = sorted(set(range(8)) - set(plan.slices["layer.weight_hh_l0"][1].indices))
    cutback.apply_(graph, plan)
    with torch.no_grad():
        silent.layer.weight_hh_l0[:, gone] = 0
        silent.after.weight[:, gone] = 0
    assert len(gone) == 4
    assert torch.allclose(silent(SEQUENCES), model(SEQUENCES), atol=1e-6)


STATES = {
    "zeros": lambda net, x: torch.zeros(1, x.shape[1], net.layer.hidden_size),
    "a parameter": lambda net, x: net.start.expand(-1, x.shape[1], -1),
    "computed": lambda net, x: net.make(x[0]).tanh()[None],
}


@pytest.mark.parametrize("name", sorted(STATES))
def test_initial_states_go_with_the_hidden_units(name: str) -> None:
    model = Between(nn.GRU(6, 8), STATES[name])
    if name == "a parameter":
        model.start = nn.Parameter(torch.randn(1, 1, 8))
    if name == "computed":
        model.make = nn.Linear(5, 8)
    graph = cutback.trace(model, SEQUENCES)
    group = next(group for group in graph.groups if "layer" in group.layers)
    names = {slot.state for slot in group.slices}
    assert names >= {"a parameter": {"start"}, "computed": {"make.weight", "make.bias"}}.get(name, set())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%", score="random"))
    assert model.layer.hidden_size == 4


def test_initial_states_of_a_literal_width_keep_the_hidden_units() -> None:
    graph = cutback.trace(Between(nn.GRU(6, 8), lambda _, x: torch.zeros(1, x.shape[1], 8)), SEQUENCES)
    assert [group.name for group in graph.groups] == ["before"]
    assert "literal sizes" in str(graph)


def test_the_units_of_two_layers_that_meet_only_in_a_recurrence_are_one() -> None:
    """What the gates of one layer make meets another linear layer only as the state it starts from."""
    model = Between(nn.RNN(6, 8), lambda net, x: net.make(x[0])[None])
    model.make = nn.Linear(5, 8)
    graph = cutback.trace(model, SEQUENCES)
    together = next(group for group in graph.groups if "make" in group.layers)
    assert "layer" in together.layers
    assert together.units == 8


def test_a_saved_cut_loads_onto_a_fresh_module(tmp_path) -> None:
    model = Between(nn.LSTM(6, 8, 2, bidirectional=True)).eval()
    graph = cutback.trace(model, SEQUENCES)
    plan = cutback.plan(graph, budget="channels=50%")
    prove(graph, plan)
    cutback.apply_(graph, plan)
    cutback.save(model, plan, tmp_path)
    loaded = cutback.load(tmp_path, build=lambda: Between(nn.LSTM(6, 8, 2, bidirectional=True))).eval()
    assert torch.equal(model(SEQUENCES), loaded(SEQUENCES))


def test_packed_sequences_are_a_boundary() -> None:
    class Packed(Between):
        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(self.before(x), [4, 2], batch_first=True)
            return self.after(nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0])

    try:
        graph = cutback.trace(Packed(nn.GRU(6, 8)), SEQUENCES)
    except cutback.errors.CutbackError:
        return
    assert not any("layer" in group.layers for group in graph.groups)
