"""Captures of a model as it is being used: of its present batch size, modes and dropout, matched with a traced one."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from cutback.errors import StaleGraph, Ungatable
from cutback.gates.calls import matters
from cutback.gates.places import Place
from cutback.graph.capture import Capture, capture, module_path, operator_of
from cutback.graph.clone import modules_by_path
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.numbers import arguments_of
from cutback.measure.batch import samples
from cutback.measure.macs import macs_by_call


@dataclass(frozen=True, eq=False)
class LiveCapture:
    """A capture of a model in use.

    Attributes:
        capture: the recorded forward pass; it returns the model's outputs alone.
        traced: the number of the traced capture that has the same calls.
        samples: how many samples the inputs hold.
    """

    capture: Capture
    traced: int
    samples: int

    @cached_property
    def calls(self) -> list[fx.Node]:
        """The numbered calls, in order."""
        return [node for node in self.capture.nodes if matters(node)]

    @cached_property
    def numbers(self) -> dict[fx.Node, int]:
        """The number of each numbered call."""
        return {node: number for number, node in enumerate(self.calls)}

    @cached_property
    def macs(self) -> dict[fx.Node, int]:
        """The multiply-accumulates of each call that has some, for all samples."""
        return macs_by_call(self.capture)

    def source(self, place: Place) -> fx.Node:
        """Return the node whose value a place's gates multiply.

        Raises:
            Ungatable: its shape is another than when the model was traced, along a dimension that carries channels.
        """
        node = place_node(self.calls[place.call], place)
        shape, known = tuple(node.meta["val"].shape), place.group.shape
        if len(shape) != len(known) or any(want not in (1, have) for have, want in zip(shape, known, strict=True)):
            raise Ungatable(
                f"{place.where} has shape {shape} here, where channels lie along {known}; trace the model with inputs "
                "of the shape it is used with"
            )
        return node


def place_node(call: fx.Node, place: Place) -> fx.Node:
    """Return the node whose value a place's gates multiply.

    Raises:
        Ungatable: the tensor is nothing that is computed.
    """
    value: object = call
    if place.argument is not None:
        value = arguments_of(call).get(place.argument)
        if place.item is not None and isinstance(value, list | tuple):
            value = value[place.item]
    elif place.item is not None:
        taken = (user for user in call.users if operator_of(user) == "getitem" and user.args[1] == place.item)
        value = next(taken, None)
    if not isinstance(value, fx.Node):
        raise Ungatable(f"{place.where} uses no tensor that a gate could multiply")
    return value


def key_of(model: nn.Module, inputs: Inputs) -> Hashable:
    """Return what a capture depends on: shapes and types of tensors, all other arguments, the modules' modes."""
    leaves, spec = pytree.tree_flatten((inputs.positional, inputs.keyword))
    given = tuple(
        (tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else repr(leaf)
        for leaf in leaves
    )
    return given, str(spec), tuple(module.training for module in model.modules())


def captured(graph: Graph, inputs: Inputs, *, dropout: bool = True) -> LiveCapture:
    """Capture a graph's model on new inputs, each module in its present mode.

    Args:
        graph: the traced model.
        inputs: the inputs it is called with.
        dropout: whether dropout is recorded.

    Raises:
        CaptureError: the model fails on the inputs.
        StaleGraph: it runs other operators, or has other parameters, than when it was traced.
    """
    model = graph.model
    modes = {path: module.training for path, module in modules_by_path(model).items()}
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        found = capture(model, inputs, training=modes, origins=False, dropout=dropout)
    found = _without_module_outputs(found)
    calls = [node.target for node in found.nodes if matters(node)]
    for number in sorted(range(len(graph.captures)), key=lambda n: graph.captures[n].training != model.training):
        if [node.target for node in graph.captures[number].nodes if matters(node)] == calls:
            _check_states(graph.captures[number], found)
            return LiveCapture(found, number, samples(found))
    raise StaleGraph(
        f"{type(model).__name__} runs other operators on inputs of shape {inputs.describe()} than when it was traced"
        f"{_first_difference(graph.captures[0], found)}; trace it again with such inputs"
    )


def _without_module_outputs(found: Capture) -> Capture:
    """Let a fresh capture return the model's outputs alone, so that nothing else is held until its end."""
    last = next(iter(reversed(found.graph.nodes)))
    last.args = (list(found.results[: found.outputs]),)
    return replace(found, module_outputs=())


def _check_states(traced: Capture, found: Capture) -> None:
    shapes = [_shapes(each) for each in (traced, found)]
    different = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
    if different:
        raise StaleGraph(f"{different[0]} has changed since the model was traced; trace it again")


def _shapes(recorded: Capture) -> Mapping[str, Sequence[int]]:
    return {name: tuple(node.meta["val"].shape) for name, node in zip(recorded.states, recorded.nodes, strict=False)}


def _first_difference(traced: Capture, found: Capture) -> str:
    """Say at which call two captures part ways."""
    pairs = zip(filter(matters, traced.nodes), filter(matters, found.nodes), strict=False)
    for before, now in pairs:
        if before.target != now.target:
            where = module_path(now) or "(model)"
            return f" (first in {where}: {operator_of(now)} instead of {operator_of(before)})"
    return ""
