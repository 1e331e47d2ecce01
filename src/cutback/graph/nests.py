"""What a model returns: nests of mappings, sequences and dataclasses, taken apart and put together again."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor

from cutback.errors import CaptureError
from cutback.graph.origins import plain


@dataclass(frozen=True)
class Hole:
    """The place of a tensor in a nest.

    Attributes:
        number: which of the nest's tensors, in the order of ``tensors_in``.
    """

    number: int


def shape_of(nest: object) -> object:
    """Return a nest with holes for its tensors, in the order of ``tensors_in``."""
    numbers = count()
    return _mapped(nest, Tensor, lambda _: Hole(next(numbers)))


def filled(nest: object, tensors: Sequence[Tensor]) -> object:
    """Return a nest with tensors in the place of its holes.

    Raises:
        CaptureError: an object in it cannot be made again.
    """
    return _mapped(nest, Hole, lambda hole: tensors[hole.number])


def _mapped(nest: Any, kind: type, change: Callable[[Any], object]) -> Any:  # noqa: ANN401 (whatever a model returns)
    """Return a nest of the same types with every object of a kind replaced."""
    if isinstance(nest, kind):
        return change(nest)
    try:
        if isinstance(nest, Mapping):
            made = copy.copy(nest)
            for key, value in nest.items():
                made[key] = _mapped(value, kind, change)  # type: ignore[index]
            return made
        if isinstance(nest, tuple) and hasattr(nest, "_fields"):
            return type(nest)(*(_mapped(value, kind, change) for value in nest))
        if isinstance(nest, Sequence) and not isinstance(nest, str | bytes | range):
            return type(nest)([_mapped(value, kind, change) for value in nest])  # type: ignore[call-arg]
        if dataclasses.is_dataclass(nest) and not isinstance(nest, type | Hole):
            made = copy.copy(nest)
            for field in dataclasses.fields(nest):
                object.__setattr__(made, field.name, _mapped(getattr(nest, field.name), kind, change))
            return made
    except (TypeError, AttributeError, ValueError) as error:
        raise CaptureError(
            f"the model returns a {type(nest).__name__}, which cannot be made again ({error})"
        ) from error
    return plain(nest)
