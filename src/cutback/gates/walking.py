"""Executing a captured graph a stretch at a time, holding no more than what is still needed."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, fx
from torch.fx.node import map_arg

from cutback.graph.capture import Capture

Caller = Callable[[fx.Node, Sequence[object], Mapping[str, object]], object]
"""Runs a call, given its arguments."""


def plain_call(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """Run a call as it is."""
    return node.target(*args, **kwargs)  # type: ignore[operator]


class Walk:
    """A captured graph on its way from the inputs to the outputs.

    Args:
        capture: the graph.
        values: those of its parameters, buffers and inputs; when it starts in the middle also all that is needed from
            there on.
        start: the number of the node it starts at.

    Attributes:
        values: what has been computed and is still needed.
    """

    def __init__(self, capture: Capture, values: Mapping[fx.Node, object], start: int = 0) -> None:
        self.values = dict(values)
        self._capture, self._nodes, self._position = capture, capture.nodes, start
        self._last_user = {source: node for node in self._nodes for source in node.all_input_nodes}

    def until(self, stop: int, call: Caller = plain_call) -> None:
        """Execute all nodes before the one with a number."""
        values = self.values
        for node in self._nodes[self._position : stop]:
            if node.op == "get_attr":
                values[node] = self._capture.constants[str(node.target)]
            elif node.op == "call_function":
                args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[arg-type]
                values[node] = call(node, args, kwargs)
            for source in node.all_input_nodes:
                if self._last_user[source] is node:
                    values.pop(source, None)
            if node not in self._last_user:
                values.pop(node, None)
        self._position = max(self._position, stop)

    def finish(self, call: Caller = plain_call) -> list[Tensor]:
        """Execute what is left; return the graph's results."""
        *_, output = self._nodes
        results = output.all_input_nodes
        held = {node: self.values[node] for node in results if node in self.values}
        self.until(len(self._nodes) - 1, call)
        held |= {node: self.values[node] for node in results if node in self.values}
        return [held[node] for node in self._capture.results]  # type: ignore[misc]

    @property
    def position(self) -> int:
        """The number of the node that is executed next."""
        return self._position
