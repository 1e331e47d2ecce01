"""Results of recurrent layers on meta tensors, whose kernels take every step of a sequence one by one in Python."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload

_ATEN = torch.ops.aten
_GATES = {_ATEN.lstm.input: 4, _ATEN.gru.input: 3, _ATEN.rnn_tanh.input: 1, _ATEN.rnn_relu.input: 1}


def recurrent_result(func: OpOverload, args: Sequence[object]) -> tuple[Tensor, ...] | None:
    """Return the output and the last states of a recurrent layer on meta tensors, or ``None`` where it is none.

    Also ``None`` where something does not fit: the kernel says best what.

    Args:
        func: the operator.
        args: input ``(T, B, I)``, initial states, weights, whether there are biases, layers, dropout, train mode,
            whether it is bidirectional, and whether the batch comes first; tensors are meta tensors.
    """
    gates = _GATES.get(func)
    if gates is None or len(args) != 9:
        return None
    source, given, weights, biased, layers, _, _, bidirectional, batch_first = args
    states, weights = _tensors(given), _tensors(weights)
    if not isinstance(source, Tensor) or source.dim() != 3 or not source.numel() or not states or len(weights) < 2:
        return None
    if any(tensor.dtype != source.dtype for tensor in (*states, *weights)):
        return None
    directions = 2 if bidirectional else 1
    count = int(layers) * directions  # type: ignore[call-overload]
    hidden = weights[1].shape[0] // gates
    outgoing = states[0].shape[-1]
    batch, steps = source.shape[0 if batch_first else 1], source.shape[1 if batch_first else 0]
    sizes = [outgoing, hidden][: len(states)]
    expected: list[tuple[int, ...]] = [(count, batch, size) for size in sizes]
    for number in range(count):
        incoming = source.shape[2] if number < directions else outgoing * directions
        expected += [(gates * hidden, incoming), (gates * hidden, outgoing)]
        expected += [(gates * hidden,)] * 2 if biased else []
        expected += [(outgoing, hidden)] if outgoing != hidden else []
    if len(states) != (2 if gates == 4 else 1) or [tuple(t.shape) for t in (*states, *weights)] != expected:
        return None
    result = torch.empty((steps, batch, outgoing * directions), dtype=source.dtype, device="meta")
    last = [torch.empty(shape, dtype=source.dtype, device="meta") for shape in expected[: len(states)]]
    return (result.transpose(0, 1) if batch_first else result, *last)


def _tensors(given: object) -> list[Tensor]:
    """Return one tensor or several as a list; what is none is left out."""
    return [value for value in (given if isinstance(given, list | tuple) else [given]) if isinstance(value, Tensor)]
