"""Finding a model's convolutions in the autograd graph of a pass, and the nodes at which their gradients arrive.

The captured graph tells what follows each convolution; here the same calls are found in the graph that autograd has
recorded. Nothing of the model changes by that, and it does not matter who ran it: its own code or the gates of another
method.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import Node

from cutback.errors import StaleGraph
from cutback.graph.inputs import tensors_in
from cutback.methods.gradient_pruning.sites import Site

_CONVOLUTION, _CAST = "ConvolutionBackward0", "ToCopyBackward0"


@dataclass(frozen=True, eq=False)
class Live:
    """A site in the autograd graph of a pass.

    Attributes:
        site: the site.
        weight: the convolution's weight, ``(C_out, C_in / groups, ...)``.
        convolution: the node that computes the gradients of the convolution's input and weight.
        pruned: the node whose incoming gradient is pruned.
    """

    site: Site
    weight: Tensor
    convolution: Node
    pruned: Node

    @property
    def products(self) -> int:
        """How many products its backward pass has: one for the weight, and one for the input if that asks for it."""
        return 2 if self.convolution.next_functions[0][0] is not None else 1


def live_sites(output: object, weights: Mapping[int, str], sites: Sequence[Site]) -> Iterator[Live]:
    """Yield the sites that are found behind what a model has returned.

    Args:
        output: what it has returned.
        weights: the name of each of its parameters, by id.
        sites: those of the traced model.

    Raises:
        StaleGraph: a convolution was called more often than in the traced model, or another node follows it.
    """
    users = _users(output)
    known = {(site.weight, site.call): site for site in sites}
    counts: dict[str, int] = {}
    convolutions = [node for node in users if node.name() == _CONVOLUTION]
    for node in sorted(convolutions, key=lambda node: node._sequence_nr()):  # noqa: SLF001 (part of the Node interface)
        weight = _weight(node)
        name = None if weight is None else weights.get(id(weight))
        if weight is None or name is None:
            continue
        call = counts.get(name, 0)
        counts[name] = call + 1
        site = known.get((name, call))
        if site is None and not any(other.weight == name for other in sites):
            continue  # its result reaches no output of the traced model
        if site is None:
            raise StaleGraph(
                f"{name} is used {call + 1} times in this pass, more often than when the model was traced; trace it "
                "again with such inputs"
            )
        yield Live(site, weight, node, _last(node, users, site))


def _users(output: object) -> dict[Node, list[Node]]:
    """Return every node behind what a model has returned, with the nodes that use its result, once for each use."""
    waiting = [tensor.grad_fn for tensor in tensors_in(output) if tensor.grad_fn is not None]
    users: dict[Node, list[Node]] = {node: [] for node in waiting}
    while waiting:
        node = waiting.pop()
        for source, _ in node.next_functions:
            if source is None:
                continue
            if source not in users:
                users[source] = []
                waiting.append(source)
            users[source].append(node)
    return users


def _weight(convolution: Node) -> Tensor | None:
    """Return the parameter that is a convolution's weight, ``None`` where it is computed or does not learn."""
    node = convolution.next_functions[1][0]
    while node is not None and node.name() == _CAST:  # under autocast
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def _last(node: Node, users: Mapping[Node, Sequence[Node]], site: Site) -> Node:
    """Return the node whose incoming gradient is pruned, passing over what gates and dropout have put in between."""
    for name in site.behind:
        while True:
            if len(users[node]) != 1:
                raise StaleGraph(
                    f"no {name} follows {site.name} in this pass as when the model was traced; trace it again"
                )
            node = users[node][0]
            if node.name().startswith(name):
                break
    return node
