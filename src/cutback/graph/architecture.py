"""The hash of an architecture: what a plan belongs to, whatever the weights."""

import hashlib
import json
from collections.abc import Mapping

from torch import nn

from cutback.graph.clone import state_tensors

_PLAIN = (int, float, str, bool, tuple, type(None))


def structure_hash(model: nn.Module, changed: Mapping[str, Mapping[str, object]] | None = None) -> str:
    """Hash everything about a model's modules but their parameters and buffers.

    The tree of module paths and class names counts, and the settings (widths, kernel sizes, strides) of torch's own
    layers; mode and device do not.

    Args:
        model: the model.
        changed: settings to be taken as changed, by module path and name.
    """
    lines: list[str] = []
    for path, module in model.named_modules():
        settings: dict[str, object] = {}
        if type(module).__module__.startswith("torch.nn."):
            settings = {
                name: value
                for name, value in sorted(vars(module).items())
                if isinstance(value, _PLAIN) and not name.startswith("_") and name != "training"
            }
            settings |= {name: value for name, value in (changed or {}).get(path, {}).items() if name in settings}
        lines.append(f"{path}:{type(module).__name__}:{json.dumps(settings, default=str)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def architecture_hash(structure: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Hash a structure together with the shapes of its parameters and buffers, by qualified name."""
    lines = [structure, *(f"{name}:{list(shape)}" for name, shape in sorted(shapes.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_of(model: nn.Module) -> str:
    """Return the architecture hash of a model as it is."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state_tensors(model).items()}
    return architecture_hash(structure_hash(model), shapes)
