"""The results of recurrent layers on meta tensors are those of the kernels, in shape and in memory."""

from itertools import product

import pytest
import torch
from torch import nn

from cutback.graph.recurrent_shapes import recurrent_result

OPERATORS = {
    "LSTM": torch.ops.aten.lstm.input,
    "GRU": torch.ops.aten.gru.input,
    "RNN": torch.ops.aten.rnn_tanh.input,
}
BATCH, STEPS, WIDTH, HIDDEN = 2, 3, 6, 5
CASES = [
    (kind, *rest)
    for kind, *rest in product(OPERATORS, (1, 2), (False, True), (False, True), (True, False), (0, 4))
    if kind == "LSTM" or not rest[-1]
]


def arguments(kind, layers, bidirectional, batch_first, bias, projected):
    options = {"proj_size": projected} if projected else {}
    layer = getattr(nn, kind)(
        WIDTH, HIDDEN, layers, bidirectional=bidirectional, batch_first=batch_first, bias=bias, **options
    )
    source = torch.zeros((BATCH, STEPS, WIDTH) if batch_first else (STEPS, BATCH, WIDTH))
    count = layers * (2 if bidirectional else 1)
    states = [torch.zeros(count, BATCH, projected or HIDDEN), torch.zeros(count, BATCH, HIDDEN)]
    weights = [weight.detach() for weight in layer._flat_weights]
    given = states if kind == "LSTM" else states[0]
    return [source, given, weights, bias, layers, 0.0, False, bidirectional, batch_first]


def on_meta(value):
    if isinstance(value, list):
        return [on_meta(item) for item in value]
    return value.to("meta") if isinstance(value, torch.Tensor) else value


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_are_those_of_the_kernels(case) -> None:
    operator, args = OPERATORS[case[0]], arguments(*case)
    found = recurrent_result(operator, on_meta(args))
    assert found is not None
    expected = operator(*args)
    assert [(t.shape, t.stride(), t.dtype) for t in found] == [(t.shape, t.stride(), t.dtype) for t in expected]
    assert all(t.device.type == "meta" for t in found)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_what_does_not_fit_is_left_to_the_kernel(wrong) -> None:
    args = on_meta(arguments("GRU", 2, True, True, True, 0))
    narrow = args[wrong][0] if wrong == 2 else args[wrong]
    narrow = narrow[..., :-1]
    args[wrong] = [narrow, *args[2][1:]] if wrong == 2 else narrow
    assert recurrent_result(torch.ops.aten.gru.input, args) is None
