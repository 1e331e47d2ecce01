"""Where gradients are pruned: found on the captured graph, block by block.

Where a norm follows a convolution its backward pass makes gradients dense again, so that the gradient at the
convolution's output is pruned. Where a ReLU follows, the gradient at the ReLU's output is (or at that of the pooling
behind it), and the ReLU's mask then adds its own zeros. In any other case the convolution's own output is the site: of
a residual branch, so that the stream itself carries no noise.
"""

from collections.abc import Collection
from dataclasses import dataclass

from torch import fx

from cutback.gates.following import activation_after, normalised, only_user
from cutback.graph.capture import Capture, operator_of
from cutback.graph.graph import Graph, layer_of
from cutback.graph.numbers import arguments_of

PLACEMENTS = ("block", "convolution", "activation")
_CONVOLUTIONS = {f"aten::conv{n}d" for n in (1, 2, 3)}
_RELUS = {
    "aten::relu": "Relu",
    "aten::relu6": "Hardtanh",
    "aten::hardtanh": "Hardtanh",
    "aten::threshold": "Threshold",
    "aten::clamp": "Clamp",
    "aten::clamp_min": "Clamp",
}
"""Activations that pass no gradient where they are closed, with how autograd names their nodes."""
_POOLS = {f"aten::{kind}_pool{n}d": f"{kind.title()}Pool" for kind in ("max", "avg") for n in (2, 3)}


@dataclass(frozen=True)
class Site:
    """One call of a convolution, and where its gradient is pruned.

    Attributes:
        name: path of the layer; of one that is called several times with the number of the call.
        weight: qualified name of its weight.
        call: the number of the call among those with this weight.
        behind: beginnings of the names of the autograd nodes that follow it, up to the one whose incoming gradient is
            pruned; empty for the convolution's own.
    """

    name: str
    weight: str
    call: int
    behind: tuple[str, ...]


def sites_of(graph: Graph, placement: str = "block") -> list[Site]:
    """Return the sites of a model, in the order of its calls.

    Only convolutions whose weight is a parameter as it is count; linear layers and transposed convolutions do not.

    Args:
        graph: the traced model.
        placement: ``block``, as above. ``convolution``: always at its output. ``activation``: behind the ReLU where
            there is one, though a norm stands between: a control, since the norm's backward pass undoes it.
    """
    recorded = next((capture for capture in graph.captures if capture.training), graph.captures[0])
    outputs = set(recorded.results[: recorded.outputs])
    names = dict(zip(recorded.nodes, recorded.states, strict=False))
    reaching = _reaching(recorded, outputs)
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in recorded.nodes:
        weight = arguments_of(node).get("weight") if operator_of(node) in _CONVOLUTIONS else None
        if node in reaching and isinstance(weight, fx.Node) and weight in names:
            found.append((names[weight], _behind(node, outputs, placement)))
    weights = [weight for weight, _ in found]
    sites: list[Site] = []
    for number, (weight, behind) in enumerate(found):
        call, layer = weights[:number].count(weight), layer_of(weight) or "(model)"
        sites.append(Site(f"{layer}[{call}]" if weights.count(weight) > 1 else layer, weight, call, behind))
    return sites


def _behind(node: fx.Node, outputs: Collection[fx.Node], placement: str) -> tuple[str, ...]:
    """Return what stands between a convolution and its site."""
    norm = normalised(node, outputs)
    if placement == "convolution" or (norm is not None and placement == "block"):
        return ()
    activation = activation_after(norm or node, outputs)
    relu = _RELUS.get(operator_of(activation)) if activation is not None else None
    if activation is None or relu is None:
        return ()
    pool = only_user(activation, _POOLS, outputs)
    return (relu,) if pool is None else (relu, _POOLS[operator_of(pool)])


def _reaching(recorded: Capture, outputs: Collection[fx.Node]) -> set[fx.Node]:
    """Return the nodes on which the model's outputs depend."""
    reaching = set(outputs)
    for node in reversed(recorded.nodes):
        if node in reaching:
            reaching.update(node.all_input_nodes)
    return reaching
