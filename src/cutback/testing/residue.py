"""What a method could leave behind in a model, its optimiser and the process."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.graph.clone import modules_by_path, state_tensors


def traces_in(model: nn.Module, optimizer: Optimizer) -> dict[str, object]:
    """Return everything but values and widths that a method may have put somewhere, by where it is.

    Class, mode, attributes and hooks of each module; hooks and ``requires_grad`` of each tensor; the optimiser's
    groups; the random states and switches of the process.
    """
    found: dict[str, object] = {}
    for path, module in modules_by_path(model).items():
        where = f"module {path or '(model)'}"
        found[f"{where}: class"] = type(module)
        found[f"{where}: training"] = module.training
        found[f"{where}: attributes"] = sorted(vars(module))
        hooks = {name: len(held) for name, held in vars(module).items() if "hooks" in name and isinstance(held, dict)}
        found[f"{where}: hooks"] = hooks
    names: dict[int, str] = {}
    for name, tensor in state_tensors(model).items():
        names[id(tensor)] = name
        after = getattr(tensor, "_post_accumulate_grad_hooks", None)
        found[f"tensor {name}"] = (type(tensor), tensor.requires_grad, bool(tensor._backward_hooks), bool(after))  # noqa: SLF001 (nothing public tells)
    for number, group in enumerate(optimizer.param_groups):
        held = [names.get(id(tensor), "not the model's") for tensor in group["params"]]
        found[f"optimiser group {number}"] = (sorted(group), held)
    return found | _of_the_process()


def differences(before: dict[str, object], after: dict[str, object]) -> str:
    """Say what differs, in a few words; empty where nothing does."""
    places = [place for place in {**before, **after} if before.get(place) != after.get(place)]
    shown = [f"{place} was {before.get(place, 'absent')}, is {after.get(place, 'absent')}" for place in places[:3]]
    return "; ".join(text[:400] for text in shown)


def same(first: object, second: object) -> bool:
    """Whether two nests of tensors, numbers and text agree in every bit."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        alike = first.dtype == second.dtype and first.shape == second.shape
        return alike and torch.equal(first.nan_to_num(0.5), second.nan_to_num(0.5))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return type(first) is type(second) and (first == second or (first != first and second != second))  # noqa: PLR0124 (NaN)


def _of_the_process() -> dict[str, object]:
    """Return the random states, as text that can be compared, and torch's switches."""
    return {
        "random state of torch": hash(torch.get_rng_state().numpy().tobytes()),
        "random state of numpy": hash(np.random.get_state()[1].tobytes()),  # type: ignore[union-attr] # noqa: NPY002
        "random state of python": hash(random.getstate()),
        "gradients enabled": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }
