"""What each output of a captured call is a weighted sum of."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.functional import unfold

from cutback.gates.live import LiveCapture, captured, key_of
from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.numbers import arguments_of

LINEAR, CONVOLUTIONS = "aten::linear", ("aten::conv1d", "aten::conv2d")


def unfolded(node: fx.Node, arguments: Mapping[str, Any]) -> Tensor | None:
    """Return the inputs of a call, one row an output position: ``(rows, inputs * kernel elements)``.

    The last dimension has the order of the weight, flattened from its second dimension on.

    Args:
        node: the call.
        arguments: what it is given, by name.

    Returns:
        ``None`` where it is no linear layer, nor a convolution of one or two dimensions without groups.
    """
    source = arguments["input"]
    if operator_of(node) == LINEAR:
        return source.reshape(-1, source.shape[-1])
    if operator_of(node) not in CONVOLUTIONS or arguments.get("groups", 1) != 1:
        return None
    if isinstance(arguments.get("padding", 0), str):
        return None
    kernel, flat = arguments["weight"].shape[2:], operator_of(node) == "aten::conv1d"

    def pair(name: str, default: int) -> tuple[int, ...]:
        given = arguments.get(name, default)
        numbers = tuple(given) if isinstance(given, list | tuple) else (given,)
        numbers = numbers * len(kernel) if len(numbers) < len(kernel) else numbers
        return (default, *numbers) if flat else numbers

    size = (1, *kernel) if flat else tuple(kernel)
    windows = unfold(
        source[:, :, None] if flat else source,
        size,
        dilation=pair("dilation", 1),
        padding=pair("padding", 0),
        stride=pair("stride", 1),
    )
    return windows.transpose(1, 2).reshape(-1, windows.shape[1])


class Watch:
    """Runs a model as it was captured, and shows what the calls with certain weights are given.

    Args:
        graph: the traced model, in eval mode.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._captures: dict[Hashable, LiveCapture] = {}

    def weights(self, inputs: Inputs) -> list[str]:
        """Return the names of the weights in the order of the first call that uses each."""
        live = self._capture(inputs)
        names = dict(zip(live.capture.nodes, live.capture.states, strict=False))
        return list(dict.fromkeys(name for node in live.calls if (name := _weight(node, names))))

    @torch.no_grad()
    def run(
        self, inputs: Inputs, wanted: Collection[str], see: Callable[[str, fx.Node, Mapping[str, Any]], None]
    ) -> None:
        """Run the model on a batch.

        Args:
            inputs: the batch.
            wanted: names of weights.
            see: receives for each call that uses one the weight's name, the call and its arguments by name.
        """
        live = self._capture(inputs)
        names = dict(zip(live.capture.nodes, live.capture.states, strict=False))

        def call(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
            name = _weight(node, names)
            if name in wanted:
                keys = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
                see(name, node, {**dict(zip(keys, args, strict=False)), **kwargs})
            return node.target(*args, **kwargs)  # type: ignore[operator]

        live.capture.execute(state_tensors(self._graph.model), inputs, call)

    def _capture(self, inputs: Inputs) -> LiveCapture:
        """Return a capture that fits inputs."""
        key = key_of(self._graph.model, inputs)
        if key not in self._captures:
            self._captures[key] = captured(self._graph, inputs, dropout=False)
        return self._captures[key]


def _weight(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    """Return the name of a call's weight; empty where it has none that is a parameter itself."""
    weight = arguments_of(node).get("weight") if node.op == "call_function" else None
    return names.get(weight, "") if isinstance(weight, fx.Node) else ""
