"""The memory that a forward pass of the model itself takes while it runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from cutback.graph.clone import set_training, state_tensors
from cutback.graph.inputs import Inputs, tensors_in


@dataclass(frozen=True)
class RunTimeMemory:
    """What a forward pass takes, in bytes.

    Attributes:
        model: parameters and buffers, which lie there all the time.
        activations: the most that was there at once during the pass beyond what was there before it.
    """

    model: int
    activations: int

    @property
    def peak(self) -> int:
        """Model and activations together."""
        return self.model + self.activations


def run_time_memory(model: nn.Module, example_inputs: object) -> RunTimeMemory:
    """Measure one forward pass in eval mode without gradients, on the device of the inputs, at their batch size.

    On a CUDA device it is what PyTorch's allocator hands out, what operators need while they run included. Elsewhere it
    is the tensors that live at once, as the model's own code holds and drops them. ``peak_memory`` tells instead what
    the captured graph needs for a batch of one, where each result is dropped after its last use.

    Args:
        model: any module; its mode is put back.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Example:
        >>> from torch import nn, zeros
        >>> net = nn.Sequential(nn.Linear(10, 1000), nn.ReLU(), nn.Linear(1000, 2))
        >>> found = run_time_memory(net, zeros(8, 10))
        >>> found.model, found.activations
        (52008, 64000)
    """
    inputs = Inputs.of(example_inputs)
    own = sum(state.numel() * state.element_size() for state in state_tensors(model).values())
    device = inputs.tensors()[0].device
    before = set_training(model, False)
    try:
        with torch.no_grad():
            model(*inputs.positional, **inputs.keyword)  # what is made once, at the first pass, is no part of each
            measure = _on_gpu if device.type == "cuda" else _on_cpu
            return RunTimeMemory(own, measure(model, inputs, device))
    finally:
        set_training(model, before)


class _Alive(TorchDispatchMode):
    """Notes the most bytes of tensors that live at once, each piece of memory once however many views it has.

    Args:
        given: tensors that were there before.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.most = 0
        self._given = {StorageWeakRef(tensor.untyped_storage()) for tensor in given}
        self._sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            if reference not in self._given:
                self._sizes[reference] = storage.nbytes()
        self._sizes = {reference: size for reference, size in self._sizes.items() if not reference.expired()}
        self.most = max(self.most, sum(self._sizes.values()))
        return result


def _on_cpu(model: nn.Module, inputs: Inputs, _: torch.device) -> int:
    """Return the most bytes of tensors that live at once."""
    with _Alive([*state_tensors(model).values(), *inputs.tensors()]) as alive:
        model(*inputs.positional, **inputs.keyword)
    return alive.most


def _on_gpu(model: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """Return by how much the pass raises the device's highest figure."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    model(*inputs.positional, **inputs.keyword)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
