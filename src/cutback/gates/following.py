"""Following a tensor to the normalisation, the activation and the end of the block that come after it."""

from collections.abc import Collection

from torch import fx

from cutback.graph.capture import operator_of
from cutback.graph.replay import has_effect

_NORMS = {f"aten::{name}_norm" for name in ("batch", "instance", "group", "layer", "rms")}
_MOVEMENTS = {
    f"aten::{name}"
    for name in (
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "movedim", "contiguous"),
        *("squeeze", "unsqueeze", "to", "_to_copy", "clone"),
    )
}
_ACTIVATIONS = {
    f"aten::{name}"
    for name in (
        *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu"),
        *("gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid", "log_sigmoid", "tanh", "softplus"),
        *("threshold", "softsign", "hardshrink", "softshrink", "tanhshrink"),
    )
}


def normalised(node: fx.Node, outputs: Collection[fx.Node]) -> fx.Node | None:
    """Return the normalisation that alone receives a tensor, ``None`` where it goes elsewhere (too)."""
    return only_user(node, _NORMS, outputs)


def activation_after(node: fx.Node, outputs: Collection[fx.Node]) -> fx.Node | None:
    """Return the activation that alone receives a tensor, ``None`` where it goes elsewhere (too)."""
    return only_user(node, _ACTIVATIONS, outputs)


def last_of_block(node: fx.Node, sums: Collection[fx.Node], outputs: Collection[fx.Node]) -> fx.Node | None:
    """Return the tensor with which a block ends, given the sum that joins its branches.

    Args:
        node: the sum.
        sums: all such sums.
        outputs: the network's outputs.

    Returns:
        The activation that alone follows, else the sum; ``None`` where another sum alone follows, which ends the block.
    """
    following = _users(node, outputs)
    if len(following) == 1 and following[0] in sums:
        return None
    return activation_after(node, outputs) or node


def only_user(node: fx.Node, wanted: Collection[str], outputs: Collection[fx.Node]) -> fx.Node | None:
    """Return the one call that uses a tensor if it is a wanted one, seen through movements of the whole tensor."""
    while True:
        following = _users(node, outputs)
        if len(following) != 1:
            return None
        node = following[0]
        name = operator_of(node)
        if name in wanted and has_effect(node):
            return node
        if name not in _MOVEMENTS:
            return None


def _users(node: fx.Node, outputs: Collection[fx.Node]) -> list[fx.Node]:
    """Return the calls that use a tensor, and the tensor itself where it is an output of the network."""
    return [user for user in node.users if user.op != "output"] + [node] * (node in outputs)
