"""Couplings through recurrent layers: the rows of every gate with the hidden unit they make."""

import torch
from torch import nn

from tests.graph.couplings.base import planted

HIDDEN = 5


def _rows(net, a, b):
    return net.inner(a.movedim(1, -1).flatten(0, 1))[0]


def _units(gates: int) -> list[dict]:
    hidden = []
    for j in range(HIDDEN):
        rows = {j + gate * HIDDEN for gate in range(gates)}
        hidden.append(
            {
                "inner.weight_ih_l0:0": rows,
                "inner.weight_hh_l0:0": rows,
                "inner.bias_ih_l0:0": rows,
                "inner.weight_hh_l0:1": {j},
                "head": {j},
            }
        )
    return [*hidden, *({"a": {j}, "inner.weight_ih_l0:1": {j}} for j in range(6))]


for name, kind, gates in (("rnn", nn.RNN, 1), ("gru", nn.GRU, 3), ("lstm", nn.LSTM, 4)):
    planted(
        name,
        name,
        _rows,
        (6, 6, HIDDEN),
        tokens=True,
        inner=lambda kind=kind: kind(6, HIDDEN, batch_first=True),
        units=_units(gates),
    )


def _steps(net, a, b):
    """Three steps of a cell, each result one step more."""
    held, found = None, []
    for features in a.flatten(2).movedim(2, 0)[:3]:
        held = net.inner(features, held)
        found.append(held[0] if isinstance(held, tuple) else held)
    return torch.stack(found, 1)


for name, kind, gates in (
    ("rnn cell", lambda: nn.RNNCell(6, HIDDEN), 1),
    ("rnn cell, relu", lambda: nn.RNNCell(6, HIDDEN, nonlinearity="relu"), 1),
    ("gru cell", lambda: nn.GRUCell(6, HIDDEN), 3),
    ("lstm cell", lambda: nn.LSTMCell(6, HIDDEN), 4),
):
    planted(
        name,
        "",
        _steps,
        (6, 6, HIDDEN),
        tokens=True,
        inner=kind,
        units=[{part.replace("_l0", ""): indices for part, indices in unit.items()} for unit in _units(gates)],
    )
