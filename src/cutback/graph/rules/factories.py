"""Tensors created in forward: equal numbers stay right at any size, others must keep the size they were given."""

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules

_EQUAL = ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
_UNEQUAL = ("rand", "randn", "randint", "randperm", "arange", "linspace", "eye", "scalar_tensor", "tensor")


@rules.register(*(f"aten::{name}" for name in _EQUAL))
def equal(call: Call) -> Labels:
    """Give a constant, whose sizes are taken to follow the channels it meets."""
    fill = call.arguments.get("fill_value")
    if call.decide(fill) != fill:
        raise Refused("fills with a number that changes with the width")
    nothing = torch.zeros((), dtype=torch.int64).expand(call.shape)
    if any(size > 1 for size in call.shape):
        call.assume(nothing, f"creates a tensor of the literal sizes {tuple(call.shape)}")
    return nothing


@rules.register(*(f"aten::{name}" for name in _UNEQUAL))
def unequal(call: Call) -> Labels:
    """Give one kept label to the whole tensor; a single number is a constant."""
    if isinstance(call.values, Tensor) and call.values.numel() == 1:
        return torch.zeros((), dtype=torch.int64).expand(call.values.shape)
    return call.kept_result("a tensor created with sizes of its own")
