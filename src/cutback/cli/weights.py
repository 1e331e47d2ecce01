"""Trained weights from a file onto a model."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cutback.errors import UserMistake

WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net")
PREFIXES = ("module.", "_orig_mod.")
COUNTER = "num_batches_tracked"
"""Files from old versions of torch lack this counter of batch norms, which evaluation does not use."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of weights onto a model, in place.

    Args:
        model: the model.
        path: a safetensors file, or ``.pt``/``.pth`` that holds nothing but tensors, possibly in a dict under
            ``state_dict`` or ``model``; ``module.`` before every name is dropped.

    Raises:
        UserMistake: the file cannot be read or does not fit; names the first tensor that does not. The model is
            unchanged.
    """
    found = read_weights(path)
    wanted = model.state_dict()
    misfits = _misfits(wanted, found)
    if misfits:
        more = f" ({len(misfits) - 1} more differ)" if misfits[1:] else ""
        raise UserMistake(
            f"{path} does not fit {type(model).__name__}: {misfits[0]}{more}; give the weights of this very model, "
            "with --num-classes if its head was replaced"
        )
    model.load_state_dict({name: tensor for name, tensor in found.items() if name in wanted}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of weights, by name.

    Raises:
        UserMistake: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserMistake(f"there is no file {path}; give --weights a .safetensors, .pt or .pth file")
    try:
        if path.suffix == ".safetensors":
            loaded: object = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserMistake(
            f"{path} holds no plain weights ({type(error).__name__}: {reason}); save them with "
            "safetensors or torch.save(model.state_dict(), ...)"
        ) from error
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserMistake(f"{path} holds no state dict of tensors; save one with torch.save(model.state_dict(), ...)")
    tensors = {str(name): value for name, value in loaded.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Say of each tensor how it does not fit, in the model's order."""
    misfits = []
    for name, tensor in wanted.items():
        if name not in found:
            if not name.endswith(COUNTER):
                misfits.append(f"it lacks {name}")
        elif found[name].shape != tensor.shape:
            misfits.append(f"{name} is {_size(found[name])} in the file and {_size(tensor)} in the model")
    misfits += [f"the model has no {name}" for name in found if name not in wanted]
    return misfits


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
