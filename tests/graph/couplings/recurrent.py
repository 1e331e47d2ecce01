"""Couplings through recurrent layers: the rows of every gate with the hidden unit they make."""

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
