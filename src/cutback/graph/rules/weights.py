"""Operators between parameters and the weight that is computed from them: weight norms, standardised or summed kernels.

Each layer of labels goes through by itself; what is computed across a layer sees only what stays.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules, weight_rules
from cutback.graph.labels import NONE, core, varying_dimensions
from cutback.graph.states import State
from cutback.graph.weights import ComputedWeight, Layer, computes_weight

_MOVEMENT = (
    *("view", "reshape", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten", "permute", "transpose", "t"),
    *("mT", "numpy_T", "movedim", "unsqueeze", "squeeze", "flip", "pad", "constant_pad_nd"),
)
_ELEMENTWISE = (
    *("clone", "contiguous", "detach", "alias", "to", "_to_copy", "type_as", "lift_fresh_copy", "zeros_like"),
    *("ones_like", "abs", "exp", "log", "neg", "reciprocal", "relu", "rsqrt", "sigmoid", "sqrt", "square", "softplus"),
    *("tanh", "clamp", "clamp_min", "clamp_max", "add", "sub", "rsub", "mul", "div", "pow", "maximum", "minimum"),
    *("addcmul", "addcdiv", "lerp", "where", "sign", "round", "floor", "eq", "ne", "lt", "le", "gt", "ge"),
)
_REDUCTIONS = ("mean", "sum", "amax", "amin", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm")


@weight_rules.register(*(f"aten::{name}" for name in _ELEMENTWISE))
def elementwise(call: Call) -> Labels:
    """Unite the layers that operands have along the same dimensions; a layer of one operand alone is carried on."""
    operands = [lifted(call, value) for value in call.arguments.values() if _is_tensor(value)]
    result = _combined(call, operands, call.shape)
    schema = call.node.target._schema.arguments  # type: ignore[union-attr]
    written = [argument.name for argument in schema if argument.alias_info is not None and argument.alias_info.is_write]
    for name in written:
        if len(lifted(call, call.arguments[name]).layers) != len(result.layers):
            raise Refused("writes a weight into memory that others may see")
    return result


@weight_rules.register(*(f"aten::{name}" for name in _MOVEMENT))
def moved(call: Call) -> Labels:
    """Run the rule that moves labels on each layer."""
    name = next(iter(call.arguments))
    weight, rule, arguments = lifted(call, call.arguments[name]), rules.get(call.operator), call.arguments

    def one(labels: Tensor) -> Tensor:
        call.arguments = {**arguments, name: labels}
        try:
            return call.as_labels(rule(call))
        finally:
            call.arguments = arguments

    return _each(call, weight, one)


@weight_rules.register("aten::matrix_H")
def transposed(call: Call) -> Labels:
    """Swap the last two dimensions."""
    return _each(call, lifted(call, call.arguments["self"]), lambda labels: labels.mT)


@weight_rules.register("aten::expand", "aten::expand_as")
def expanded(call: Call) -> Labels:
    """Repeat dimensions of size 1; literal sizes are taken to follow."""
    if isinstance(call.arguments.get("size"), list | tuple):
        nothing = torch.zeros((), dtype=torch.int64).expand(call.shape)
        call.assume(nothing, f"expands a weight to the literal sizes {tuple(call.shape)}")
    return _each(call, lifted(call, call.arguments["self"]), lambda labels: labels.expand(call.shape))


@weight_rules.register(*(f"aten::{name}" for name in _REDUCTIONS))
def reduced(call: Call) -> Labels:
    """Drop dimensions: the layers along them are mixed, the others stay."""
    name = next(iter(call.arguments))
    weight = lifted(call, call.arguments[name])
    given = call.arguments.get("dim")
    listed = given if isinstance(given, list | tuple) else [] if given is None else [given]
    rank = len(weight.shape)
    dimensions = sorted(int(d) % rank for d in listed) or list(range(rank))  # type: ignore[call-overload]
    for layer in weight.layers:
        _mix(call, name, layer, dimensions, restored=False)
    values = call.values if isinstance(call.values, list | tuple) else [call.values]
    staying = [layer for layer in weight.layers if not set(layer.dimensions) & set(dimensions)]

    def one(labels: Tensor) -> Tensor:
        for dimension in reversed(dimensions):
            labels = labels.narrow(dimension, 0, 1) if call.arguments.get("keepdim") else labels.select(dimension, 0)
        return labels

    found = _each(call, ComputedWeight(tuple(staying), weight.shape), one, values[0].shape)  # type: ignore[union-attr]
    return [found for _ in values] if isinstance(call.values, list | tuple) else found


@weight_rules.register("aten::batch_norm")
def standardised(call: Call) -> Labels:
    """Standardise along all dimensions but 1, with statistics of the weight itself."""
    if call.arguments.get("running_mean") is not None or not call.arguments["training"]:
        raise Refused("normalises a weight with statistics that are not its own")
    weight = lifted(call, call.arguments["input"])
    rank = len(weight.shape)
    for layer in weight.layers:
        _mix(call, "input", layer, [d for d in range(rank) if d != 1], restored=True)
    scales = [lifted(call, call.arguments[name]) for name in ("weight", "bias") if call.arguments[name] is not None]
    shown = [_each(call, scale, lambda labels: labels.view(-1, *[1] * (rank - 2))) for scale in scales]
    return _combined(call, [weight, *shown], call.shape)


@weight_rules.register("aten::_weight_norm")
def weight_norm(call: Call) -> Labels:
    """Scale a weight to the given norms, taken over all dimensions but one."""
    weight, norms = lifted(call, call.arguments["v"]), lifted(call, call.arguments["g"])
    rank, dimension = len(weight.shape), int(call.arguments["dim"])  # type: ignore[call-overload]
    across = [d for d in range(rank) if dimension == -1 or d != dimension % rank]
    for layer in weight.layers:
        _mix(call, "v", layer, across, restored=True)
    return _combined(call, [weight, norms], call.shape)


@weight_rules.register("aten::mv", "aten::dot", "aten::vdot")
def product(call: Call) -> Labels:
    """Sum over the last dimension of a matrix or a vector and the only one of a vector."""
    names = list(call.arguments)[:2]
    left, right = (lifted(call, call.arguments[name]) for name in names)
    summed = len(left.shape) - 1
    for name, operand in zip(names, (left, right), strict=True):
        for layer in operand.layers:
            _mix(call, name, layer, [len(operand.shape) - 1], restored=False)
    a, b = left.along(summed), right.along(0)
    if call.decide((a is None) != (b is None)):
        raise Refused("sums over rows or columns of a weight and over something constant")
    if a is not None and b is not None:
        call.unite(a.select(0, 0) if summed else a, b)
    rows = ComputedWeight(tuple(layer for layer in left.layers if summed not in layer.dimensions), left.shape)
    return _each(call, rows, lambda labels: labels.select(summed, 0))


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor | State | ComputedWeight)


def lifted(call: Call, value: object) -> ComputedWeight:
    """Return the layers of an operand: of a parameter those of its first two dimensions."""
    if isinstance(value, ComputedWeight):
        return value
    if isinstance(value, State):
        sliced = call.decide([dimension for dimension in (0, 1) if value.shape[dimension : dimension + 1].numel() > 1])
        rows, columns = ("column", "filter") if computes_weight(call.node) == "transposed" else ("filter", "column")
        roles = (rows, columns) if len(sliced) == 2 else ("norm", "norm")
        layers: list[Layer] = []
        for dimension in sliced:
            vector = call.made(value, dimension, roles[dimension])
            sizes = [-1 if d == dimension else 1 for d in range(len(value.shape))]
            layers.append(Layer(vector.view(sizes).expand(value.shape), (dimension,)))
        return ComputedWeight(tuple(layers), value.shape)
    labels = call.as_labels(value)
    if labels.numel() > 1 and bool((core(labels) != NONE).any()):
        raise Refused("combines a weight with a constant tensor")
    return ComputedWeight((), labels.shape)


def _each(
    call: Call, weight: ComputedWeight, function: Callable[[Tensor], Tensor], shape: torch.Size | None = None
) -> ComputedWeight:
    """Apply a function to every layer."""
    layers: list[Layer] = []
    for layer in weight.layers:
        labels = function(layer.labels)
        layers.append(Layer(labels, call.decide(tuple(varying_dimensions(labels)))))
    shape = shape if shape is not None else layers[0].labels.shape if layers else call.shape
    return ComputedWeight(tuple(layers), shape)


def _mix(call: Call, name: str, layer: Layer, dimensions: Sequence[int], *, restored: bool) -> None:
    """Note that a layer is mixed along dimensions, if it lies along them."""
    mixed = [dimension for dimension in layer.dimensions if dimension in dimensions]
    if not mixed:
        return
    if len(mixed) < len(layer.dimensions):
        raise Refused("computes across a part of what belongs to one row or column of a weight")
    call.mix(name, layer.labels, mixed, restored=restored)


def _combined(call: Call, operands: Sequence[ComputedWeight], shape: torch.Size) -> ComputedWeight:
    """Unite the layers of operands that are broadcast together."""
    found: dict[tuple[int, ...], Tensor] = {}
    for operand in operands:
        lead = len(shape) - len(operand.shape)
        for layer in operand.layers:
            dimensions = tuple(dimension + lead for dimension in layer.dimensions)
            labels = layer.labels[(None,) * lead]
            narrow = core(labels).expand([shape[d] if d in dimensions else 1 for d in range(len(shape))])
            other = found.get(dimensions)
            if other is not None:
                call.unite(other, narrow)
            elif any(set(dimensions) & set(known) for known in found):
                raise Refused("combines rows of a weight with columns of another")
            found.setdefault(dimensions, narrow)
    layers = (Layer(labels.expand(shape), dimensions) for dimensions, labels in found.items())
    return ComputedWeight(tuple(layers), shape)
