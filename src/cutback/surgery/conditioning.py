"""Well-conditioned random values for a network's states: every channel matters, nothing vanishes or explodes.

A zero-initialised last batch norm or a layer scale of 1e-6 hides any mistake behind it; a proof on such values alone
would prove nothing.
"""

import math
from collections.abc import Container, Mapping, Sequence

import torch
from torch import Tensor, fx

from cutback.graph.capture import Capture, operator_of
from cutback.graph.graph import Graph
from cutback.surgery.recurrent_awakening import awaken_

_NORMS = ("aten::batch_norm", "aten::instance_norm")
_TRANSPOSED = tuple(f"aten::conv_transpose{n}d" for n in (1, 2, 3))
_CONTRACTIONS = ("aten::linear", *(f"aten::conv{n}d" for n in (1, 2, 3)), *_TRANSPOSED)


def well_conditioned(graph: Graph, states: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return random values in the shapes, types and devices of ``states``.

    Weights of contractions keep the variance of what passes; scales and variances lie in [0.5, 1.5]; buffers that hold
    nothing of channels (masks, tables) keep their values.

    Args:
        graph: the traced model.
        states: parameters and buffers by qualified name.
        generator: a CPU generator.
    """
    kinds = _kinds(graph)
    drawn_anew = {name for name, _ in graph.model.named_parameters()} | {slot.state for slot in graph.slots}
    result: dict[str, Tensor] = {}
    for name, value in states.items():
        kind = kinds.get(name, "element" if name in drawn_anew else "kept")
        if kind == "kept" or not value.is_floating_point():
            result[name] = value.detach().clone()
            continue
        if kind == "weight":
            drawn = torch.randn(value.shape, generator=generator) * math.sqrt(2 / max(value[0].numel(), 1))
        elif kind == "shift":
            drawn = torch.randn(value.shape, generator=generator) * 0.1
        else:
            drawn = torch.rand(value.shape, generator=generator) + 0.5
        result[name] = drawn.to(value.device, value.dtype)
    return result


class Awakening:
    """Keeps a captured graph's channels alive while it runs: each is positive somewhere wherever it leaves a layer.

    Of two channels that a rectifier turns to zero everywhere, one could stand for the other unnoticed, also inside a
    recurrent layer. Where a layer's channel is negative throughout, its shift is raised, or its filter negated where it
    has none, in the states and in the layer's output alike: what the run returns is what the graph computes from the
    states as they are afterwards. A state is changed only by the call that uses it first.

    Args:
        recorded: the captured forward pass.
        parameters: names of the states that may be changed, in place.
    """

    def __init__(self, recorded: Capture, parameters: Container[str]) -> None:
        order = {node: number for number, node in enumerate(recorded.nodes)}
        self._first_use = {
            node: min(node.users, key=order.__getitem__)
            for name, node in zip(recorded.states, recorded.nodes, strict=False)
            if name in parameters and node.users
        }

    def __call__(self, node: fx.Node, args: Sequence[object], output: object) -> None:
        """Look at the output of a call, given its arguments, and change it and the states it comes from."""
        if node.target is torch.ops.aten.rnn_relu.input and isinstance(output, list | tuple):
            written = node.args[2]
            awaken_(args, free=lambda number: self._is_first_use(node, written[number]))  # type: ignore[index]
            for old, new in zip(output, torch.ops.aten.rnn_relu.input(*args), strict=True):
                old.copy_(new)
            return
        operator = operator_of(node)
        contraction = operator in _CONTRACTIONS
        if not isinstance(output, Tensor) or not (contraction or operator in _NORMS):
            return
        weight, shift = [*args, None, None][1:3]
        weight_free, shift_free = (self._is_first_use(node, written) for written in [*node.args, None, None][1:3])
        spatial = weight.dim() - 2 if contraction and isinstance(weight, Tensor) else output.dim() - 2
        channel = output.dim() - 1 - spatial
        across = [dimension for dimension in range(output.dim()) if dimension != channel]
        highest = output.amax(across)
        wanted = 0.25 * output.std().clamp(min=1e-3)
        shape = [1] * output.dim()
        shape[channel] = -1
        if isinstance(shift, Tensor):
            if shift_free:
                lift = torch.where(highest < wanted, wanted - highest, 0)
                shift.add_(lift)
                output.add_(lift.view(shape))
        elif weight_free and contraction and operator not in _TRANSPOSED and isinstance(weight, Tensor):
            sign = torch.where(highest < wanted, -1.0, 1.0).to(output.dtype)
            weight.mul_(sign.view(-1, *[1] * (weight.dim() - 1)))
            output.mul_(sign.view(shape))

    def _is_first_use(self, node: fx.Node, source: object) -> bool:
        """Say whether an argument is a state that may be changed and that no call before this one has used."""
        return isinstance(source, fx.Node) and self._first_use.get(source) is node


def _kinds(graph: Graph) -> dict[str, str]:
    """Say what each state is to the operators that use it: ``weight``, ``shift`` or ``scale``."""
    kinds = {slot.state: "shift" for slot in graph.slots if slot.role == "bias"}
    kinds |= {slot.state: "weight" for slot in graph.slots if slot.role in ("filter", "depthwise")}
    for recorded in graph.captures:
        names = dict(zip(recorded.nodes, recorded.states, strict=False))
        for node in recorded.nodes:
            if operator_of(node) in _NORMS:
                for position, kind in ((1, "scale"), (2, "shift"), (3, "shift"), (4, "scale")):
                    if len(node.args) > position and node.args[position] in names:
                        kinds[names[node.args[position]]] = kind  # type: ignore[index]
    return kinds
