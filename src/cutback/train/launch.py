"""Where training runs: on one device, or in several processes that ``torchrun`` or ``accelerate launch`` started."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cutback.errors import CutbackError, UserMistake
from cutback.graph.clone import state_tensors
from cutback.train.settings import Precision

if TYPE_CHECKING:
    from accelerate import Accelerator

Value = TypeVar("Value")
TIMEOUT = 1800.0
GROUP_REST_SECONDS = 0.1
FAILURE = "cutback/failure"
LOST = ("Connection closed", "Connection reset", "Broken pipe", "imed out", "timeout", "Socket", "NCCL", "recv", "peer")
"""What messages of torch.distributed about a lost process hold."""


class MissingExtra(UserMistake):
    """A package is needed that comes with an extra of cutback's installation."""


class RankFailed(CutbackError):
    """Another process that trains along has failed, or does not answer."""


class Launch:
    """The processes that train together, and this one's device; made by ``launched``.

    Attributes:
        device: where this process computes.
        rank: its number, from 0.
        ranks: how many there are.
        scaler: of the loss, where the precision is fp16.
    """

    def __init__(self, device: torch.device, accelerator: "Accelerator | None" = None) -> None:
        self._accelerator = accelerator
        self.device = device
        self.rank: int = accelerator.process_index if accelerator else 0
        self.ranks: int = accelerator.num_processes if accelerator else 1
        self.scaler: torch.amp.GradScaler | None = accelerator.scaler if accelerator else None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that evaluates, writes and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a model as it is trained: wrapped where gradients are averaged over processes."""
        if self.ranks == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass, in the precision asked for."""
        return self._accelerator.autocast() if self._accelerator else contextlib.nullcontext()

    def alone(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which gradients are not averaged over processes yet."""
        return self._accelerator.no_sync(model) if self._accelerator else contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Run a backward pass, scaled where the precision needs it."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Return what the main process makes, in all processes."""
        if self.ranks == 1:
            return make()
        held: list[Any] = [make() if self.is_main else None]
        distributed.broadcast_object_list(held, src=0, device=self._exchange)
        return held[0]

    def gathered(self, value: Value) -> list[Value]:
        """Return what each process passes, by rank, in all processes."""
        if self.ranks == 1:
            return [value]
        held: list[Any] = [None] * self.ranks
        distributed.all_gather_object(held, value)
        return held

    def share(self, model: nn.Module) -> None:
        """Give all processes the main one's parameters and buffers."""
        if self.ranks > 1:
            for tensor in state_tensors(model).values():
                distributed.broadcast(tensor.data, src=0)

    @property
    def _exchange(self) -> torch.device:
        return self.device if distributed.get_backend() == "nccl" else torch.device("cpu")


@contextlib.contextmanager
def launched(
    device: torch.device | str = "cpu", precision: Precision = "no", *, timeout: float = TIMEOUT
) -> Iterator[Launch]:
    """Find out where and among how many processes training runs; nothing of it is left behind on exit.

    Several processes and mixed precision run on accelerate; a single process in float32 needs none of it. An error that
    ends the block in one process ends it in all: those that wait for the failed one raise ``RankFailed`` with its
    error, or after ``timeout`` seconds without an answer.

    Args:
        device: where to compute; among several processes on GPUs each takes its own.
        precision: ``no``, ``bf16`` or ``fp16``.
        timeout: seconds for which processes wait for each other.

    Raises:
        MissingExtra: accelerate is needed and not installed.
        UserMistake: the device cannot compute so, or accelerate is in use with other settings.
        RankFailed: another process has failed.
    """
    place = torch.device(device)
    if precision == "no" and not _several():
        yield Launch(place)
        return
    accelerator, release = _accelerator(place, precision, timeout)
    launch = Launch(accelerator.device if accelerator.num_processes > 1 else place, accelerator)
    try:
        yield launch
    except BaseException as error:
        if launch.ranks > 1:
            _raise_others(error, launch.rank)
        raise
    finally:
        release()


def _several() -> bool:
    """Say whether this is one of several processes, as their launcher tells."""
    joined = distributed.is_available() and distributed.is_initialized()
    return joined or int(os.environ.get("WORLD_SIZE", "1")) > 1


def _accelerator(place: torch.device, precision: Precision, timeout: float) -> "tuple[Accelerator, Callable[[], None]]":
    """Return an accelerator and what takes its global state back, as far as it was made here."""
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs  # noqa: PLC0415 (optional, and slow to import)
        from accelerate.state import AcceleratorState, GradientState, PartialState  # noqa: PLC0415 (as above)
    except ImportError as error:
        raise MissingExtra(
            f"several processes and mixed precision need accelerate ({error}); install it with: "
            "pip install 'cutback[train]'"
        ) from error
    if precision == "fp16" and place.type == "cpu":
        raise UserMistake("fp16 needs a GPU, as gradients are scaled there; use precision bf16 or no on the CPU")
    ours, joined = AcceleratorState._shared_state == {}, distributed.is_initialized()  # noqa: SLF001 (no public name)
    alone = PartialState._shared_state == {} and not joined  # noqa: SLF001 (as above)

    def release() -> None:
        if ours:
            AcceleratorState._reset_state(reset_partial_state=alone)  # noqa: SLF001 (as above)
            GradientState._reset_state()  # noqa: SLF001 (as above)
        if alone and distributed.is_initialized():
            # The group's threads need the interpreter once more to let go of what they reduced; PyTorch does not give
            # way to them where Python drops the group meanwhile, and may wait for ever.
            time.sleep(GROUP_REST_SECONDS)
            distributed.destroy_process_group()

    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
    try:
        return Accelerator(mixed_precision=precision, cpu=place.type == "cpu", kwargs_handlers=[waiting]), release
    except (ValueError, RuntimeError) as error:
        release()
        raise UserMistake(
            f"accelerate cannot train on {place} with precision {precision!r}: {' '.join(str(error).split())}"
        ) from error


def _raise_others(error: BaseException, rank: int) -> None:
    """Tell the other processes of an error here; raise theirs if this one is only what it has led to."""
    store = distributed.distributed_c10d._get_default_store() if distributed.is_initialized() else None  # noqa: SLF001 (no public name)
    lost = isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)
    try:
        if store is None:
            return
        if not lost:
            store.set(FAILURE, f"rank {rank} failed: {type(error).__name__}: {error}")
            return
        told = store.get(FAILURE).decode() if store.check([FAILURE]) else ""
    except RuntimeError:  # the store went with the process that held it
        told = ""
    if lost:
        raise RankFailed(
            told
            or f"a process that trains along has ended or does not answer, as rank {rank} found "
            f"({' '.join(str(error).split())[:200]}); look for its own message"
        ) from error
