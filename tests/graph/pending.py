"""Blocks and planted couplings that cutback does not follow yet, each with a part of the reason it gives today.

What is listed here must still fail, and for its reason: what works is taken off the list.
"""

_UNBIND = "aten::unbind: picks channels by position"
_SELECT = "aten::select: picks channels by position"
_ATTENTION = "aten::scaled_dot_product_attention: no rule says what this operator does to channels"
_PACKED = "aten::linear: the model's code fixes a size that meets these channels here"
_EINSUM = "aten::einsum: no rule says what this operator does to channels"
_COMPUTED = "aten::conv2d: its weight is computed in forward, not a parameter"

PENDING: dict[str, str] = {
    "attention, encoder": _PACKED,
    "attention, fused": _UNBIND,
    "attention, fused, free": _UNBIND,
    "attention, fused, functional": _UNBIND,
    "attention, fused, outer sizes": "aten::reshape: has the size 8 written as a literal",
    "attention, module": _PACKED,
    "attention, module, weights": _PACKED,
    "attention, separate": _ATTENTION,
    "attention, separate, scaled": _ATTENTION,
    "class token": _SELECT,
    "einsum, convolution": _EINSUM,
    "einsum, scale": _EINSUM,
    "einsum, tokens": _EINSUM,
    "embedding": "aten::embedding: looks up channels by position",
    "gain of filters": _COMPUTED,
    "gru": "aten::gru: no rule says what this operator does to channels",
    "gru, two layers both ways": "aten::gru: no rule says what this operator does to channels",
    "lstm": "aten::lstm: no rule says what this operator does to channels",
    "lstm, no bias": "aten::lstm: no rule says what this operator does to channels",
    "lstm, two layers both ways": "aten::lstm: no rule says what this operator does to channels",
    "parametrized": _COMPUTED,
    "rnn": "aten::rnn_tanh: no rule says what this operator does to channels",
    "rnn, relu": "aten::rnn_relu: no rule says what this operator does to channels",
    "roll": "aten::roll: moves or picks channels by position",
    "select": _SELECT,
    "spectral norm": _COMPUTED,
    "strided slices": "aten::slice: takes 6 of 12 channels by position",
    "sum of kernels": _COMPUTED,
    "unbind": _UNBIND,
    "weight norm": _COMPUTED,
    "weight norm, old": _COMPUTED,
    "weight standardisation": _COMPUTED,
}

PENDING_COUPLINGS: dict[str, str] = {
    "attention, fused": _UNBIND,
    "attention, module": _PACKED,
    "attention, separate": _ATTENTION,
    "attention, unscaled": _ATTENTION,
    "einsum": _EINSUM,
    "gru": "aten::gru: no rule says what this operator does to channels",
    "lstm": "aten::lstm: no rule says what this operator does to channels",
    "parametrization": _COMPUTED,
    "rnn": "aten::rnn_tanh: no rule says what this operator does to channels",
    "roll by half": "aten::roll: moves or picks channels by position",
    "select": _SELECT,
    "strided slices": "aten::slice: takes 3 of 6 channels by position",
    "sum of kernels": _COMPUTED,
    "unbind": _UNBIND,
    "weight norm": _COMPUTED,
}
"""The same of planted couplings."""
