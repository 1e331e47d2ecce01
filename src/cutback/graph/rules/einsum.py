"""Einstein sums and batched products: of two computed tensors, or of one and a parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import NONE, core, spread, varies
from cutback.graph.rules.pointwise import paired
from cutback.graph.rules.sums import Operand, contract, letters_of_product, product
from cutback.graph.rules.vectors import vector_along
from cutback.graph.states import State


@rules.register("aten::bmm")
def batched_product(call: Call) -> Labels:
    """Label a product of two batches of matrices."""
    return product_of_two(call, "self", "mat2")


@rules.register("aten::baddbmm")
def batched_product_and_shift(call: Call) -> Labels:
    """As ``batched_product``, with a tensor added."""
    summed = product_of_two(call, "batch1", "batch2")
    return paired(call, [call.labels("self"), summed], call.shape)


@rules.register("aten::einsum")
def einsum(call: Call) -> Labels:
    """Label an Einstein sum of two operands."""
    operands = list(call.arguments["tensors"])  # type: ignore[call-overload]
    equation = str(call.arguments["equation"])
    if len(operands) != 2:
        raise Refused(f"has {len(operands)} operands")
    shapes = [value.shape for value in operands]
    (first, second), result = _letters(equation, [len(shape) for shape in shapes])
    named = list(zip(operands, (first, second), range(2), strict=True))
    states = [isinstance(value, State) for value in operands]
    if sum(states) == 1:
        (weight, own, _), (source, letters, _) = sorted(named, key=lambda item: not isinstance(item[0], State))
        return with_parameter(call, Operand(call.as_labels(source), letters), weight, own, result)
    left, right = (Operand(call.as_labels(value), letters, "tensors", n) for value, letters, n in named)
    return contract(call, left, right, result, call.shape)


def product_of_two(call: Call, left: str, right: str) -> Tensor:
    """Label a matrix product as ``torch.matmul`` writes it, of two computed tensors or of one and a parameter.

    Args:
        call: the call.
        left: name of the first argument.
        right: name of the second.
    """
    first, second = call.arguments[left], call.arguments[right]
    if isinstance(first, State) != isinstance(second, State):
        letters, others, result = letters_of_product(*(len(value.shape) for value in (first, second)))  # type: ignore[attr-defined]
        if isinstance(first, State):
            return with_parameter(call, Operand(call.as_labels(second), others), first, letters, result)
        return with_parameter(call, Operand(call.as_labels(first), letters), second, others, result)  # type: ignore[arg-type]
    return product(call, Operand(call.labels(left), "", left), Operand(call.labels(right), "", right), call.shape)


def with_parameter(call: Call, operand: Operand, weight: State, own: str, result: str) -> Tensor:
    """Label a sum of products of a computed tensor and a parameter: a linear layer under another name.

    Where the channels are summed over, they go with slices of the parameter along that dimension, and its last other
    dimension, if it has one, makes the labels. Where they are not, they are passed on and the parameter stays whole.
    Where nothing is summed over, it is an element-wise product.

    Args:
        call: the call.
        operand: the computed tensor.
        weight: the parameter.
        own: its letters.
        result: the letters of the result.
    """
    summed = [letter for letter in operand.letters if letter in own and letter not in result]
    lone = [letter for letter in operand.letters + own if letter not in result and letter not in summed]
    diagonal = len({*own}) < len(own) or len({*operand.letters}) < len(operand.letters)
    if not (lone or summed or diagonal):
        factors = ((operand.labels, operand.letters), (call.as_labels(weight), own))
        return paired(call, [_laid_out(labels, letters, result) for labels, letters in factors], call.shape)
    if lone or not summed or diagonal:
        raise Refused("is a sum of products with a parameter that is no contraction")
    varying = call.decide(operand.varying)
    made = [letter for letter in own if letter in result and letter not in operand.letters]
    inside = [letter for letter in summed if letter in varying]
    if varying and not inside:
        call.keep_state(weight, "mixes positions of a dimension that carries no channels")
        return _carried_past(call, operand, result)
    if any(letter in operand.letters for letter in own if letter in result):
        raise Refused("multiplies by another matrix of a parameter at each place")
    along = call.decide((inside or [letter for letter in summed if operand.size(letter) > 1] or summed)[-1])
    incoming = vector_along(call, operand.labels, operand.letters.index(along))
    call.tie(incoming, weight, own.index(along), "column")
    if not made:  # a weighted sum over channels belongs to none of them, as the scores of attention pooling
        call.assume(incoming, "adds up products over channels, whose number the model's code then uses")
        return torch.full((), NONE).expand(call.shape)
    last = call.decide(max((letter for letter in made), key=result.index))
    return spread(call.made(weight, own.index(last), "filter"), result.index(last), call.shape)


def _laid_out(labels: Tensor, letters: str, result: str) -> Tensor:
    """Return labels with a dimension for each letter of the result, of size 1 where they do not have it."""
    labels = labels.permute([letters.index(letter) for letter in result if letter in letters])
    return labels[tuple(slice(None) if letter in letters else None for letter in result)]


def _carried_past(call: Call, operand: Operand, result: str) -> Tensor:
    """Return the labels of an operand whose unlabelled positions are mixed by a parameter."""
    labels = core(operand.labels)
    sizes = [operand.labels.size(d) if varies(operand.labels, d) else 1 for d in range(labels.dim())]
    labels = labels.expand(sizes)
    kept = [letter for letter in operand.letters if letter in result]
    index = tuple(slice(None) if letter in kept else 0 for letter in operand.letters)
    labels = labels[index].permute([kept.index(letter) for letter in result if letter in kept])
    return labels[tuple(slice(None) if letter in kept else None for letter in result)].expand(call.shape)


def _letters(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Read an equation: the letters of each operand and of the result, what an ellipsis stands for being numbered.

    Raises:
        Refused: it cannot be read.
    """
    written, arrow, result = equation.replace(" ", "").partition("->")
    parts = written.split(",")
    hidden = 0
    operands: list[str] = []
    for part, rank in zip(parts, ranks, strict=True):
        before, dots, after = part.partition("...")
        count = rank - len(before) - len(after)
        if count < 0 or (count and not dots):
            raise Refused("has an equation that does not fit")
        hidden = max(hidden, count)
        operands.append(before + "".join(chr(0x2460 + n) for n in range(count))[::-1] + after)
    if not arrow:
        every = "".join(operands)
        plain = sorted(letter for letter in {*every} if letter.isalpha() and every.count(letter) == 1)
        result = "..." * bool(hidden) + "".join(plain)
    return operands, result.replace("...", "".join(chr(0x2460 + n) for n in range(hidden))[::-1])
