"""Changes that are staged first and then all made, or none."""

from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Transaction:
    """A list of changes; ``commit`` makes them, and undoes those made if one fails or the user interrupts."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def set_tensor(self, tensor: Tensor, data: Tensor, gradient: Tensor | None) -> None:
        """Stage new data, of any shape, and a new gradient for a tensor that keeps its identity."""
        old_data, old_gradient = tensor.data, tensor.grad
        self._steps.append(
            (lambda: _replace(tensor, data, gradient), lambda: _replace(tensor, old_data, old_gradient)),
        )

    def set_attribute(self, owner: object, name: str, value: object) -> None:
        """Stage an attribute."""
        old = getattr(owner, name)
        self._steps.append((lambda: setattr(owner, name, value), lambda: setattr(owner, name, old)))

    def set_item(self, owner: MutableMapping[str, object], key: str, value: object) -> None:
        """Stage an entry of a mapping."""
        old = owner[key]
        self._steps.append((lambda: owner.__setitem__(key, value), lambda: owner.__setitem__(key, old)))

    def add_guard(self, module: nn.Module, guard: Callable[[nn.Module, object], None]) -> None:
        """Stage a hook that runs before a module's forward, ahead of all others."""
        handles: list[RemovableHandle] = []

        def undo() -> None:
            for handle in handles:
                handle.remove()

        self._steps.append((lambda: handles.append(module.register_forward_pre_hook(guard, prepend=True)), undo))

    def commit(self) -> None:
        """Make all changes."""
        begun = 0
        try:
            for make, _ in self._steps:
                begun += 1
                make()
        except BaseException:
            for _, undo in reversed(self._steps[:begun]):
                undo()
            raise


def _replace(tensor: Tensor, data: Tensor, gradient: Tensor | None) -> None:
    """Give a tensor other data and gradient.

    A backward pass of before may still be alive (a loss in the user's loop) and with it the node that accumulates this
    tensor's gradient, which knows the old shape. Torch drops that node only when the type changes, hence the detour.
    """
    tensor.grad = None
    if data.shape != tensor.shape:
        other = torch.float16 if data.dtype != torch.float16 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=data.device)
    tensor.data = data
    tensor.grad = gradient
