"""Operators that compute each element from the elements at its place: they unite what they pair one to one."""

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import NONE, compact, core, varies, varying_dimensions
from cutback.graph.states import State

_ALIASES = ("alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "to", "type_as", "_to_copy")
_UNARY = (
    *("abs", "celu", "elu", "erf", "exp", "expm1", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh"),
    *("leaky_relu", "log", "log1p", "log2", "log_sigmoid", "mish", "neg", "negative", "reciprocal", "relu", "relu6"),
    *("round", "floor", "ceil", "rrelu", "rsqrt", "selu", "sigmoid", "sign", "silu", "sin", "cos", "softplus"),
    *("softshrink", "sqrt", "square", "tan", "tanh", "tanhshrink", "atan", "threshold", "nan_to_num", "bitwise_not"),
    *("logical_not", "isnan", "isinf", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
    *("native_dropout", "zeros_like", "ones_like", "full_like", "empty_like"),
    *("fill", "zero", "masked_fill", "hard_sigmoid", "fake_quantize_per_tensor_affine"),
)
_SEVERAL = (
    *("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "true_divide", "floor_divide", "pow"),
    *("maximum", "minimum", "fmax", "fmin", "where", "addcmul", "addcdiv", "lerp", "atan2", "remainder", "fmod"),
    *("clamp", "clamp_min", "clamp_max", "clip", "copy", "eq", "ne", "lt", "le", "gt", "ge", "xlogy", "hypot"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "logical_and", "logical_or", "logical_xor", "__and__", "__or__"),
)


@rules.register(*(f"aten::{name}" for name in _ALIASES))
def same(call: Call) -> Labels:
    """Give the labels of the first argument; a parameter stays a parameter."""
    first = next(iter(call.arguments.values()))
    return first if isinstance(first, State) else call.as_labels(first)


@rules.register(*(f"aten::{name}" for name in (*_UNARY, *_SEVERAL)))
def pointwise(call: Call) -> Labels:
    """Unite the labels at each place; an operand broadcast over several labels unites nothing and keeps its own."""
    operands = call.operands()
    if len(operands) == 1 and operands[0].shape == call.shape:
        return operands[0]
    return paired(call, operands, call.shape)


@rules.register("aten::bernoulli", "aten::rand_like", "aten::randn_like", "aten::normal", "aten::uniform")
def random(call: Call) -> Labels:
    """Draw numbers in the shape of the first argument; for each channel its own they would change with a cut."""
    labels = call.as_labels(next(iter(call.arguments.values())))
    if varying_dimensions(labels):
        raise Refused("draws random numbers for each channel")
    return labels


def paired(call: Call, operands: list[Tensor], shape: torch.Size) -> Tensor:
    """Unite operands that are broadcast together and return the labels of the result.

    Args:
        call: the call they are operands of.
        operands: label tensors that broadcast to ``shape``.
        shape: shape of the result.
    """
    aligned = [labels[(None,) * (len(shape) - labels.dim())] for labels in operands]
    varied = {d for labels in aligned for d in range(len(shape)) if varies(labels, d)}
    whole = call.decide([all(labels.size(d) == shape[d] for d in varied) for labels in aligned])
    full = [labels for labels, is_whole in zip(aligned, whole, strict=True) if is_whole]
    for labels, is_whole in zip(aligned, whole, strict=True):
        if not is_whole:
            _keep_beside(call, labels, full)
    if not full:
        return call.kept_result("combines operands that vary along different dimensions")  # type: ignore[return-value]
    sizes = [shape[d] if d in varied else 1 for d in range(len(shape))]
    # First the one that is constant along most dimensions: what is united with it need not be told apart any more.
    order = call.decide(sorted(range(len(full)), key=lambda number: len(varying_dimensions(full[number]))))
    full = [full[number] for number in order]
    if call.decide(not bool((core(full[0]) == NONE).any())):
        for labels in full[1:]:
            call.unite(core(full[0]).expand(sizes), core(labels).expand(sizes))
        return full[0].expand(shape)
    merged = core(full[0]).expand(sizes)
    for labels in full[1:]:
        other = core(labels).expand(sizes)
        call.unite(merged, other)
        merged = torch.where(merged == NONE, other, merged) if bool((merged == NONE).any()) else merged
    return merged.expand(shape)


def _keep_beside(call: Call, labels: Tensor, full: list[Tensor]) -> None:
    """Keep an operand that is broadcast over several channels; the others must keep as many places as it has."""
    call.keep(labels, "is broadcast over several channels")
    shared = call.decide([dimension for dimension in range(labels.dim()) if labels.size(dimension) > 1])
    for other in full:
        if any(varies(other, dimension) for dimension in shared):
            call.assume(other, "is combined with what is broadcast over several channels")


@rules.register("aten::glu")
def glu(call: Call) -> Labels:
    """Unite the two halves position by position."""
    labels = call.labels("self")
    first, second = labels.chunk(2, int(call.arguments["dim"]))  # type: ignore[call-overload]
    if first.shape != second.shape:
        raise Refused("halves an odd number of channels")
    call.unite(first, second)
    return compact(first)


@rules.register("aten::prelu")
def prelu(call: Call) -> Labels:
    """Tie the slopes to the channels, or keep a single slope."""
    labels, weight = call.labels("self"), call.state("weight")
    if weight is None or weight.shape.numel() == 1:
        return labels
    index = [0] * labels.dim()
    call.tie(labels[(index[0], slice(None), *index[2:])], weight, 0, "norm")
    return labels
