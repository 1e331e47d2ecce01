"""Finding the model inside what PyTorch wraps around it."""

import sys
from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cutback.errors import UserMistake

_SHARDED = ("torch.distributed.fsdp", ("FullyShardedDataParallel", "FSDPModule"))


def wrappers_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the wrappers around a model, outermost first: ``DistributedDataParallel``, ``DataParallel``, compiled."""
    while (inner := inside(model)) is not None:
        yield model
        model = inner


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself.

    Raises:
        UserMistake: its parameters are sharded, so that no single process has it whole.
    """
    while (inner := inside(model)) is not None:
        model = inner
    if any(isinstance(module, _sharded()) for module in model.modules()):
        raise UserMistake(
            f"{type(model).__name__} is sharded over several processes; cut it before it is sharded (FSDP)"
        )
    return model


def inside(model: nn.Module) -> nn.Module | None:
    """Return what a wrapper wraps, ``None`` if the module is none."""
    if isinstance(model, DistributedDataParallel | DataParallel):
        return model.module
    return model._modules["_orig_mod"] if is_compiled(model) else None


def is_compiled(model: nn.Module) -> bool:
    """Say whether a module is what ``torch.compile`` returns."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # slow to import, and loaded wherever something is compiled
    return compiler is not None and isinstance(model, compiler.OptimizedModule)


def _sharded() -> tuple[type, ...]:
    """Return the classes of sharded modules, where they have been imported at all."""
    place, names = sys.modules.get(_SHARDED[0]), _SHARDED[1]
    return tuple(getattr(place, name) for name in names if hasattr(place, name))
