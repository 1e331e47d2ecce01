"""The calls of a traced network that take time, and how their widths follow from what stays of each group."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from cutback.errors import UserMistake
from cutback.graph.capture import Capture, capture, module_path, operator_of
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.labels import core
from cutback.graph.numbers import arguments_of
from cutback.graph.sizes import LabelsOf, Width, written_sizes
from cutback.measure.batch import samples
from cutback.measure.layer_call import Axis, LayerCall, Operand, Size

_CONVOLUTIONS = {f"aten::conv{n}d": n for n in (1, 2, 3)}
_TRANSPOSED = {f"aten::conv_transpose{n}d": n for n in (1, 2, 3)}
_LINEAR = "aten::linear"


def layer_calls(graph: Graph, batch: int) -> list[LayerCall]:
    """Return the calls of the forward pass in eval mode, at a batch size; what only looks at memory anew is left out.

    Convolutions and linear layers depend on the widths of their input and output; every other call is taken to shrink
    in one proportion, or, where several dimensions of a tensor shrink, to take the time it takes before a cut.

    Raises:
        UserMistake: the model's code takes another path at this batch size than at the traced one.
    """
    at_batch = _recorded_at(graph, batch)
    finder = _Finder(graph, at_batch)
    return [call for node in graph.captures[0].nodes if _takes_time(node) for call in finder.found(node)]


def inputs_at(recorded: Capture, inputs: Inputs, batch: int) -> Inputs:
    """Return the inputs of a recorded forward pass with another batch size: samples repeated or left out."""
    own = samples(recorded)

    def resized(tensor: Tensor) -> Tensor:
        if own == batch or not tensor.dim() or len(tensor) != own:
            return tensor
        return tensor[torch.arange(batch, device=tensor.device) % own]

    return inputs.map(resized)


def _recorded_at(graph: Graph, batch: int) -> Mapping[fx.Node, object]:
    """Return the value of each recorded node at a batch size."""
    recorded = graph.captures[0]
    if batch == samples(recorded):
        return {node: node.meta.get("val") for node in recorded.nodes}
    other = capture(graph.model, inputs_at(recorded, graph.inputs, batch), training=False)
    if [node.target for node in other.nodes] != [node.target for node in recorded.nodes]:
        raise UserMistake(
            f"{type(graph.model).__name__} makes other calls at batch {batch} than on the example inputs; trace it "
            f"with example inputs of batch {batch}, or state the latency at the batch size of the example inputs"
        )
    return {mine: its.meta.get("val") for mine, its in zip(recorded.nodes, other.nodes, strict=True)}


def _takes_time(node: fx.Node) -> bool:
    """Whether a call does more than to look at the same memory in another way."""
    if not isinstance(node.target, OpOverload):
        return False
    returned = [result.alias_info for result in node.target._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in returned)


class _Finder:
    """Describes calls by the labels of what they take and give."""

    def __init__(self, graph: Graph, values: Mapping[fx.Node, object]) -> None:
        self._graph, self._values = graph, values
        self._labels = LabelsOf(graph.captures[0], graph.coupling.labellings[0], graph.coupling.states)

    def found(self, node: fx.Node) -> Iterator[LayerCall]:
        """Yield the description of a call, unless it cannot be made on made-up tensors at all."""
        device = self._graph.inputs.tensors()[0].device
        for call in (self._contraction(node), self._proportional(node), self._call(node, (), {}, {})):
            if call is not None and _runs(call, device):
                yield call
                return

    def _contraction(self, node: fx.Node) -> LayerCall | None:
        """Describe a convolution without groups, or a linear layer."""
        operator, arguments = operator_of(node), arguments_of(node)
        rank = _CONVOLUTIONS.get(operator) or _TRANSPOSED.get(operator) or 0
        if (not rank and operator != _LINEAR) or arguments.get("groups", 1) != 1:
            return None
        source, weight, bias = (arguments.get(name) for name in ("input", "weight", "bias"))
        result = self._values[node]
        if not isinstance(source, fx.Node) or not isinstance(weight, fx.Node) or not isinstance(result, Tensor):
            return None
        channels = result.dim() - 1 - rank
        rows = 1 if operator in _TRANSPOSED else 0
        axes: list[Axis] = []
        follows: dict[fx.Node, dict[int, tuple[int, Fraction]]] = {source: {}, weight: {}}
        for width, places in (
            (self._labels.width(source, channels), ((source, channels), (weight, 1 - rows))),
            (self._labels.width(node, channels), ((weight, rows), (bias, 0))),
        ):
            axis = self._axis(width)
            if axis is not None:
                for operand, dimension in places:
                    if isinstance(operand, fx.Node):
                        follows.setdefault(operand, {})[dimension] = len(axes), Fraction(1)
                axes.append(axis)
        return self._call(node, tuple(axes), follows, {})

    def _proportional(self, node: fx.Node) -> LayerCall | None:
        """Describe a call all of whose widths shrink in one proportion: that of its result, or of its first operand."""
        shrinking: dict[fx.Node, dict[int, Axis]] = {}
        for operand in [node, *node.all_input_nodes]:
            value = self._values.get(operand)
            axes = (
                {d: self._axis(self._labels.width(operand, d)) for d in range(value.dim())}
                if isinstance(value, Tensor)
                else {}
            )
            shrinking[operand] = {d: axis for d, axis in axes.items() if axis is not None}
        arguments = arguments_of(node)
        groups, weight = arguments.get("groups", arguments.get("num_groups", 1)), arguments.get("weight")
        if isinstance(weight, fx.Node) and "groups" in arguments:
            shrinking[weight].pop(1, None)
        if any(len(axes) > 1 for axes in shrinking.values()):
            return None
        axis = next((axis for axes in shrinking.values() for axis in axes.values()), None)
        if axis is None:
            return None
        follows = {
            operand: {d: (0, Fraction(own.dense, axis.dense)) for d, own in axes.items()}
            for operand, axes in shrinking.items()
        }
        sizes = {
            (written.argument, written.entry): Size(written.value, 0, Fraction(written.value, axis.dense))
            for written in written_sizes(node, self._labels)
            if self._axis(written.width) is not None
        }
        multiple = groups if isinstance(groups, int) and ("groups", None) not in sizes else 1
        if isinstance(weight, fx.Node) and multiple > 1 and "groups" in arguments:
            rows, inner = self._values[weight].shape[:2]  # type: ignore[union-attr]
            if node in self._graph.coupling.whole:
                sizes["groups", None] = Size(multiple, 0, Fraction(multiple, axis.dense))
                multiple = axis.dense // multiple
            elif shrinking.get(arguments["input"]):  # type: ignore[call-overload]
                follows[weight][1] = 0, Fraction(inner, axis.dense)
                if shrinking[node]:
                    multiple *= rows // multiple // math.gcd(rows // multiple, inner)
        axis = Axis(axis.dense, axis.units, axis.fixed, multiple)
        return self._call(node, (axis,), follows, sizes)

    def _call(
        self,
        node: fx.Node,
        axes: tuple[Axis, ...],
        follows: Mapping[fx.Node, Mapping[int, tuple[int, Fraction]]],
        sizes: Mapping[tuple[str, int | None], Size],
    ) -> LayerCall:
        """Put a call's arguments together."""

        def described(value: object, name: str, entry: int | None = None) -> object:
            if (name, entry) in sizes:
                return sizes[name, entry]
            if isinstance(value, fx.Node):
                return self._operand(value, follows.get(value, {}))
            if isinstance(value, list | tuple):
                return [described(item, name, place) for place, item in enumerate(value)]
            return value

        arguments = {name: described(value, name) for name, value in arguments_of(node).items()}
        return LayerCall(node.target, arguments, axes, module_path(node))  # type: ignore[arg-type]

    def _operand(self, node: fx.Node, follows: Mapping[int, tuple[int, Fraction]]) -> object:
        """Describe a tensor; numbers stay as they are."""
        value = self._values.get(node)
        if not isinstance(value, Tensor):
            return value
        shape = tuple(Size(size, *follows[d]) if d in follows else Size(size) for d, size in enumerate(value.shape))
        last = value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=torch.channels_last)
        return Operand(shape, value.dtype, last)

    def _axis(self, width: Width | None) -> Axis | None:
        """Return how a dimension follows a cut; ``None`` where it stays, or where that is not one number."""
        if width is None or not width.carries:
            return None
        labels = core(width.labels)
        if labels.numel() != labels.size(width.dimension):
            return None
        coupling = self._graph.coupling
        owned = coupling.owners.of(coupling.components[labels.flatten().numpy()]).sizes
        fixed = owned.pop(-1, 0)
        if not owned:
            return None
        units = np.zeros(len(self._graph.groups))
        for group, elements in owned.items():
            units[group] = elements / self._graph.groups[group].units
        return Axis(labels.numel(), units, fixed)


def _runs(call: LayerCall, device: torch.device) -> bool:
    """Whether a call can be made on made-up tensors, before a cut and after a deep one."""
    lowest = tuple(min(axis.multiple, axis.dense) for axis in call.axes)
    try:
        with torch.inference_mode():
            call.prepared(call.dense, device)()
            call.prepared(lowest, device)()
    except Exception:  # noqa: BLE001 (any operator, on values that mean nothing)
        return False
    return True
