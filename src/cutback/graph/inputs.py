"""Example inputs in any shape a user brings them, and tensors in any nest a model returns them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from cutback.errors import UserMistake


def tensors_in(nest: object) -> Iterator[Tensor]:
    """Yield the tensors of a nest of mappings, sequences and dataclasses, in a fixed order."""
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, Mapping):
        for value in nest.values():
            yield from tensors_in(value)
    elif isinstance(nest, Sequence) and not isinstance(nest, str | bytes):
        for value in nest:
            yield from tensors_in(value)
    elif dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        for field in dataclasses.fields(nest):
            yield from tensors_in(getattr(nest, field.name))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a model is called with: positional and keyword arguments, each any nest of tensors.

    Attributes:
        positional: positional arguments.
        keyword: keyword arguments.
    """

    positional: tuple[object, ...]
    keyword: dict[str, object]

    @classmethod
    def of(cls, example_inputs: object) -> "Inputs":
        """Read example inputs: a tensor is the only argument, a tuple the positional ones, a dict the keyword ones.

        Raises:
            UserMistake: there is no tensor in them.
        """
        if isinstance(example_inputs, Inputs):
            return example_inputs
        if isinstance(example_inputs, Mapping):
            inputs = cls((), {str(name): value for name, value in example_inputs.items()})
        elif isinstance(example_inputs, tuple | list):
            inputs = cls(tuple(example_inputs), {})
        else:
            inputs = cls((example_inputs,), {})
        if not inputs.tensors():
            kind = type(example_inputs).__name__
            raise UserMistake(
                f"example inputs hold no tensor (got {kind}); pass a tensor, a tuple or a dict of tensors"
            )
        return inputs

    def tensors(self) -> list[Tensor]:
        """Return the tensors among the arguments, in a fixed order."""
        leaves = pytree.tree_leaves((self.positional, self.keyword))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def replaced(self, tensors: Sequence[Tensor]) -> "Inputs":
        """Return the same arguments with the tensors replaced, in the order of ``tensors()``."""
        supply = iter(tensors)
        return self.map(lambda _: next(supply))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Inputs":
        """Return the same arguments with ``function`` applied to each tensor."""
        positional, keyword = pytree.tree_map_only(Tensor, function, (self.positional, self.keyword))
        return Inputs(positional, keyword)

    def doubled_batch(self) -> "Inputs":
        """Return the inputs with a batch of one followed by a second, different sample.

        A batch norm cannot train on a single value, and of two equal ones it computes nothing but rounding errors.
        """
        generator = torch.Generator().manual_seed(0)

        def doubled(tensor: Tensor) -> Tensor:
            if not tensor.dim() or len(tensor) != 1:
                return tensor
            second = tensor
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
                second = tensor + noise
            return torch.cat([tensor, second])

        return self.map(doubled)

    def describe(self) -> str:
        """Return the tensors' shapes in words, for messages."""
        return ", ".join(str(tuple(tensor.shape)) for tensor in self.tensors())
