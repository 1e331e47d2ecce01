"""Which numbers in a call are sizes of labelled dimensions, and what each of them must be after a cut."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Size, Tensor, fx

from cutback.graph.call import Trail
from cutback.graph.capture import Capture, operator_of
from cutback.graph.interpret import Labelling
from cutback.graph.labels import core, varies
from cutback.graph.numbers import arguments_of
from cutback.graph.states import StateLabels
from cutback.graph.weights import computes_weight


class Keeping(Protocol):
    """Says which labels stay."""

    def mask(self, labels: Tensor) -> Tensor:
        """Return which elements of a label tensor stay."""
        ...


@dataclass(frozen=True, eq=False)
class Width:
    """The size of a labelled dimension, times a factor.

    Attributes:
        labels: the labels.
        dimension: the dimension.
        times: what its size is multiplied by.
        over: what the product is divided by.
    """

    labels: Tensor
    dimension: int
    times: int = 1
    over: int = 1

    @property
    def carries(self) -> bool:
        """Whether the labels differ along the dimension, so that its size changes when some go."""
        return varies(self.labels, self.dimension)

    def size(self, kept: Keeping) -> int:
        """Return the size after a cut.

        Where blocks along other dimensions keep different positions, it is the innermost dimension along which all of
        them keep equally many that shrinks; the others keep their size.
        """
        if not self.carries:
            return self.labels.size(self.dimension) * self.times // self.over
        mask = kept.mask(core(self.labels))
        varying = [d for d in range(mask.dim()) if mask.size(d) > 1]
        sizes = {d: int(mask.any([e for e in range(mask.dim()) if e != d]).sum()) for d in varying}
        if int(mask.sum()) != math.prod(sizes.values()):
            for d in reversed(varying):
                counts = mask.sum(d)
                filled = counts[counts > 0]
                others = math.prod(size for e, size in sizes.items() if e != d)
                if len(filled) == others and bool((filled == filled[0]).all()):
                    sizes[d] = int(filled[0])
                    break
        return sizes[self.dimension] * self.times // self.over

    def scaled(self, times: int, over: int) -> "Width":
        """Return a multiple."""
        return Width(self.labels, self.dimension, self.times * times, self.over * over)

    def footprint(self, component: np.ndarray) -> bytes:
        """Return the components along the dimension: widths of one footprint are equal after every cut."""
        first = core(self.labels).movedim(self.dimension, 0)
        first = first.reshape(first.size(0), -1)
        found = np.sort(component[first.numpy()], axis=0)
        return repr((self.times, self.over)).encode() + np.unique(found, axis=1).tobytes()


@dataclass(frozen=True, eq=False)
class Written:
    """A size in a call.

    Attributes:
        argument: name of the argument in the operator's schema.
        entry: which entry of it, where it is a list.
        value: the size.
        width: the dimension whose size it is.
    """

    argument: str
    entry: int | None
    value: int
    width: Width


class LabelsOf:
    """The labels of a captured graph's nodes, looked up in what the first pass noted."""

    def __init__(self, capture: Capture, labelling: Labelling, states: StateLabels) -> None:
        calls = [node for node in capture.nodes if node.op == "call_function" and operator_of(node) != "getitem"]
        self.trails: dict[fx.Node, Trail] = dict(zip(calls, labelling.trails, strict=True))
        self._names = dict(zip(capture.nodes, capture.states, strict=False))
        self._states = states

    def width(self, node: object, dimension: int) -> Width | None:
        """Return a dimension of a node's value; ``None`` where its labels are not known."""
        if not isinstance(node, fx.Node):
            return None
        if node in self._names:
            return self._of_state(self._names[node], dimension)
        if operator_of(node) == "getitem" and isinstance(node.args[0], fx.Node):
            call, number = node.args[0], int(node.args[1])  # type: ignore[call-overload]
        else:
            call, number = node, 0
        trail = self.trails.get(call)
        if trail is None:
            return None
        if not trail.results and node.args:  # a parameter passed through
            return self.width(node.args[0], dimension)
        known = [
            labels for part in self.results(call)[number : number + 1] for labels in part if dimension < labels.dim()
        ]
        if computes_weight(node):  # labels for its rows and others for its columns
            known = [labels for labels in known if varies(labels, dimension)]
        return Width(known[0], dimension) if known else None

    def results(self, call: fx.Node) -> list[list[Tensor]]:
        """Return the labels of each result of a call: one tensor, or those of a computed weight's rows and columns."""
        found, values = self.trails[call].results, call.meta.get("val")
        if not computes_weight(call):
            return [[labels] for labels in found]
        count = len(values) if isinstance(values, list | tuple) else 1
        each = len(found) // count
        return [found[number * each : (number + 1) * each] for number in range(count)]

    def _of_state(self, name: str, dimension: int) -> Width | None:
        vector = self._states.vectors.get((name, dimension))
        if vector is not None:
            return Width(vector, 0)
        elements = self._states.elements.get(name)
        return None if elements is None else Width(elements, dimension)


