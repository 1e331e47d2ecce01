"""Copies of a model's modules that share its tensors, so that nothing done to them reaches the user's model."""

import copy
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cutback.errors import CaptureError

Model = TypeVar("Model", bound=nn.Module)
_IMMUTABLE = frozenset(
    (bool, int, float, str, bytes, type(None), type, FunctionType, torch.dtype, torch.device, torch.Size)
)

_CONTAINERS = frozenset((dict, OrderedDict, list, tuple, set))


def structural_clone(model: Model) -> Model:
    """Copy every module of ``model`` but none of its tensors: parameters and buffers are shared.

    Caches, counters and attributes that a forward pass writes land on the copy.

    Raises:
        CaptureError: some object the model holds cannot be copied.
    """
    shared: dict[int, object] = {
        id(tensor): tensor for module in modules_by_path(model).values() for tensor in _tensors_of(module)
    }
    try:
        return _copied(model, shared)
    except Exception as error:
        raise CaptureError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); "
            "tracing works on a copy of the modules: remove or make copyable what the model holds"
        ) from error


def _copied(  # noqa: PLR0911 (one a kind of object)
    value: Any,  # noqa: ANN401 (whatever a model holds)
    memo: dict[int, object],
) -> Any:  # noqa: ANN401
    """Copy what a model holds as ``copy.deepcopy`` does, but plain modules and containers without its detours.

    Args:
        value: a module or an attribute of one.
        memo: what stands for each object copied or shared already, by id.
    """
    kind = type(value)
    if kind in _IMMUTABLE or (kind is tuple and all(type(item) in _IMMUTABLE for item in value)):
        return value
    known = memo.get(id(value))
    if known is not None:
        return known
    if kind is dict or kind is OrderedDict:
        memo[id(value)] = result = kind()
        for key, item in value.items():
            copied = item if type(item) in _IMMUTABLE else _copied(item, memo)
            result[key if type(key) in _IMMUTABLE else _copied(key, memo)] = copied
        return result
    if kind is set and all(type(item) in _IMMUTABLE for item in value):
        memo[id(value)] = result = set(value)
        return result
    if kind is list:
        memo[id(value)] = result = []
        result.extend(_copied(item, memo) for item in value)
        return result
    if isinstance(value, nn.Module) and _is_plain(kind):
        memo[id(value)] = made = object.__new__(kind)
        attributes = vars(made)
        for name, item in value.__getstate__().items():
            attributes[name] = item if type(item) in _IMMUTABLE else _copied(item, memo)
        return made
    return copy.deepcopy(value, memo)


@cache
def _is_plain(kind: type) -> bool:
    """Say whether the instances of a class are copied attribute by attribute (torch's own ``__setstate__`` aside)."""
    theirs = ("__deepcopy__", "__new__", "__getstate__", "__reduce__", "__reduce_ex__", "__slots__")
    return not any(
        (base is not nn.Module and any(name in vars(base) for name in theirs))
        or ("__setstate__" in vars(base) and not base.__module__.startswith("torch.nn."))
        for base in kind.__mro__[:-1]
    )


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors a module holds as parameters, buffers, plain attributes, or one container deep."""
    for value in [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]:
        kind = type(value)
        if kind in _IMMUTABLE or (kind in _CONTAINERS and not value):  # most attributes of a module
            continue
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from (item for item in value.values() if isinstance(item, Tensor))
        elif isinstance(value, list | tuple):
            yield from (item for item in value if isinstance(item, Tensor))


def own_tensors(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give a structural clone tensors of its own: new parameters and buffers holding ``values``, ties kept.

    Args:
        model: a structural clone.
        values: by qualified name, for every name of ``state_tensors(model)``.
    """
    fresh: dict[int, Tensor] = {}
    for name, tensor in state_tensors(model).items():
        value = values[name]
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value.detach(), requires_grad=tensor.requires_grad)
        fresh[id(tensor)] = value
    exchange_tensors(model, fresh)


def exchange_tensors(model: nn.Module, fresh: Mapping[int, Tensor]) -> None:
    """Replace a structural clone's parameters and buffers by tensors of any kind, given by the ids of the old ones."""
    for module in modules_by_path(model).values():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = fresh[id(tensor)]  # type: ignore[assignment]


def independent_copy(model: Model) -> Model:
    """Copy a model with its values, also where torch cannot (weight norm leaves computed tensors on the module)."""
    clone = structural_clone(model)
    own_tensors(clone, {name: tensor.detach().clone() for name, tensor in state_tensors(model).items()})
    return clone


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by qualified name, each tied tensor once under its first name."""
    modules = modules_by_path(model)
    return {**_held_by(modules, "_parameters"), **_held_by(modules, "_buffers")}


def parameters_by_name(model: nn.Module) -> dict[str, Tensor]:
    """Return what ``model.named_parameters()`` yields, which walks more slowly."""
    return _held_by(modules_by_path(model), "_parameters")


def _held_by(modules: Mapping[str, nn.Module], kind: str) -> dict[str, Tensor]:
    """Return the tensors that modules hold in one of their tables, each under its first name."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in modules.items():
        held = vars(module)[kind]
        if held:
            prefix = f"{path}." if path else ""
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[prefix + name] = tensor
    return found


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Return what ``model.named_modules()`` yields, each module under its first path."""
    found: dict[str, nn.Module] = {}
    seen: set[nn.Module] = set()
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if module not in seen:
            seen.add(module)
            found[path] = module
            inner = module._modules
            if inner:  # most modules hold none
                prefix = f"{path}." if path else ""
                waiting += [(prefix + name, child) for name in reversed(inner) if (child := inner[name]) is not None]
    return found


def ordinary(tensor: Tensor) -> Tensor:
    """Return a tensor without history that gradients may pass; one made in inference mode is copied."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def set_training(model: nn.Module, training: bool | Mapping[str, bool]) -> dict[str, bool]:  # noqa: FBT001
    """Set the mode of all modules at once or of each by path; return the modes found, by path.

    A model whose own ``train`` keeps some modules frozen in eval mode has its way.
    """
    found = {path: module.training for path, module in modules_by_path(model).items()}
    if isinstance(training, bool):
        model.train(training)
    else:
        for path, module in model.named_modules():
            module.training = training[path]
    return found


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch (CPU and all CUDA devices in use) on exit."""
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the user's global state is what is kept)
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
