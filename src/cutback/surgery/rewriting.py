"""A captured graph rewritten as the code of a module: widths written into calls become attributes."""

from collections.abc import Callable, Container, Mapping
from itertools import count

import torch
from torch import fx
from torch._ops import OpOverload

from cutback.graph.capture import Capture, operator_of
from cutback.graph.graph import Graph
from cutback.graph.numbers import CHANGEABLE, is_depthwise
from cutback.graph.origins import Formula, Held, Origin, SizeOf, evaluated, leaves
from cutback.graph.sizes import LabelsOf, written_sizes
from cutback.graph.sources import SOURCE
from cutback.graph.uses import current_value, numbers_with_origins, of_capture

_DROPOUTS = (
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
)
_DROPPING: dict[str, Callable[..., object]] = {
    **{f"aten::{name}": getattr(torch, name) for name in _DROPOUTS},
    "aten::scaled_dot_product_attention": torch.nn.functional.scaled_dot_product_attention,
}
"""Functions to call in place of operators that may drop out: a proof turns dropout off where functions are called."""


class Rewriter:
    """Rewrites one captured graph.

    The result takes the input tensors, reads states and constants from the module it belongs to, and returns the list
    of the model's outputs. A size that is a width is read from an attribute; one that the model's code takes from a
    tensor is taken from that tensor again, so that a batch may have another size.

    Attributes:
        sizes: name and value of each attribute that holds a width.

    Args:
        graph: the labelled model.
        capture: one of its captures.
        constants: the module's name of each tensor that is read from it: by node, or by the capture's own name.
        gone: calls to leave out.
    """

    def __init__(
        self, graph: Graph, capture: Capture, constants: Mapping[str | fx.Node, str], gone: Container[fx.Node]
    ) -> None:
        self.sizes: dict[str, int] = {}
        self._graph, self._capture, self._constants, self._gone = graph, capture, constants, gone
        self._labels: LabelsOf = of_capture(graph, capture)
        self._mode = "train" if capture.training else "eval"
        self._result = fx.Graph()
        self._values: dict[fx.Node, fx.Node] = {}
        self._states: dict[fx.Node, str] = dict(zip(capture.nodes, capture.states, strict=False))
        self._devices = {tensor.device for tensor in capture.inputs.tensors()}
        self._inputs: list[fx.Node] = []
        self._shared = _held_by_one_width(graph)

    def run(self) -> fx.Graph:
        """Return the rewritten graph."""
        for node in self._capture.nodes:
            if node.op == "placeholder" and node not in self._states:
                self._values[node] = self._result.placeholder(f"input_{len(self._inputs)}")
                self._inputs.append(self._values[node])
        for node in self._capture.nodes:
            if node.op == "call_function" and node not in self._gone:
                self._values[node] = self._call(node)
        outputs = [self._value(node) for node in self._capture.results[: self._capture.outputs]]
        self._result.output(outputs)
        return self._result

    def _value(self, node: fx.Node) -> fx.Node:
        """Return what stands for a node; states and constants are read where they are first used."""
        if node not in self._values:
            name = self._states.get(node) or self._constants.get(node) or self._constants[str(node.target)]
            self._values[node] = self._result.create_node("get_attr", name)
        return self._values[node]

    def _call(self, node: fx.Node) -> fx.Node:
        """Return the new call."""
        numbers: dict[tuple[str, int | None], object] = {}
        names = [str(position) for position in range(len(node.args))]
        if isinstance(node.target, OpOverload):
            numbers = self._numbers(node)
            names = [argument.name for argument in node.target._schema.arguments]
        args = tuple(self._argument(value, name, numbers) for name, value in zip(names, node.args, strict=False))
        kwargs = {name: self._argument(value, name, numbers) for name, value in node.kwargs.items()}
        name = operator_of(node)
        target = _DROPPING.get(name, node.target)
        if target is not node.target and node.target._schema.name.endswith("_"):  # type: ignore[union-attr]
            target = getattr(torch, f"{name.removeprefix('aten::')}_")
        made = self._result.create_node("call_function", target, args, kwargs)  # type: ignore[arg-type]
        if SOURCE in node.meta:
            made.meta[SOURCE] = node.meta[SOURCE]
        return made

    def _argument(self, value: object, name: str, numbers: Mapping[tuple[str, int | None], object]) -> object:
        """Return an argument of the new call."""
        if isinstance(value, list | tuple):
            return [numbers.get((name, entry), fx.map_arg(item, self._value)) for entry, item in enumerate(value)]
        if isinstance(value, torch.device) and self._inputs and self._devices == {value}:
            return self._result.call_function(getattr, (self._inputs[0], "device"))
        return numbers.get((name, None), fx.map_arg(value, self._value))  # type: ignore[arg-type]

    def _numbers(self, node: fx.Node) -> dict[tuple[str, int | None], object]:
        """Return what stands for those numbers of a call that are not simply kept."""
        written = {(size.argument, size.entry) for size in written_sizes(node, self._labels) if size.width.carries}
        changeable = CHANGEABLE.get(operator_of(node), frozenset())
        if is_depthwise(node):  # also where the weight is a constant, which has no channels before it becomes a buffer
            written.add(("groups", None))
        found: dict[tuple[str, int | None], object] = {}
        for argument, entry, value, origin in numbers_with_origins(node):
            place = (argument, entry)
            free = [leaf for leaf in leaves(origin or 0) if isinstance(leaf, SizeOf) and not self._is_width(leaf)]
            if isinstance(origin, Held) and origin in self._shared and (place in written or argument in changeable):
                found[place] = self._attribute(f"held_{origin.path}_{origin.name}_{origin.entry or 0}", int(value))
            elif place in written and not free and value > 0:
                found[place] = self._attribute(self._named(node, place), int(value))
            elif any(isinstance(leaf, SizeOf) for leaf in leaves(origin or 0)) and self._is(origin, value):
                found[place] = self._expression(origin or 0, node, place, written=place in written)
        return found

    def _attribute(self, name: str, value: int) -> fx.Node:
        """Return an attribute that holds a size."""
        name = name.replace(".", "_")
        self.sizes[name] = value
        return self._result.create_node("get_attr", name)

    def _named(self, node: fx.Node, place: tuple[str, int | None]) -> str:
        """Return a name that no other size has."""
        argument, entry = place
        stem = "_".join([self._mode, node.name, argument, *([] if entry is None else [str(entry)])])
        return next(name for n in count() if (name := f"{stem}_part{n}" if n else stem) not in self.sizes)

    def _expression(
        self, origin: Origin | float, node: fx.Node, place: tuple[str, int | None], *, written: bool
    ) -> fx.Node | int | float:
        """Return what computes a number from sizes as the model's code does."""
        if isinstance(origin, Formula):
            operands = tuple(self._expression(operand, node, place, written=written) for operand in origin.operands)
            return self._result.call_function(origin.operation, operands)
        if isinstance(origin, SizeOf):
            return self._result.call_method("size", (self._value(origin.node), origin.dimension))
        value = current_value(self._graph, origin) if isinstance(origin, Held) else origin
        if written and isinstance(value, int) and value > 1:
            return self._attribute(self._named(node, place), value)
        return value  # type: ignore[return-value] # what could not be told has not come this far

    def _is(self, origin: Origin | None, value: float) -> bool:
        """Say whether a formula gives the number that was recorded."""

        def of(leaf: Held | SizeOf) -> int:
            found = current_value(self._graph, leaf)
            if found is None:
                raise LookupError
            return found

        try:
            return evaluated(origin or 0, of) == value
        except (LookupError, ArithmeticError, TypeError):
            return False

    def _is_width(self, leaf: SizeOf) -> bool:
        width = self._labels.width(leaf.node, leaf.dimension)
        return width is not None and width.carries


def _held_by_one_width(graph: Graph) -> frozenset[Held]:
    """Return the attributes of the model that stand for one width wherever they stand for any."""
    footprints: dict[Held, set[bytes]] = {}
    for capture in graph.captures:
        labels = of_capture(graph, capture)
        for node in labels.trails:
            widths = {(size.argument, size.entry): size.width for size in written_sizes(node, labels)}
            for argument, entry, _, origin in numbers_with_origins(node):
                width = widths.get((argument, entry))
                if isinstance(origin, Held) and width is not None:
                    footprints.setdefault(origin, set()).add(width.footprint(graph.coupling.components))
    return frozenset(held for held, found in footprints.items() if len(found) == 1)
