"""Sums of products of two computed tensors, every dimension named by a letter as in an Einstein sum."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cutback.graph.call import Call, Refused
from cutback.graph.labels import NONE, core, varying_dimensions


@dataclass(frozen=True, eq=False)
class Operand:
    """One of the two factors.

    Attributes:
        labels: its labels.
        letters: one letter a dimension.
        argument: its name in the operator's schema; empty for a result in between.
        position: its place in the argument, where that is a list.
    """

    labels: Tensor
    letters: str
    argument: str = ""
    position: int | None = None

    def size(self, letter: str) -> int:
        """Return the size of a dimension; 1 where the operand does not have it."""
        return self.labels.size(self.letters.index(letter)) if letter in self.letters else 1

    @property
    def varying(self) -> str:
        """The letters along which the labels differ."""
        return "".join(self.letters[dimension] for dimension in varying_dimensions(self.labels))


def contract(call: Call, left: Operand, right: Operand, result: str, shape: Sequence[int]) -> Tensor:
    """Label a sum of products of two computed tensors.

    Channels that are summed over are united pairwise, position by position, and belong to nobody afterwards; the
    proof's reference sees only those that stay. Otherwise the labels of the operand that carries some are passed on.

    Args:
        call: the call, or a part of it.
        left: the first factor.
        right: the second.
        result: the letters of the result.
        shape: its shape.

    Raises:
        Refused: both carry channels that the result would need two labels an element for.
    """
    operands = (left, right)
    for operand, other in ((left, right), (right, left)):
        if len(set(operand.letters)) < len(operand.letters):
            raise Refused("takes a diagonal")
        if any(letter not in result and letter not in other.letters for letter in operand.varying):
            raise Refused("adds up channels of one factor")
    varying = call.decide([operand.varying for operand in operands])
    summed = [letter for letter in left.letters if letter in right.letters and letter not in result]
    inside = [any(letter in summed for letter in letters) for letters in varying]
    if all(inside):
        _unite(call, left, right, [letter for letter in left.letters if letter in varying[0] + varying[1]])
        for operand in operands:
            if operand.argument:
                call.silence(operand.argument, operand.labels, operand.position)
        call.assume(left.labels, "adds up products over channels, whose number the model's code then uses")
        return unlabelled(call, shape)
    if any(inside):
        # The other factor's size does not follow along what is summed over, so none of these channels may go.
        meets, carries = (left, right) if inside[0] else (right, left)
        call.keep(meets.labels, "is multiplied with a tensor that has no channels along what is summed over")
        varying = call.decide(
            ["" if operand is meets else letters for operand, letters in zip(operands, varying, strict=True)]
        )
        return _carried(carries, result, shape) if any(varying) else unlabelled(call, shape)
    return _passed_on(call, operands, varying, result, shape)


def unlabelled(call: Call, shape: Sequence[int]) -> Tensor:
    """Return labels for a result of this shape none of whose sizes follows a cut."""
    label = call.fresh()
    call.keep(label, "meets a product of two tensors whose sizes stay")
    return label.expand(tuple(shape))


def _passed_on(
    call: Call, operands: tuple[Operand, Operand], varying: Sequence[str], result: str, shape: Sequence[int]
) -> Tensor:
    """Return the labels of the factor that carries some, none being summed over."""
    left, right = operands
    free = [
        any(letter not in other.letters for letter in letters)
        for letters, other in zip(varying, (right, left), strict=True)
    ]
    if all(varying):
        if all(free):
            raise Refused("multiplies two tensors that both carry channels, along different dimensions of the result")
        if not any(free):
            _unite(call, left, right, [letter for letter in left.letters if letter in varying[0] + varying[1]])
            return _carried(left, result, shape)
        carries, other = (left, right) if free[0] else (right, left)
        call.keep(other.labels, "holds one number for several channels of what it is multiplied with")
        return _carried(carries, result, shape)
    if not any(varying):
        return unlabelled(call, shape)
    carries, other = (left, right) if varying[0] else (right, left)
    lone = varying[0] or varying[1]
    if not any(free) and call.decide(any(other.size(letter) > 1 for letter in lone)):
        call.keep(carries.labels, "is multiplied with a tensor that has as many numbers whatever goes")
    return _carried(carries, result, shape)


def _carried(operand: Operand, result: str, shape: Sequence[int]) -> Tensor:
    """Return an operand's labels in the result's dimensions."""
    labels = core(operand.labels)
    gone = [d for d, letter in enumerate(operand.letters) if letter not in result]
    for dimension in reversed(gone):
        labels = labels.select(dimension, 0)
    letters = [letter for letter in operand.letters if letter in result]
    present = [letter for letter in result if letter in letters]
    labels = labels.permute([letters.index(letter) for letter in present])
    for dimension, letter in enumerate(result):
        if letter not in letters:
            labels = labels.unsqueeze(dimension)
    return labels.expand(tuple(shape))


def _unite(call: Call, left: Operand, right: Operand, letters: Sequence[str]) -> None:
    """Unite two operands pairwise along the letters they share; along others each is united with itself."""
    shared = [letter for letter in letters if letter in right.letters]
    sizes = [max(left.size(letter), right.size(letter)) for letter in shared]
    first, second = (_table(call, operand, shared).expand(sizes) for operand in (left, right))
    call.unite(first, second)
    for one, other in ((first, second), (second, first)):
        call.keep(one[other == NONE], "is multiplied with something constant")


def _table(call: Call, operand: Operand, shared: Sequence[str]) -> Tensor:
    """Return labels along the shared letters only, those along all others united with the first."""
    order = [operand.letters.index(letter) for letter in shared]
    rest = [dimension for dimension in range(len(operand.letters)) if dimension not in order]
    table = core(operand.labels).permute([*order, *rest]).flatten(len(order)) if rest else None
    if table is None:
        return core(operand.labels).permute(order)
    call.unite(table[..., :1].expand(*table.shape[:-1], table.shape[-1] - 1), table[..., 1:])
    return table[..., 0]


def letters_of_product(left: int, right: int) -> tuple[str, str, str]:
    """Name the dimensions of a matrix product of tensors of so many dimensions.

    Returns:
        The letters of the first, of the second and of the result.

    Example:
        >>> letters_of_product(3, 2)
        ('aik', 'kj', 'aij')
    """
    batch = "abcdefgh"[: max(left, right, 2) - 2]
    rows, columns = ("i" if left > 1 else ""), ("j" if right > 1 else "")
    first = (batch[len(batch) - max(left - 2, 0) :]) + rows + "k"
    second = (batch[len(batch) - max(right - 2, 0) :]) + "k" + columns
    return first, second, batch + rows + columns


def product(call: Call, left: Operand, right: Operand, shape: Sequence[int]) -> Tensor:
    """Label a matrix product, leading dimensions broadcast as ``torch.matmul`` does; letters are given by this."""
    first, second, result = letters_of_product(left.labels.dim(), right.labels.dim())
    return contract(
        call,
        Operand(left.labels, first, left.argument, left.position),
        Operand(right.labels, second, right.argument, right.position),
        result,
        shape,
    )
