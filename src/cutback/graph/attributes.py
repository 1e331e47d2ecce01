"""Width attributes of torch's layers, which must follow the shapes of their parameters."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from torch import Size, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from cutback.graph.clone import modules_by_path, state_tensors

Changes = Sequence[tuple[str, str, int | tuple[int, ...]]]
"""Module path, attribute, new value."""


def attribute_changes(model: nn.Module, shapes: Mapping[str, Size]) -> Changes:
    """Return the width attributes that do not fit the given shapes of parameters and buffers.

    Args:
        model: the model, its own parameters of any shape.
        shapes: shapes the parameters and buffers are to have, by qualified name.
    """
    changes: list[tuple[str, str, int | tuple[int, ...]]] = []
    names = {id(tensor): name for name, tensor in state_tensors(model).items()}
    for path, module in modules_by_path(model).items():
        for kind, widths in _RULES:
            if isinstance(module, kind):
                held = chain(
                    *(find(remove_duplicate=False) for find in (module.named_parameters, module.named_buffers))
                )
                own = {name: shapes[names[id(t)]] for name, t in held if names.get(id(t)) in shapes}
                changes += [
                    (path, attribute, value)
                    for attribute, value in widths(module, own).items()
                    if getattr(module, attribute) != value
                ]
                break
    return changes


def set_attributes(model: nn.Module, changes: Changes) -> None:
    """Carry changes out."""
    for path, attribute, value in changes:
        owner, name = holder(model, path, attribute)
        setattr(owner, name, like(getattr(owner, name), value))


def holder(model: nn.Module, path: str, attribute: str) -> tuple[object, str]:
    """Return the object that has an attribute, and its name there: ``config.width`` is one of an object a module holds.

    Raises:
        AttributeError: there is none of that name.
    """
    owner: object = model.get_submodule(path)
    *objects, name = attribute.split(".")
    for inner in objects:
        owner = getattr(owner, inner)
    getattr(owner, name)
    return owner, name


def like(held: object, value: int | tuple[int, ...]) -> object:
    """Return a new value of an attribute in the type of what it holds: a list stays a list."""
    return list(value) if isinstance(held, list) and isinstance(value, tuple) else value


def held_value(model: nn.Module, path: str, attribute: str) -> object:
    """Return the value of an attribute.

    Raises:
        AttributeError: there is none of that name.
    """
    return getattr(*holder(model, path, attribute))


def _convolution(module: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    """A depthwise convolution keeps one group a channel; any other keeps its number of groups."""
    if "weight" not in own or not isinstance(module, _ConvNd):
        return {}
    first, second = own["weight"][:2]
    depthwise = module.groups == module.in_channels > 1
    if module.transposed:
        groups = first if depthwise else module.groups
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    groups = first * module.groups // module.out_channels if depthwise else module.groups
    return {"in_channels": second * groups, "out_channels": first, "groups": groups}


def _linear(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    return {"out_features": own["weight"][0], "in_features": own["weight"][1]} if "weight" in own else {}


def _norm(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    shape = own.get("weight", own.get("running_mean"))
    return {"num_features": shape[0]} if shape else {}


def _layer_norm(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    return {"normalized_shape": tuple(own["weight"])} if "weight" in own else {}


def _group_norm(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    return {"num_channels": own["weight"][0]} if "weight" in own else {}


def _embedding(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    return {"embedding_dim": own["weight"][1]} if "weight" in own else {}


def _prelu(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    return {"num_parameters": own["weight"][0]}


def _transformer(_: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    """A transformer has no parameter itself; its width is that of any attention inside."""
    embedded = [shape[1] for name, shape in own.items() if name.endswith(".in_proj_weight")]
    return {"d_model": embedded[0]} if embedded else {}


def _multihead(module: nn.Module, own: Mapping[str, Size]) -> dict[str, int | tuple[int, ...]]:
    """Queries, keys and values are projected by one weight, or by one each where keys or values have other widths."""
    if not isinstance(module, nn.MultiheadAttention):
        return {}
    if "in_proj_weight" in own:
        inner, embedding = own["in_proj_weight"][0] // 3, own["in_proj_weight"][1]
        keys = values = embedding
    else:
        inner, embedding = own["q_proj_weight"]
        keys, values = own["k_proj_weight"][1], own["v_proj_weight"][1]
    return {"embed_dim": embedding, "head_dim": inner // module.num_heads, "kdim": keys, "vdim": values}


_RULES: tuple[
    tuple[type[nn.Module], Callable[[nn.Module, Mapping[str, Size]], dict[str, int | tuple[int, ...]]]], ...
] = (
    (_ConvNd, _convolution),
    (nn.Linear, _linear),
    (_NormBase, _norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
    (nn.PReLU, _prelu),
    (nn.Embedding, _embedding),
    (nn.MultiheadAttention, _multihead),
    (nn.Transformer, _transformer),
)

_NAMES = frozenset(
    (
        *("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features"),
        *("normalized_shape", "num_channels", "embedding_dim", "num_parameters"),
        *("embed_dim", "head_dim", "num_heads", "kdim", "vdim"),
    )
)


def follows_parameters(module: nn.Module, attribute: str) -> bool:
    """Whether an attribute is a width of one of torch's layers, which ``attribute_changes`` looks after."""
    return attribute in _NAMES and any(isinstance(module, kind) for kind, _ in _RULES)


def ruled(kind: type[nn.Module]) -> bool:
    """Whether the widths that modules of a class hold are looked after by ``attribute_changes``."""
    return any(issubclass(kind, known) for known, _ in _RULES)
