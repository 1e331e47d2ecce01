"""Forward passes for a proof: on given states, with every module's output kept, exact and repeatable."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cutback.graph.attributes import Changes, set_attributes
from cutback.graph.capture import Capture, DropoutOff, ModuleRecorder
from cutback.graph.clone import own_tensors, set_training, state_tensors, structural_clone
from cutback.graph.inputs import Inputs, tensors_in


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass.

    Attributes:
        paths: the module that returned each tensor; empty for the model's outputs, which come first.
        tensors: the model's outputs, then every module's in the order they finished.
        outputs: how many of them are the model's outputs.
        leaves: the states it ran on; empty where they are no longer needed.
        reached: the parameters its outputs' autograd graph ends in, where somebody will ask.
    """

    paths: Sequence[str]
    tensors: Sequence[Tensor]
    outputs: int
    leaves: Mapping[str, Tensor]
    reached: frozenset[str] = frozenset()


class Runner:
    """Runs a model's own Python forward on given states, each time on a fresh structural clone (models may cache).

    Args:
        model: the model; its own tensors are not used.
        training: whether it runs in train mode.
        changes: width attributes to be set first.
    """

    def __init__(self, model: nn.Module, *, training: bool, changes: Changes = ()) -> None:
        self._model, self._training, self._changes = model, training, changes
        self.running = ""

    def __call__(self, states: Mapping[str, Tensor], inputs: Inputs, *, float64: bool = False) -> Run:
        """Run a forward pass, without dropout; ``running`` is the module in which one stopped.

        Args:
            states: parameters and buffers by qualified name.
            inputs: the inputs.
            float64: compute in float64 also what the model's code casts to float32.
        """
        clone = structural_clone(self._model)
        set_attributes(clone, self._changes)
        set_training(clone, self._training)
        # The clone gets the states as its own: a checkpointed part runs again during the backward pass.
        own_tensors(clone, states)
        recorder = ModuleRecorder(clone)
        try:
            with DropoutOff(), Float64() if float64 else nullcontext():
                results = clone(*inputs.positional, **inputs.keyword)
        finally:
            self.running = recorder.running
        outputs = list(tensors_in(results))
        paths = ["" for _ in outputs] + [path for path, _ in recorder.returned]
        tensors = [*outputs, *(tensor for _, tensor in recorder.returned)]
        return Run(paths, tensors, len(outputs), state_tensors(clone))


class Float64(TorchFunctionMode):
    """Makes float64 of what a model's code asks for in float32: its rounding would hide what is to be compared."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Pass a call on with the other type."""
        func = Tensor.double if func is Tensor.float else func
        kwargs = {name: _widened(value) for name, value in (kwargs or {}).items()}
        return func(*map(_widened, args), **kwargs)


def widened(recorded: Capture) -> Capture:
    """Return a capture whose calls, changed in place, ask for float64 in the place of float32."""
    for node in recorded.graph.nodes:
        if node.op == "call_function":
            node.args = tuple(map(_widened, node.args))
            node.kwargs = {name: _widened(value) for name, value in node.kwargs.items()}
    return recorded


def _widened(value: Any) -> Any:  # noqa: ANN401 (any argument)
    return torch.float64 if value is torch.float32 else value


def single(tensor: Tensor) -> Tensor:
    """Return half-precision tensors as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def double(tensor: Tensor) -> Tensor:
    """Return real tensors as float64."""
    return tensor.double() if tensor.is_floating_point() else tensor


def nudge(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return float64 values changed by at most 1e-15 of each, several units in the last place; others as they are."""
    if not tensor.is_floating_point():
        return tensor
    shares = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
    return tensor * (1 + (2 * shares - 1) * 1e-15)


def redrawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal random numbers for real inputs; indices and masks stay what they are."""
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)


def redrawn_in_range(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform random numbers between the smallest and the largest value of a real input."""
    if not tensor.is_floating_point():
        return tensor
    drawn = torch.rand(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)
    return tensor.amin() + drawn * (tensor.amax() - tensor.amin())


def _float32_settings() -> list[Any]:
    """Return what decides how exact float32 is on CUDA."""
    backends: Any = torch.backends
    return [backends.cuda.matmul, backends.cudnn.conv]


@contextmanager
def exact(devices: Iterable[torch.device]) -> Iterator[None]:
    """Turn TF32 and autocast off; the model's own warnings were heard when the user ran it."""
    used = {device.type for device in devices}
    settings = _float32_settings() if "cuda" in used else []
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")
            for kind in used:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