def written_sizes(node: fx.Node, labels: LabelsOf) -> list[Written]:
    """Return the sizes in a call whose dimensions are known."""
    trail = labels.trails.get(node)
    find = _FINDERS.get(operator_of(node))
    if find is None or trail is None or trail.refused or not trail.results:
        return []
    if computes_weight(node) and find not in (_shape, _split):
        return []
    return [written for written in find(node, arguments_of(node), labels) if isinstance(written.value, int)]


Arguments = dict[str, object]
Finder = Callable[[fx.Node, Arguments, LabelsOf], Iterator[Written]]


def _listed(argument: str, sizes: object, node: fx.Node, labels: LabelsOf, first: int) -> Iterator[Written]:
    """Yield the entries of a list of sizes of the result's dimensions, from ``first`` on."""
    for entry, size in enumerate(sizes if isinstance(sizes, Sequence) else ()):
        width = labels.width(node, first + entry)
        if width is not None and isinstance(size, int) and size == width.labels.size(width.dimension):
            yield Written(argument, entry, size, width)


def _shape(node: fx.Node, arguments: Arguments, labels: LabelsOf) -> Iterator[Written]:
    for name in ("size", "shape"):
        yield from _listed(name, arguments.get(name), node, labels, 0)


def _unflatten(node: fx.Node, arguments: Arguments, labels: LabelsOf) -> Iterator[Written]:
    sizes = arguments["sizes"]
    rank = labels.trails[node].results[0].dim() - len(sizes) + 1  # type: ignore[arg-type]
    yield from _listed("sizes", sizes, node, labels, int(arguments["dim"]) % rank)  # type: ignore[call-overload]


def _normalised(node: fx.Node, arguments: Arguments, labels: LabelsOf) -> Iterator[Written]:
    sizes = arguments["normalized_shape"]
    first = labels.trails[node].results[0].dim() - len(sizes)  # type: ignore[arg-type]
    yield from _listed("normalized_shape", sizes, node, labels, first)


def _split(node: fx.Node, arguments: Arguments, labels: LabelsOf) -> Iterator[Written]:
    parts = labels.results(node)
    dimension = int(arguments.get("dim", 0)) % parts[0][0].dim()  # type: ignore[call-overload]
    results = [next((own for own in part if varies(own, dimension)), part[0]) for part in parts]
    for name in ("split_size", "split_sizes"):
        given = arguments.get(name)
        if isinstance(given, Sequence):
            for entry, (size, part) in enumerate(zip(given, results, strict=False)):
                yield Written(name, entry, size, Width(part, dimension))
        elif isinstance(given, int) and given == results[0].size(dimension):
            yield Written(name, None, given, Width(results[0], dimension))


def _taken(node: fx.Node, arguments: Arguments, labels: LabelsOf) -> Iterator[Written]:
    """A slice from the start ends at the width of what it takes; another starts at the width of what lies before."""
    rank = labels.trails[node].results[0].dim()
    dimension = int(arguments.get("dim", 0)) % rank  # type: ignore[call-overload]
    before = labels.width(arguments.get("self"), dimension)
    start = int(arguments.get("start") or 0)  # type: ignore[call-overload]
    end = arguments.get("end", start + int(arguments.get("length", 0)))  # type: ignore[call-overload]
    if before is None or start < 0 or not isinstance(end, int):
        return
    name, value = ("length", arguments["length"]) if "length" in arguments else ("end", end)
    total = before.labels.size(before.dimension)
    if start:
        ahead = Width(before.labels.narrow(before.dimension, 0, start), before.dimension)
        yield Written("start", None, start, ahead)
    if name == "length":
        yield Written(name, None, int(value), Width(labels.trails[node].results[0], dimension))  # type: ignore[call-overload]
    elif 0 < end <= total:
        yield Written(name, None, end, Width(before.labels.narrow(before.dimension, 0, end), before.dimension))


def _groups(node: fx.Node, arguments: Arguments, labels: LabelsOf) -> Iterator[Written]:
    """A depthwise convolution has one group a channel."""
    result = labels.trails[node].results[0]
    rank = len(_size_of(arguments["weight"])) - 2
    incoming = labels.width(arguments["input"], result.dim() - rank - 1)
    groups = arguments.get("groups", 1)
    if incoming is not None and groups == incoming.labels.size(incoming.dimension) > 1:
        yield Written("groups", None, int(groups), incoming)  # type: ignore[call-overload]


def _size_of(node: object) -> Size:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.shape if isinstance(value, torch.Tensor) else Size()


_FINDERS: dict[str, Finder] = {
    **{f"aten::{name}": _shape for name in ("view", "reshape", "_unsafe_view", "expand", "broadcast_to")},
    **{f"aten::{name}": _split for name in ("split", "split_with_sizes", "unsafe_split")},
    **{f"aten::conv{n}d": _groups for n in (1, 2, 3)},
    "aten::unflatten": _unflatten,
    "aten::layer_norm": _normalised,
    "aten::rms_norm": _normalised,
    "aten::slice": _taken,
    "aten::narrow": _taken,
}
