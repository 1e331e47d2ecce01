"""How a graph form was made from a model, written so that it can be made again and compared."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import CorruptFile
from cutback.graph.inputs import Inputs


@dataclass(frozen=True)
class Recipe:
    """How a graph form was made.

    Attributes:
        fingerprint: hash of the dense model's calls in both modes.
        torch_version: the torch that recorded them.
        inputs: the example inputs without their values, in JSON's types; ``None`` where they cannot be written.
    """

    fingerprint: str
    torch_version: str
    inputs: object

    def to_document(self) -> dict[str, object]:
        """Return it in JSON's types."""
        return {"fingerprint": self.fingerprint, "torch": self.torch_version, "inputs": self.inputs}

    @classmethod
    def from_document(cls, document: object) -> "Recipe":
        """Read what ``to_document`` returned.

        Raises:
            CorruptFile: it is something else.
        """
        try:
            return cls(str(document["fingerprint"]), str(document["torch"]), document["inputs"])  # type: ignore[index]
        except (KeyError, TypeError) as error:
            raise CorruptFile(f"the description of the graph form is damaged ({error}); copy it again") from error


def described(inputs: Inputs) -> object:
    """Write example inputs without their values; ``None`` where they hold objects that JSON does not know."""
    try:
        return {"positional": _described(inputs.positional), "keyword": _described(inputs.keyword)}
    except TypeError:
        return None


def _described(value: object) -> object:
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if type(value) in (tuple, list):
        return {type(value).__name__: [_described(item) for item in value]}  # type: ignore[attr-defined]
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _described(item) for key, item in value.items()}}
    plain = value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))
    if not plain:
        raise TypeError(type(value).__name__)
    return {"value": value}


def inputs_of(description: object, device: torch.device) -> Inputs:
    """Return inputs of the described types and shapes, all zero.

    Args:
        description: from ``described``.
        device: where the tensors are to be.

    Raises:
        CorruptFile: it describes none.
    """
    try:
        positional = _made(description["positional"], device)  # type: ignore[index]
        keyword = _made(description["keyword"], device)  # type: ignore[index]
        if not isinstance(positional, tuple) or not isinstance(keyword, dict):
            raise TypeError("no arguments")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CorruptFile(f"the description of the example inputs is damaged ({error}); copy it again") from error
    return Inputs(positional, keyword)


def _made(found: object, device: torch.device) -> object:
    if not isinstance(found, dict):
        raise TypeError(f"found {type(found).__name__}")
    if "tensor" in found:
        dtype = getattr(torch, found["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{found['dtype']} is no type of tensors")
        return torch.zeros([int(size) for size in found["tensor"]], dtype=dtype, device=device)
    if "tuple" in found:
        return tuple(_made(item, device) for item in found["tuple"])
    if "list" in found:
        return [_made(item, device) for item in found["list"]]
    if "dict" in found:
        return {str(key): _made(item, device) for key, item in found["dict"].items()}
    return found["value"]
