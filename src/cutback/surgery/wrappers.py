"""Wrappers around a model that was cut: the old ones refuse to run, and new ones are made with the same settings."""

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import distributed, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cutback.errors import DifferentCuts, StaleWrapper, UserMistake
from cutback.graph.unwrap import inside, is_compiled
from cutback.planning.plan import Plan
from cutback.surgery.transaction import Transaction

_MIB = 1024 * 1024


def rewrap(model: nn.Module) -> nn.Module:
    """Wrap a model that was cut anew, with the settings its wrapper had.

    ``DistributedDataParallel`` sorts parameters into buckets of fixed sizes when it is made and hooks itself to their
    gradients; after a cut it refuses to run (``StaleWrapper``) until this is called, on every rank alike. It checks
    that the parameters have the same shapes on all ranks. Hooks registered with ``register_comm_hook`` are registered
    again. A compiled model compiles itself anew for the new shapes even without this. Wrappers within wrappers are all
    made anew; a module that is none is returned as it is, so that a loop may always call this.

    Args:
        model: the wrapper: ``DistributedDataParallel``, ``DataParallel`` or what ``torch.compile`` returns.

    Returns:
        The new wrapper, around the same model. Use it in the place of the old one from then on.

    Raises:
        UserMistake: a wrapper of another class derived from these, or of mixed precision or delayed reduction, which
            cannot be made anew from outside.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> compiled = torch.compile(net, backend="eager")
        >>> graph = cutback.trace(compiled, torch.zeros(1, 3, 8, 8))
        >>> proof = cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
        >>> compiled = cutback.rewrap(compiled)
        >>> net[0].out_channels, tuple(compiled(torch.zeros(1, 3, 8, 8)).shape)
        (4, (1, 2, 4, 4))
    """
    inner = inside(model)
    if inner is None:
        return model
    inner = rewrap(inner)
    if is_compiled(model):
        return model.dynamo_ctx(inner)  # type: ignore[operator] # the backend, mode and options of torch.compile
    if type(model) is DataParallel:
        settings = {name: vars(model)[name] for name in ("output_device", "dim") if name in vars(model)}
        new: nn.Module = DataParallel(inner, model.device_ids or None, **settings)
    elif type(model) is DistributedDataParallel:
        new = _data_parallel(model, inner)
    else:
        raise UserMistake(f"{type(model).__name__} is a wrapper of its own kind; make it anew around the cut model")
    new.training = model.training
    return new


def check_same_on_all_ranks(wrappers: Iterable[nn.Module], plan: Plan) -> None:
    """Check that all processes which train a model together cut it alike; they have to call this together.

    Raises:
        DifferentCuts: raised in every process alike.
    """
    cut = {name: {d: kept.indices for d, kept in dimensions.items()} for name, dimensions in plan.slices.items()}
    digest = hashlib.sha256(json.dumps([plan.architecture, cut], sort_keys=True).encode()).digest()
    for wrapper in wrappers:
        if isinstance(wrapper, DistributedDataParallel):
            own = torch.tensor(list(digest), dtype=torch.uint8, device=wrapper.device)
            ranks = distributed.get_world_size(wrapper.process_group)
            found = [torch.empty_like(own) for _ in range(ranks)]
            distributed.all_gather(found, own, group=wrapper.process_group)
            if any(not torch.equal(other, own) for other in found):
                raise DifferentCuts(
                    f"the {ranks} processes have made different plans; make one from what they share (weights, or "
                    "scores averaged over all), or on one rank and send it to the others (to_json, from_json)"
                )


def stage_refusal(transaction: Transaction, wrapper: nn.Module) -> None:
    """Stage that a wrapper which a cut makes useless refuses to run."""
    if isinstance(wrapper, DistributedDataParallel):
        transaction.add_guard(wrapper, _refuse)


def _refuse(wrapper: nn.Module, _inputs: object) -> NoReturn:
    raise StaleWrapper(
        f"the model inside this {type(wrapper).__name__} was cut, and it would no longer exchange all gradients; "
        "use what cutback.rewrap(model) returns in its place"
    )


def _data_parallel(old: DistributedDataParallel, inner: nn.Module) -> DistributedDataParallel:
    """Make a ``DistributedDataParallel`` anew."""
    if old.mixed_precision is not None or old._delay_all_reduce_params:  # noqa: SLF001 (no public name for either)
        raise UserMistake(
            "a DistributedDataParallel with mixed_precision or delayed all-reduce has changed the model inside it and "
            "cannot be made anew; cut the model before it is wrapped"
        )
    settings: dict[str, Any] = {
        "device_ids": old.device_ids,
        "output_device": old.output_device,
        "dim": old.dim,
        "broadcast_buffers": old.broadcast_buffers,
        "process_group": old.process_group,
        "bucket_cap_mb": None if old.bucket_bytes_cap_default else old.bucket_bytes_cap / _MIB,
        "find_unused_parameters": old.find_unused_parameters,
        "gradient_as_bucket_view": old.gradient_as_bucket_view,
        "static_graph": old.static_graph,
    }
    # Settings that only some versions of torch know.
    known = inspect.signature(DistributedDataParallel).parameters
    later = ("skip_all_reduce_unused_params", "batched_grad_copy")
    settings |= {name: vars(old)[name] for name in later if name in known and name in vars(old)}
    if "bucket_cap_mb_list" in known and vars(old).get("bucket_bytes_cap_list"):
        settings["bucket_cap_mb_list"] = [size / _MIB for size in vars(old)["bucket_bytes_cap_list"]]
    with warnings.catch_warnings():
        # Its successor would overwrite buffers that differ between ranks; this one leaves them as they are.
        warnings.filterwarnings("ignore", message="`broadcast_buffers`", category=FutureWarning)
        new = DistributedDataParallel(inner, **settings)
    for hook, state in old._comm_hooks:  # noqa: SLF001 (as above)
        new.register_comm_hook(state, hook)
    return new
