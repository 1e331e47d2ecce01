"""Which numbers in a call may differ in a narrower network, and which may not."""

from collections.abc import Collection, Iterator

import torch
from torch import fx

from cutback.graph.capture import operator_of

CHANGEABLE: dict[str, frozenset[str]] = {
    **{f"aten::{name}": frozenset(("size", "shape")) for name in ("view", "reshape", "_unsafe_view")},
    **{f"aten::{name}": frozenset(("size",)) for name in ("expand", "broadcast_to", "zeros", "ones", "empty", "full")},
    **{f"aten::new_{name}": frozenset(("size",)) for name in ("zeros", "ones", "empty", "full")},
    **{f"aten::{name}": frozenset(("size",)) for name in ("rand", "randn")},
    **{f"aten::{name}": frozenset(("split_size", "split_sizes")) for name in ("split", "split_with_sizes")},
    **{f"aten::{name}": frozenset(("start", "end")) for name in ("slice", "arange")},
    **{f"aten::{name}": frozenset(("normalized_shape",)) for name in ("layer_norm", "rms_norm")},
    "aten::roll": frozenset(("shifts",)),
    "aten::affine_grid_generator": frozenset(("size",)),
    **{f"aten::{name}": frozenset(("pad",)) for name in ("pad", "constant_pad_nd")},
    "aten::unsafe_split": frozenset(("split_size",)),
    "aten::unflatten": frozenset(("sizes",)),
    "aten::narrow": frozenset(("start", "length")),
    "aten::repeat": frozenset(("repeats",)),
    "aten::tile": frozenset(("dims",)),
    "aten::eye": frozenset(("n", "m")),
}
"""Arguments that are sizes: the labels of the result tell whether a new size is right."""


def arguments_of(node: fx.Node) -> dict[str, object]:
    """Return a call's arguments by the names of its schema."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def numbers_of(node: fx.Node) -> Iterator[tuple[str, int | None, int | float]]:
    """Yield argument, entry (where it is a list) and value of every number in a call."""
    for name, value in arguments_of(node).items():
        listed = isinstance(value, list | tuple)
        for entry, item in enumerate(value if listed else [value]):
            if isinstance(item, int | float) and not isinstance(item, bool):
                yield name, entry if listed else None, item


def changed_number(original: fx.Node, node: fx.Node, but: Collection[str] = ()) -> str:
    """Say which number of a call differs in the narrower network although it must not; empty if none does.

    Sizes may differ, and the arguments named in ``but``. Anything else, a kernel size or a number that is multiplied
    with, would change what is computed.
    """
    before, after = _with_defaults(original), _with_defaults(node)
    free = CHANGEABLE.get(operator_of(node), frozenset())
    for name in dict.fromkeys([*before, *after]):
        was, now = _plain(before.get(name)), _plain(after.get(name))
        if name in free or name in but or was == now:
            continue
        if name == "groups" and _one_each(original, was) and _one_each(node, now):
            continue  # a depthwise convolution stays one
        return f"its {name} {was} would become {now}"
    return ""


def _with_defaults(node: fx.Node) -> dict[str, object]:
    """Return a call's arguments with those that were left out because they have their default value."""
    schema = getattr(node.target, "_schema", None)
    defaults = {argument.name: argument.default_value for argument in schema.arguments} if schema is not None else {}
    return {**defaults, **arguments_of(node)}


def _plain(value: object) -> object:
    """Return an argument's numbers, texts and flags; tensors and everything else count for nothing."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, int | float | str | bool | torch.dtype) else None


def is_depthwise(node: fx.Node) -> bool:
    """Whether a call is a convolution with as many groups as its input has channels, more than one."""
    arguments = arguments_of(node)
    groups = arguments.get("groups", 1)
    return "weight" in arguments and isinstance(groups, int) and groups > 1 and _one_each(node, groups)


def _one_each(node: fx.Node, groups: object) -> bool:
    """Whether a convolution has as many groups as its input has channels."""
    arguments = arguments_of(node)
    images, weight = (getattr(arguments[name], "meta", {}).get("val") for name in ("input", "weight"))
    if not isinstance(images, torch.Tensor) or not isinstance(weight, torch.Tensor):
        return False
    return groups == images.shape[images.dim() - weight.dim() + 1]
