"""The hash of an architecture: what a plan belongs to, whatever the weights."""

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor, nn

from cutback.graph.clone import modules_by_path, state_tensors

_written = json.JSONEncoder(default=str).encode
_PLAIN = (int, float, str, bool, tuple, type(None))


def structure_hash(model: nn.Module, changed: Mapping[str, Mapping[str, object]] | None = None) -> str:
    """Hash everything about a model's modules but their parameters and buffers.

    The tree of module paths and class names counts, and the settings (widths, kernel sizes, strides) of torch's own
    layers; mode and device do not.

    Args:
        model: the model.
        changed: settings to be taken as changed, by module path and name.
    """
    return structure_hashes(model, changed or {})[1]


def structure_hashes(model: nn.Module, changed: Mapping[str, Mapping[str, object]]) -> tuple[str, str]:
    """Return the hash of a model as it is, and with some settings taken as changed; see ``structure_hash``."""
    before: list[str] = []
    after: list[str] = []
    for path, module in modules_by_path(model).items():
        settings: dict[str, object] = {}
        if type(module).__module__.startswith("torch.nn."):
            held = [
                (name, value)
                for name, value in vars(module).items()
                if name[0] != "_" and isinstance(value, _PLAIN) and name != "training"
            ]
            settings = dict(sorted(held))
        named = f"{path}:{type(module).__name__}:"
        before.append(named + (_written(settings) if settings else "{}"))
        new = {name: value for name, value in changed.get(path, {}).items() if name in settings}
        after.append(named + _written(settings | new) if new else before[-1])
    first, second = (hashlib.sha256("\n".join(lines).encode()).hexdigest() for lines in (before, after))
    return first, second


def architecture_hash(structure: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Hash a structure together with the shapes of its parameters and buffers, by qualified name."""
    lines = [structure, *(f"{name}:{list(shape)}" for name, shape in sorted(shapes.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_of(model: nn.Module, states: Mapping[str, Tensor] | None = None) -> str:
    """Return the architecture hash of a model as it is; ``states`` are its parameters and buffers, if at hand."""
    states = state_tensors(model) if states is None else states
    shapes = {name: tuple(tensor.shape) for name, tensor in states.items()}
    return architecture_hash(structure_hash(model), shapes)
