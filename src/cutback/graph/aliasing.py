"""Writing in place: what is written through one view of a memory shows in every other view of it.

Label tensors do not share memory as activations do, so the labels a call writes are carried to all views by hand.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from cutback.graph.call import Labels
from cutback.graph.labels import compact, core


class Memory:
    """Knows which nodes of a captured graph share memory, and carries labels from one to the others."""

    def __init__(self) -> None:
        self._nodes: dict[int, list[fx.Node]] = {}

    def note(self, node: fx.Node) -> None:
        """Note a node whose value has been computed."""
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.layout == torch.strided:
            self._nodes.setdefault(_memory_of(value), []).append(node)

    def written(self, node: fx.Node, labels: object, known: dict[fx.Node, Labels]) -> None:
        """Carry the labels a call has written to every node that shares memory with what it wrote.

        Args:
            node: the call.
            labels: the labels of its result; only a single tensor is ever written here.
            known: labels of all nodes computed so far; receives the changes.
        """
        if not isinstance(labels, Tensor):
            return
        for target in _targets(node):
            before = known.get(target)
            if before is labels:
                continue
            if isinstance(before, Tensor) and before.shape == labels.shape and not _same(before, labels):
                self._carry(target, labels, known)

    def _carry(self, target: fx.Node, labels: Tensor, known: dict[fx.Node, Labels]) -> None:
        written = target.meta["val"]
        storage = written.untyped_storage()
        memory = torch.full((storage.nbytes() // written.element_size(),), -1, dtype=torch.int64)
        _view(memory, written).copy_(labels)
        for other in self._nodes[_memory_of(written)]:
            held = known.get(other)
            value = other.meta["val"]
            if isinstance(held, Tensor) and value.element_size() == written.element_size():
                seen = _view(memory, value)
                known[other] = compact(torch.where(seen < 0, held, seen))


def _memory_of(value: Tensor) -> int:
    """Return what identifies the memory of a tensor that lives on."""
    return value.untyped_storage()._cdata  # noqa: SLF001 (what torch's own weak references to a storage compare)


def _targets(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the arguments a call writes to."""
    for position, name in _written_arguments(node.target) if isinstance(node.target, OpOverload) else ():
        given = node.args[position] if position < len(node.args) else node.kwargs.get(name)
        if isinstance(given, fx.Node):
            yield given


@cache
def _written_arguments(operator: OpOverload) -> tuple[tuple[int, str], ...]:
    """Return position and name of each argument an operator writes to."""
    if torch.Tag.inplace_view in operator.tags:
        return ()  # these change a tensor's shape, not what it holds
    arguments = enumerate(operator._schema.arguments)
    return tuple((n, a.name) for n, a in arguments if a.alias_info is not None and a.alias_info.is_write)


def _view(memory: Tensor, value: Tensor) -> Tensor:
    """Return the part of a memory that a tensor shows."""
    return memory.as_strided(value.shape, value.stride(), value.storage_offset())


def _same(first: Tensor, second: Tensor) -> bool:
    a, b = core(first), core(second)
    return a.shape == b.shape and torch.equal(a, b)
