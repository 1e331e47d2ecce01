"""Where a compactor can stand: behind a convolution and the batch norm that follows it."""

from collections import Counter
from collections.abc import Mapping

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cutback.gates.calls import matters
from cutback.graph.capture import Capture, module_path, operator_of
from cutback.graph.graph import Graph
from cutback.graph.numbers import arguments_of
from cutback.methods.resrep.folding import Pair

_CONVOLUTIONS = {f"aten::conv{n}d" for n in (1, 2, 3)}
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def pairs_of(graph: Graph) -> dict[str, Pair]:
    """Return the pairs of a network by the name of the convolution's weight.

    A pair is a convolution without groups that runs once in a forward pass, and a batch norm with scale, shift and
    running statistics that runs once, on nothing but what the convolution puts out, in a module that does nothing else.
    That holds in all of the graph's captures.
    """
    found = [_in_capture(capture, graph.model) for capture in graph.captures]
    first, others = found[0], found[1:]
    return {weight: pair for weight, pair in first.items() if all(other.get(weight) == pair for other in others)}


def _in_capture(capture: Capture, model: nn.Module) -> dict[str, Pair]:
    """Return the pairs that one forward pass shows."""
    names = dict(zip(capture.nodes, capture.states, strict=False))
    uses = Counter(names[source] for node in capture.nodes for source in node.all_input_nodes if source in names)
    inside = Counter(module_path(node) for node in capture.nodes if matters(node))
    found: dict[str, Pair] = {}
    for node in capture.nodes:
        pair = _pair_at(node, names, model)
        if pair is None:
            continue
        weight = f"{pair.convolution}.weight"
        held = (weight, *(f"{pair.norm}.{name}" for name in _STATISTICS))
        alone = sum(count for path, count in inside.items() if f"{path}.".startswith(f"{pair.norm}.")) == 1
        if alone and all(uses[name] == 1 for name in held):
            found[weight] = pair
    return found


def _pair_at(node: fx.Node, names: Mapping[fx.Node, str], model: nn.Module) -> Pair | None:
    """Return the pair whose convolution a node is the call of."""
    norm = _only_user(node)
    if operator_of(node) not in _CONVOLUTIONS or norm is None or operator_of(norm) != "aten::batch_norm":
        return None
    pair = Pair(module_path(node), module_path(norm))
    convolution, normalising = model.get_submodule(pair.convolution), model.get_submodule(pair.norm)
    plain = isinstance(convolution, nn.Conv1d | nn.Conv2d | nn.Conv3d) and convolution.groups == 1
    if not plain or not isinstance(normalising, _BatchNorm):
        return None
    expected = {key: f"{pair.norm}.{key}" for key in _STATISTICS}
    given = {key: _name(norm, key, names) for key in expected}
    own = _name(node, "weight", names) == f"{pair.convolution}.weight"
    own = own and _name(node, "bias", names) in (None, f"{pair.convolution}.bias")
    return pair if own and given == expected and arguments_of(norm)["input"] is node else None


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return the only call that uses what a node gives; ``None`` where there are more, or none."""
    users = [user for user in node.users if user.op != "output"]
    return users[0] if len(users) == 1 else None


def _name(node: fx.Node, argument: str, names: Mapping[fx.Node, str]) -> str | None:
    """Return the name of the state that a call gets as an argument."""
    given = arguments_of(node).get(argument)
    return names.get(given) if isinstance(given, fx.Node) else None
