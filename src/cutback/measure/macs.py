"""Multiply-accumulates (MACs): convolutions, linear layers and matrix products only, for a batch of one.

Recurrent layers count as the linear layers they are made of, used once a step.
"""

import math
from collections.abc import Mapping, Sequence
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
_RECURRENT = {f"aten::{kind}" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
_CELLS = {f"{kind}_cell" for kind in _RECURRENT}


@dataclass(frozen=True)
class MacTerm:
    """MACs of one call, for a batch of one.

    Attributes:
        state: the weight, where it is a parameter: the MACs are ``positions`` times its size; else empty.
        positions: how often each weight is used, or all MACs where there is no weight.
        factors: the computed tensors that are multiplied. Where there is no weight, or a weight for places whose
            channels stand beside them (token mixing), the MACs are in proportion to the elements of the one of them
            that carries channels.
    """

    state: str
    positions: Fraction
    factors: tuple[fx.Node, ...] = ()


def mac_terms(recorded: Capture) -> list[MacTerm]:
    """Return the MACs of each contraction of a captured forward pass; what computes a weight is not one of them."""
    return [term for terms in _terms_by_call(recorded).values() for term in terms]


def macs_by_call(recorded: Capture) -> dict[fx.Node, int]:
    """Return the MACs of each call of a captured forward pass that has some, for its whole batch."""
    batch, shapes = samples(recorded), _state_shapes(recorded)
    found = _terms_by_call(recorded)
    return {node: int(batch * sum(_macs(term, shapes) for term in terms)) for node, terms in found.items() if terms}


def _terms_by_call(recorded: Capture) -> dict[fx.Node, list[MacTerm]]:
    """Return the contractions of each call."""
    states = dict(zip(recorded.nodes, recorded.states, strict=False))
    named = set(states)
    mark_weights(recorded.nodes, named)
    batch = samples(recorded)
    found: dict[fx.Node, list[MacTerm]] = {}
    for node in recorded.nodes:
        terms = found[node] = []
        name = "" if computes_weight(node) else getattr(getattr(node.target, "_schema", None), "name", "")
        if name in _CONVOLUTIONS or name in _TRANSPOSED or name == "aten::linear":
            source, weight = node.args[0], node.args[1]
            factors, size = _computed((source,), states), _shape(weight)
            if name in _CONVOLUTIONS:
                positions = math.prod(_shape(node)) // size[0]
            else:
                channels = size[0] if name in _TRANSPOSED else size[1]
                positions = math.prod(_shape(source)) // channels
            weight = source_of(weight, named) or weight if isinstance(weight, fx.Node) else weight
            if weight in states:
                terms.append(MacTerm(states[weight], Fraction(positions, batch), factors))
            else:
                terms.append(MacTerm("", Fraction(positions * math.prod(size), batch), factors))
        elif name in _RECURRENT | _CELLS:
            steps = math.prod(_shape(node.args[0])[:-1])
            weights = node.args[2:4] if name in _CELLS else _recurrent_weights(node)
            terms += [_product(steps * math.prod(_shape(weight)), (weight,), states, batch) for weight in weights]
        elif name in _PRODUCTS | _ADDED_PRODUCTS:
            operands = node.args[1:3] if name in _ADDED_PRODUCTS else node.args[:2]
            terms.append(_product(math.prod(_shape(node)) * _shape(operands[0])[-1], operands, states, batch))
        elif name == _ATTENTION:
            query, key, value = node.args[:3]
            pairs = math.prod(_shape(query)[:-1]) * _shape(key)[-2]
            terms.append(_product(pairs * _shape(query)[-1], (query, key), states, batch))
            terms.append(_product(pairs * _shape(value)[-1], (value,), states, batch))
        elif name == _EINSUM:
            operands = tuple(node.args[1])  # type: ignore[arg-type]
            total = _einsum(str(node.args[0]), [_shape(operand) for operand in operands])
            terms.append(_product(total, operands, states, batch))
    return found


def count_macs(recorded: Capture) -> int:
    """Return the MACs of a captured forward pass, for a batch of one."""
    shapes = _state_shapes(recorded)
    return int(sum(_macs(term, shapes) for term in mac_terms(recorded)))


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


def _macs(term: MacTerm, shapes: Mapping[str, tuple[int, ...]]) -> Fraction:
    """Return the MACs of a term, for a batch of one, given the shapes of parameters and buffers."""
    return term.positions * (math.prod(shapes[term.state]) if term.state else 1)


def _state_shapes(recorded: Capture) -> dict[str, tuple[int, ...]]:
    """Return the shapes of parameters and buffers, by name."""
    return {name: _shape(node) for name, node in zip(recorded.states, recorded.nodes, strict=False)}


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


def _product(total: int, operands: Sequence[object], states: Mapping[fx.Node, str], batch: int) -> MacTerm:
    """Return the MACs of a product of at most two operands, or of several; those of a weight where one is a parameter.

    Args:
        total: MACs of the whole batch.
        operands: what is multiplied.
        states: parameters and buffers by their node.
        batch: how many samples that were.
    """
    weights = [operand for operand in operands if isinstance(operand, fx.Node) and operand in states]
    factors = _computed(operands, states)
    if len(weights) == 1 and len(operands) <= 2:
        return MacTerm(states[weights[0]], Fraction(total, batch * max(math.prod(_shape(weights[0])), 1)), factors)
    return MacTerm("", Fraction(total, batch), factors)


def _computed(operands: Sequence[object], states: Mapping[fx.Node, str]) -> tuple[fx.Node, ...]:
    """Return the operands that are no parameters."""
    return tuple(operand for operand in operands if isinstance(operand, fx.Node) and operand not in states)


def _recurrent_weights(node: fx.Node) -> list[object]:
    """Return the weights of all layers and directions of a recurrent layer; biases are no matrices."""
    weights = node.args[3] if isinstance(node.args[3], list | tuple) else node.args[2]  # packed sequences: one later
    return [weight for weight in weights if len(_shape(weight)) > 1]  # type: ignore[union-attr]


def _shape(node: object) -> tuple[int, ...]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor in the captured graph, found {node}")
    return tuple(value.shape)
