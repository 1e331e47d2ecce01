"""Forward passes for a proof: on given states, with every module's output kept, exact and repeatable."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cutback.graph.capture import DropoutOff, ModuleRecorder
from cutback.graph.clone import set_training
from cutback.graph.inputs import Inputs, tensors_in


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass.

    Attributes:
        paths: the module that returned each tensor; empty for the model's outputs, which come first.
        tensors: the model's outputs, then every module's in the order they finished.
        outputs: how many of them are the model's outputs.
        leaves: the states it ran on.
    """

    paths: Sequence[str]
    tensors: Sequence[Tensor]
    outputs: int
    leaves: Mapping[str, Tensor]


class Runner:
    """Runs a structural clone's own Python forward on given states.

    Args:
        clone: the clone; its own tensors are not used.
        training: whether it runs in train mode.
    """

    def __init__(self, clone: nn.Module, *, training: bool) -> None:
        self._clone = clone
        set_training(self._clone, training)
        self._recorder = ModuleRecorder(self._clone)

    def __call__(self, states: Mapping[str, Tensor], inputs: Inputs) -> Run:
        """Run a forward pass, without dropout."""
        self._recorder.reset()
        with DropoutOff():
            results = functional_call(self._clone, dict(states), inputs.positional, inputs.keyword)
        outputs = list(tensors_in(results))
        paths = ["" for _ in outputs] + [path for path, _ in self._recorder.returned]
        return Run(paths, [*outputs, *(tensor for _, tensor in self._recorder.returned)], len(outputs), states)

    @property
    def running(self) -> str:
        """Path of the module in which the last forward stopped."""
        return self._recorder.running


def single(tensor: Tensor) -> Tensor:
    """Return half-precision tensors as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def double(tensor: Tensor) -> Tensor:
    """Return real tensors as float64."""
    return tensor.double() if tensor.is_floating_point() else tensor


def redrawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal random numbers for real inputs; indices and masks stay what they are."""
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)


@contextmanager
def exact(devices: Iterable[torch.device]) -> Iterator[None]:
    """Turn TF32 and autocast off; the model's own warnings were heard when the user ran it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")
            for kind in {device.type for device in devices}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before  # pyright: ignore[reportAttributeAccessIssue]
