"""What a model's forward computes from numbers and constants alone, computed once: it becomes a constant itself."""

import operator
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import map_arg

from cutback.graph.capture import Capture
from cutback.graph.origins import SizeOf, leaves
from cutback.graph.uses import numbers_with_origins

_LARGEST = 1 << 22


@dataclass(frozen=True, eq=False)
class Folding:
    """Calls that need not be made.

    Attributes:
        values: what those calls return whose result something else needs.
        gone: all calls that are left out.
    """

    values: dict[fx.Node, Tensor] = field(default_factory=dict)
    gone: set[fx.Node] = field(default_factory=set)


def folded(capture: Capture) -> Folding:
    """Find the real tensors of more than one element that a captured graph makes from nothing but constants.

    Left alone is what depends on a size of another tensor or on randomness, and what is written to.
    """
    touched = _written_to(capture)
    values: dict[fx.Node, Tensor] = {}
    for node in capture.nodes:
        if node.op != "call_function" or not _is_pure(node) or node in touched:
            continue
        if all(source in values or source.op == "get_attr" for source in node.all_input_nodes):
            found = _value(node, capture, values)
            if found is not None:
                values[node] = found
    results = set(capture.results[: capture.outputs])
    ends = {
        node
        for node, value in values.items()
        if (node in results or any(user not in values for user in node.users))
        and value.is_floating_point()
        and 1 < value.numel() <= _LARGEST
    }
    gone: set[fx.Node] = set(ends)
    for node in reversed(list(values)):
        if node not in results and node.users and all(user in gone for user in node.users):
            gone.add(node)
    return Folding({node: values[node] for node in ends}, gone)


def _is_pure(node: fx.Node) -> bool:
    """Say whether a call always gives the same tensor for the same arguments, and a tensor of its own."""
    if not isinstance(node.target, OpOverload):
        return False
    tags = node.target.tags
    drawn = torch.Tag.nondeterministic_seeded in tags or "empty" in node.target.name()
    sizes = any(isinstance(leaf, SizeOf) for *_, origin in numbers_with_origins(node) for leaf in leaves(origin or 0))
    return not (drawn or sizes or node.target._schema.is_mutable)


def _value(node: fx.Node, capture: Capture, values: dict[fx.Node, Tensor]) -> Tensor | None:
    """Return what a call returns; ``None`` where that is no single tensor."""

    def of(source: fx.Node) -> Tensor:
        return values[source] if source in values else capture.constants[str(source.target)]

    expected = node.meta.get("val")
    if not isinstance(expected, Tensor) or expected.numel() > _LARGEST:
        return None
    args, kwargs = map_arg((node.args, node.kwargs), of)
    with torch.no_grad():
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    return result.detach() if isinstance(result, Tensor) else None


def _written_to(capture: Capture) -> set[fx.Node]:
    """Return the calls whose result, or what it may be a view of, is written to later."""
    found: set[fx.Node] = set()
    for node in capture.nodes:
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
            source = node
            while source.args and isinstance(source.args[0], fx.Node | list | tuple):
                first = source.args[0]
                first = first[0] if isinstance(first, list | tuple) and first else first
                if not isinstance(first, fx.Node):
                    break
                found.add(first)
                source = first
    return found


def calls_of(capture: Capture, folding: Folding) -> list[fx.Node]:
    """Return the calls of a capture that are made, but those that take one of several results."""
    return [
        node
        for node in capture.nodes
        if node.op == "call_function" and node.target is not operator.getitem and node not in folding.gone
    ]
