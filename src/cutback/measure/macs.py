"""Multiply-accumulates (MACs): convolutions, linear layers and matrix products only, for a batch of one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, fx, nn

from cutback.graph.capture import Capture, capture
from cutback.graph.inputs import Inputs
from cutback.graph.unwrap import unwrapped
from cutback.graph.weights import computes_weight, mark_weights, source_of
from cutback.measure.batch import samples

_CONVOLUTIONS = {f"aten::conv{n}d" for n in (1, 2, 3)}
_TRANSPOSED = {f"aten::conv_transpose{n}d" for n in (1, 2, 3)}
_PRODUCTS = {f"aten::{name}" for name in ("matmul", "linalg_matmul", "mm", "bmm", "mv", "dot", "inner")}
_ADDED_PRODUCTS = {f"aten::{name}" for name in ("addmm", "baddbmm", "addmv")}
_EINSUM = "aten::einsum"
_ATTENTION = "aten::scaled_dot_product_attention"


@dataclass(frozen=True)
class MacTerm:
    """MACs of one call, for a batch of one.

    Attributes:
        state: the weight, where it is a parameter: the MACs are ``positions`` times its size; else empty.
        positions: how often each weight is used, or all MACs where there is no weight.
    """

    state: str
    positions: Fraction


def mac_terms(recorded: Capture) -> list[MacTerm]:
    """Return the MACs of each contraction of a captured forward pass; what computes a weight is not one of them."""
    states = dict(zip(recorded.nodes, recorded.states, strict=False))
    named = set(states)
    mark_weights(recorded.nodes, named)
    batch = samples(recorded)
    terms: list[MacTerm] = []
    for node in recorded.nodes:
        name = "" if computes_weight(node) else getattr(getattr(node.target, "_schema", None), "name", "")
        if name in _CONVOLUTIONS or name in _TRANSPOSED or name == "aten::linear":
            source, weight = node.args[0], node.args[1]
            size = _shape(weight)
            if name in _CONVOLUTIONS:
                positions = math.prod(_shape(node)) // size[0]
            else:
                channels = size[0] if name in _TRANSPOSED else size[1]
                positions = math.prod(_shape(source)) // channels
            weight = source_of(weight, named) or weight if isinstance(weight, fx.Node) else weight
            if weight in states:
                terms.append(MacTerm(states[weight], Fraction(positions, batch)))
            else:
                terms.append(MacTerm("", Fraction(positions * math.prod(size), batch)))
        elif name in _PRODUCTS | _ADDED_PRODUCTS:
            left, right = node.args[1:3] if name in _ADDED_PRODUCTS else node.args[:2]
            rows = Fraction(math.prod(_shape(node)), batch)
            if right in states and len(_shape(right)) == 2:
                terms.append(MacTerm(states[right], rows / _shape(right)[1]))
            else:
                terms.append(MacTerm("", rows * _shape(left)[-1]))
        elif name == _ATTENTION:
            query, key, value = (_shape(argument) for argument in node.args[:3])
            per_pair = query[-1] + value[-1]
            terms.append(MacTerm("", Fraction(math.prod(query[:-1]) * key[-2] * per_pair, batch)))
        elif name == _EINSUM:
            shapes = [_shape(operand) for operand in node.args[1]]  # type: ignore[union-attr]
            terms.append(MacTerm("", Fraction(_einsum(str(node.args[0]), shapes), batch)))
    return terms


def count_macs(recorded: Capture) -> int:
    """Return the MACs of a captured forward pass, for a batch of one."""
    shapes = {name: _shape(node) for name, node in zip(recorded.states, recorded.nodes, strict=False)}
    return int(sum(t.positions * (math.prod(shapes[t.state]) if t.state else 1) for t in mac_terms(recorded)))


def macs(model: nn.Module, example_inputs: object) -> int:
    """Count the MACs of a model in eval mode, for a batch of one.

    Args:
        model: any module; wrappers (DDP, ``torch.compile``) are looked through.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        CaptureError: the model could not be run on the inputs.

    Example:
        >>> from torch import nn, zeros
        >>> macs(nn.Conv2d(3, 8, 3, padding=1), zeros(1, 3, 10, 10))
        21600
    """
    return count_macs(capture(unwrapped(model), Inputs.of(example_inputs), training=False))


def params(model: nn.Module) -> int:
    """Count the elements of all parameters, tied ones once; buffers are not parameters."""
    return sum(parameter.numel() for parameter in unwrapped(model).parameters())


def _einsum(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the MACs of an Einstein sum that is worked off from left to right; a step that sums nothing is free."""
    written, _, result = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    operands: list[set[str]] = []
    for operand, shape in zip(written.split(","), shapes, strict=True):
        before, ellipsis, after = operand.partition("...")
        hidden = [str(number) for number in range(len(shape) - len(before + after), 0, -1)] if ellipsis else []
        names = [*before, *hidden, *after]
        sizes |= {name: max(size, sizes.get(name, 1)) for name, size in zip(names, shape, strict=True)}
        operands.append(set(names))
    if "->" not in equation:
        result = "".join(name for name in sizes if written.count(name) == 1)
    stays = {*result, *(name for name in sizes if name.isdigit())}
    total, current = 0, operands[0]
    for number, operand in enumerate(operands[1:], start=1):
        paired = current | operand
        current = paired & stays.union(*operands[number + 1 :])
        total += math.prod(sizes[name] for name in paired) if current < paired else 0
    return total


def _shape(node: object) -> tuple[int, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor in the captured graph, found {node}")
    return tuple(value.shape)
