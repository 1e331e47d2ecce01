"""Writing in place: what is written through one view of a memory shows in every other view of it.

Label tensors do not share memory as activations do, so the labels a call writes are carried to all views by hand.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef

from cutback.graph.call import Labels
from cutback.graph.labels import compact, core


class Memory:
    """Knows which nodes of a captured graph share memory, and carries labels from one to the others."""

    def __init__(self) -> None:
        self._nodes: dict[StorageWeakRef, list[fx.Node]] = {}

    def note(self, node: fx.Node) -> None:
        """Note a node whose value has been computed."""
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.layout == torch.strided:
            self._nodes.setdefault(StorageWeakRef(value.untyped_storage()), []).append(node)

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
            if isinstance(before, Tensor) and before.shape == labels.shape and not _same(before, labels):
                self._carry(target, labels, known)

    def _carry(self, target: fx.Node, labels: Tensor, known: dict[fx.Node, Labels]) -> None:
        written = target.meta["val"]
        storage = written.untyped_storage()
        memory = torch.full((storage.nbytes() // written.element_size(),), -1, dtype=torch.int64)
        _view(memory, written).copy_(labels)
        for other in self._nodes[StorageWeakRef(storage)]:
            held = known.get(other)
            value = other.meta["val"]
            if isinstance(held, Tensor) and value.element_size() == written.element_size():
                seen = _view(memory, value)
                known[other] = compact(torch.where(seen < 0, held, seen))


def _targets(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the arguments a call writes to."""
    if not isinstance(node.target, OpOverload) or torch.Tag.inplace_view in node.target.tags:
        return  # the latter change a tensor's shape, not what it holds
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(given, fx.Node):
                yield given


def _view(memory: Tensor, value: Tensor) -> Tensor:
    """Return the part of a memory that a tensor shows."""
    return memory.as_strided(value.shape, value.stride(), value.storage_offset())


def _same(first: Tensor, second: Tensor) -> bool:
    a, b = core(first), core(second)
    return a.shape == b.shape and torch.equal(a, b)
