"""Recurrent layers: each hidden unit owns a row of every gate and a column of the recurrence.

All layers and directions of one call hold their states in one tensor, so that they stay equally wide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import compact, spread
from cutback.graph.rules.vectors import vector_along
from cutback.graph.states import State

GATES = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}


@dataclass(frozen=True)
class Weights:
    """The parameters of one direction of one layer."""

    incoming: State
    recurrent: State
    biases: Sequence[State]
    projection: State | None


@rules.register(*GATES)
def recurrent(call: Call) -> Labels:
    """Tie the features of ``(T, B, I)`` or ``(B, T, I)`` to the first layer and issue labels for every hidden unit.

    Returns:
        The labels of the outputs ``(T, B, D * H)`` or ``(B, T, D * H)``, of the last hidden states ``(L * D, B, H)``
        and, for an LSTM, of the last cells.
    """
    if "batch_sizes" in call.arguments:
        raise Refused("runs on packed sequences, whose sizes are values")
    labels = call.labels("input")
    incoming = vector_along(call, labels, labels.dim() - 1)
    directions = 2 if call.arguments["bidirectional"] else 1
    cells: list[Tensor] = []
    outputs: list[Tensor] = []
    above = incoming
    for number, weights in enumerate(_weights(call)):
        if number and number % directions == 0:
            above = torch.cat(outputs[-directions:])
        cell, output = layer(call, above, weights, GATES[call.operator])
        cells.append(cell)
        outputs.append(output)
    for held in [cells] if outputs[0] is cells[0] else [cells, outputs]:
        call.tie_blocks(torch.cat(held), 0, len(held), moves=False)
    call.width(nn.RNNBase, "input_size", incoming)
    call.width(nn.RNNBase, "hidden_size", cells[0])
    if outputs[0] is not cells[0]:
        call.width(nn.RNNBase, "proj_size", outputs[0])
    last = [_states(call, number, held) for number, held in enumerate([outputs, cells][: len(call.values) - 1])]  # type: ignore[arg-type]
    result: Tensor = call.values[0]  # type: ignore[index]
    return [spread(torch.cat(outputs[-directions:]), result.dim() - 1, result.shape), *last]


def layer(call: Call, incoming: Tensor, weights: Weights, gates: int) -> tuple[Tensor, Tensor]:
    """Label one direction of one layer; return the labels of its cells ``(H,)`` and of its outputs."""
    rows = call.made(weights.incoming, 0, "filter")
    cell = rows[: len(rows) // gates]
    call.unite(cell.repeat(gates), rows)
    output = cell if weights.projection is None else call.made(weights.projection, 0, "filter")
    call.tie(incoming, weights.incoming, 1, "column")
    call.tie(rows, weights.recurrent, 0, "filter")
    call.tie(output, weights.recurrent, 1, "column")
    if weights.projection is not None:
        call.tie(cell, weights.projection, 1, "column")
    for bias in weights.biases:
        call.tie(rows, bias, 0, "bias")
    return cell, output


def _states(call: Call, number: int, made: list[Tensor]) -> Tensor:
    """Unite an initial state with the units of each layer and direction; return the labels of the last state."""
    value: Tensor = call.values[number + 1]  # type: ignore[index]
    given = call.arguments["hx"]
    initial = call.as_labels(given[number] if isinstance(given, list | tuple) else given)
    result = compact(torch.stack(made)[:, None].expand(value.shape))
    call.unite(initial, result)
    return result


def _weights(call: Call) -> Iterator[Weights]:
    """Yield the parameters of each direction of each layer, in the order torch lists them."""
    listed = call.arguments["params"]
    if not isinstance(listed, list | tuple) or not all(isinstance(state, State) for state in listed):
        raise Refused("has weights that are computed in forward, not parameters")
    states: list[State] = [state for state in listed if isinstance(state, State)]
    count = int(call.arguments["num_layers"]) * (2 if call.arguments["bidirectional"] else 1)  # type: ignore[call-overload]
    biases = 2 if call.arguments["has_biases"] else 0
    each, rest = divmod(len(states), count)
    if rest or each - biases not in (2, 3):
        raise Refused(f"has {len(states)} parameters, an unknown layout")
    for start in range(0, len(states), each):
        incoming, recurrent, *others = states[start : start + each]
        yield Weights(incoming, recurrent, others[:biases], others[biases] if len(others) > biases else None)
