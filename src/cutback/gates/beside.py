"""What the next layer would return under other factors, computed beside the pass: from the layer to its activation.

X. Ding et al., "Approximated Oracle Filter Pruning for Destructive CNN Width Optimization", ICML 2019: the base path is
the pass itself, the scoring path the one beside it. It shares weights, leaves no gradient, and changes no statistics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from cutback.gates.calls import matters
from cutback.gates.factors import Factors
from cutback.gates.following import activation_after, normalised
from cutback.gates.live import LiveCapture
from cutback.gates.places import Place, find_places, ungatable_groups
from cutback.gates.rows import Rows
from cutback.graph.capture import operator_of
from cutback.graph.graph import Graph

_LAYERS = {f"aten::{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)} | {"aten::linear"}

Told = Callable[[str, Tensor, Tensor], None]
"""Receives a group's name, what the next layer returns, and what it would return under other factors, ``(N, ...)``."""


@dataclass(frozen=True, eq=False)
class Route:
    """From the layer that consumes a group, over its normalisation, to its activation.

    Attributes:
        group: the group's name.
        place: what the layer is given.
        nodes: the calls, the layer's first.
        source: the node whose value the layer is given.
    """

    group: str
    place: Place
    nodes: tuple[fx.Node, ...]
    source: fx.Node


def lone_consumers(graph: Graph) -> frozenset[str]:
    """Return the groups whose channels one call alone consumes in each mode, of a convolution or a linear layer.

    Args:
        graph: the traced model.
    """
    refused = ungatable_groups(graph, "consumer")
    names = [group.name for group in graph.groups if group.name not in refused]
    found = set(names)
    for number, recorded in enumerate(graph.captures):
        calls = [node for node in recorded.nodes if matters(node)]
        places = find_places(graph, number, "consumer", names)
        for index, group in enumerate(graph.groups):
            own = [place for place in places if index in place.groups]
            single = len(own) == 1 and own[0].argument == "input" and operator_of(calls[own[0].call]) in _LAYERS
            if not single:
                found.discard(group.name)
    return frozenset(found)


def routes(live: LiveCapture, places: Mapping[str, Place]) -> list[Route]:
    """Return the routes of groups in a capture in use.

    Args:
        live: the capture.
        places: what the one layer that consumes it is given, for each group's name.
    """
    outputs = set(live.capture.results[: live.capture.outputs])
    found: list[Route] = []
    for name, place in places.items():
        layer = live.calls[place.call]
        last = normalised(layer, outputs) or layer
        last = activation_after(last, outputs) or last
        nodes = [layer]
        while nodes[-1] is not last:
            nodes.append(next(iter(nodes[-1].users)))  # each has one user alone
        found.append(Route(name, place, tuple(nodes), live.source(place)))
    return found


class Beside:
    """Runs routes beside one pass.

    Args:
        taken: the routes.
        factors: what the layers' inputs are multiplied by there.
        told: receives what came out.

    Attributes:
        made: the calls of layers that were made again.
    """

    def __init__(self, taken: Sequence[Route], factors: Factors, told: Told) -> None:
        self.made: list[fx.Node] = []
        self._at: dict[fx.Node, list[tuple[Route, int]]] = {}
        for route in taken:
            for number, node in enumerate(route.nodes):
                self._at.setdefault(node, []).append((route, number))
        self._factors, self._told = factors, told
        self._values: dict[str, Tensor] = {}

    def follow(self, node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object], result: object) -> None:
        """Make a call of the pass again on the values beside it.

        Args:
            node: the call.
            args: what it was given.
            kwargs: what it was given by name.
            result: what it returned.
        """
        for route, number in self._at.get(node, ()):
            with torch.no_grad():
                own = route.source if number == 0 else route.nodes[number - 1]
                if number == 0:
                    factor = self._factors.at(route.place, _no_rows)
                    given = args[node.args.index(own)]
                    if factor is None or not isinstance(given, Tensor):
                        continue
                    value = given * factor.to(given.device, given.dtype)
                    self.made.append(node)
                elif route.group in self._values:
                    value = self._values.pop(route.group)
                else:
                    continue
                other = [value if written is own else arg for written, arg in zip(node.args, args, strict=True)]
                found = _called(node, other, kwargs, args)
                if number + 1 < len(route.nodes):
                    self._values[route.group] = found
                elif isinstance(result, Tensor):
                    self._told(route.group, result.detach(), found)


def _called(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object], base: Sequence[object]) -> Tensor:
    """Make a call without a change to what it keeps.

    A batch norm in train mode normalises by the statistics of the pass itself: those of the other values would take
    part of the difference away.

    Args:
        node: the call.
        args: what it is given.
        kwargs: what it is given by name.
        base: what it is given in the pass itself.
    """
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    operator, source = operator_of(node), base[0]
    if operator == "aten::batch_norm" and given["training"] and isinstance(source, Tensor):
        over = [dimension for dimension in range(source.dim()) if dimension != 1]
        wide = source.detach().to(torch.promote_types(source.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, over, correction=0)
        given |= {"running_mean": mean, "running_var": variance, "training": False}
    if operator == "aten::instance_norm" and given["use_input_stats"]:
        given |= {"running_mean": None, "running_var": None}
    return node.target(**given)  # type: ignore[operator]


def _no_rows() -> Rows:
    """Stand for where samples lie, for which one factor a unit has no use."""
    return Rows(None)
