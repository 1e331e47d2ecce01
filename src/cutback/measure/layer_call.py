"""A call whose time is measured alone, at any widths."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._ops import OpOverload


@dataclass(frozen=True, eq=False)
class Axis:
    """A width that follows a cut.

    Attributes:
        dense: its size before.
        units: how much of it one unit of each group brings, shape ``(groups,)``.
        fixed: how much of it always stays.
        multiple: it is only ever a multiple of this.
    """

    dense: int
    units: NDArray[np.float64]
    fixed: int
    multiple: int = 1


@dataclass(frozen=True)
class Size:
    """A size in a call.

    Attributes:
        dense: the size before a cut.
        axis: number of the axis it follows; ``None`` where it stays.
        share: its share of that axis.
    """

    dense: int
    axis: int | None = None
    share: Fraction = Fraction(1)

    def at(self, widths: Sequence[int]) -> int:
        """Return the size where the axes have the given widths."""
        return self.dense if self.axis is None else max(round(widths[self.axis] * self.share), 1)

    def written(self) -> object:
        """Return what a key says of it: of what follows an axis only how."""
        return self.dense if self.axis is None else f"{self.axis}*{self.share}"


@dataclass(frozen=True)
class Operand:
    """A tensor of a call.

    Attributes:
        shape: its dimensions.
        dtype: its element type.
        channels_last: whether its channels lie innermost in memory.
    """

    shape: tuple[Size, ...]
    dtype: torch.dtype
    channels_last: bool = False

    def made(self, widths: Sequence[int], device: torch.device) -> Tensor:
        """Return a tensor of ones (of integers: zeros, which index anything), so that no value slows a call down."""
        fill = 1 if self.dtype.is_floating_point or self.dtype.is_complex else 0
        tensor = torch.full([size.at(widths) for size in self.shape], fill, dtype=self.dtype, device=device)
        return tensor.contiguous(memory_format=torch.channels_last) if self.channels_last else tensor

    def written(self) -> object:
        """Return what a key says of it."""
        return [[size.written() for size in self.shape], str(self.dtype), self.channels_last]


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A call of an operator, apart from the widths that follow a cut.

    Attributes:
        target: the operator.
        arguments: by the names of its schema, with an ``Operand`` for each tensor and a ``Size`` for each size that
            follows a cut.
        axes: the widths it depends on: none; one; or those of input and output.
        path: path of the module that makes it.
    """

    target: OpOverload
    arguments: Mapping[str, object]
    axes: tuple[Axis, ...]
    path: str = ""

    @property
    def dense(self) -> tuple[int, ...]:
        """The widths before a cut."""
        return tuple(axis.dense for axis in self.axes)

    @property
    def key(self) -> str:
        """What two calls have in common that take the same time at the same widths."""

        def written(value: object) -> object:
            return value.written() if isinstance(value, Operand | Size) else str(value)

        return json.dumps([str(self.target), self.arguments], default=written, separators=(",", ":"))

    def prepared(self, widths: Sequence[int], device: torch.device) -> Callable[[], object]:
        """Return the call on tensors of its own, its axes having the given widths."""

        def filled(value: object) -> object:
            if isinstance(value, Operand):
                return value.made(widths, device)
            if isinstance(value, Size):
                return value.at(widths)
            return [filled(item) for item in value] if isinstance(value, list | tuple) else value

        arguments = {name: filled(value) for name, value in self.arguments.items()}
        return lambda: self.target(**arguments)
