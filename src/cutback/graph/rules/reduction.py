"""Reductions and softmax: over dimensions that carry channels they mix them."""

import operator

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import core, varies, varying_dimensions
from cutback.graph.rules.vectors import merged_over

_REDUCTIONS = (
    *("mean", "sum", "amax", "amin", "var", "std", "prod", "linalg_vector_norm", "norm", "logsumexp", "max", "min"),
)
_NORMALISED = ("softmax", "log_softmax", "_softmax")
_ORDERED = ("cumsum", "sort")


@rules.register(*(f"aten::{name}" for name in _REDUCTIONS))
def reduce(call: Call) -> Labels:
    """Drop dimensions; what is reduced over channels alone belongs to no channel."""
    if isinstance(call.arguments.get("other"), Tensor):
        raise Refused("compares two tensors; use maximum or minimum")
    name, labels = _first(call)
    dimensions = _dimensions(call, labels)
    mixed = call.decide([dimension for dimension in dimensions if varies(labels, dimension)])
    if mixed and _uses_positions(call):
        raise Refused("returns positions of channels, which change when some go")
    labels = _mixed(call, name, labels, mixed, restored=False)
    for dimension in sorted(dimensions, reverse=True):
        labels = labels.narrow(dimension, 0, 1) if call.arguments.get("keepdim") else labels.select(dimension, 0)
    return [labels for _ in call.values] if isinstance(call.values, list | tuple) else labels


@rules.register(*(f"aten::{name}" for name in _NORMALISED))
def softmax(call: Call) -> Labels:
    """Leave the labels; over channels alone they are mixed."""
    name, labels = _first(call)
    mixed = call.decide([dimension for dimension in _dimensions(call, labels) if varies(labels, dimension)])
    _mixed(call, name, labels, mixed, restored=True)
    return labels


@rules.register(*(f"aten::{name}" for name in _ORDERED))
def ordered(call: Call) -> Labels:
    """Leave the labels, if the dimension carries no channels."""
    _, labels = _first(call)
    if any(varies(labels, dimension) for dimension in _dimensions(call, labels)):
        raise Refused("adds up or orders channels by position")
    return [labels for _ in call.values] if isinstance(call.values, list | tuple) else labels


def _mixed(call: Call, name: str, labels: Tensor, mixed: list[int], *, restored: bool) -> Tensor:
    """Return the labels left when some dimensions are mixed: those that lie at one place of the others go together."""
    if not mixed:
        return labels
    others = [dimension for dimension in varying_dimensions(labels) if dimension not in mixed]
    alone = call.decide(not others)
    if alone or call.decide(not restored and _ignores_zeros(call) and _over_blocks(call, labels, mixed)):
        if alone:
            call.mix(name, labels, mixed, restored=restored)
        else:
            call.silence(name, labels)
        if call.operator == "aten::sum":
            call.assume(labels, "adds up channels, whose number the model's code then uses as a literal")
        return torch.zeros((), dtype=torch.int64).expand(labels.shape)
    return merged_over(call, labels, mixed)


def _ignores_zeros(call: Call) -> bool:
    """Whether a reduction gives the same with zeros in the places of what is removed."""
    if call.operator in ("aten::linalg_vector_norm", "aten::norm"):
        order = call.arguments.get("ord", call.arguments.get("p"))
        return order is None or (isinstance(order, int | float) and order > 0)
    return call.operator == "aten::sum"


def _over_blocks(call: Call, labels: Tensor, mixed: list[int]) -> bool:
    """Whether what lies along some dimensions is, at each place of the others, one whole block of a balance.

    Then those are the dimensions that shrink (the width of a head), and the others (the heads) keep their size.
    """
    table = core(labels).movedim(mixed, list(range(len(mixed)))).flatten(0, len(mixed) - 1).flatten(1)
    rows = {tuple(sorted(row)) for row in table.T.tolist()}
    balances = (balance for trail in call.earlier for balance in trail.balanced)
    return any(
        rows <= {tuple(sorted(part.tolist())) for part in balance.parts}
        for balance in balances
        if len(balance.parts[0]) == len(table)
    )


def _first(call: Call) -> tuple[str, Tensor]:
    """Return the name and the labels of the first argument."""
    name = next(iter(call.arguments))
    return name, call.labels(name)


def _dimensions(call: Call, labels: Tensor) -> list[int]:
    """Return the dimensions a call reduces over, none given meaning all."""
    given = call.arguments.get("dim")
    if given is None or given == []:
        return list(range(labels.dim()))
    listed = given if isinstance(given, list | tuple) else [given]
    return [int(dimension) % max(labels.dim(), 1) for dimension in listed]  # type: ignore[call-overload]


def _uses_positions(call: Call) -> bool:
    """Whether the second result of a call, the positions, is used."""
    return any(user.target is operator.getitem and user.args[1] == 1 and user.users for user in call.node.users)
