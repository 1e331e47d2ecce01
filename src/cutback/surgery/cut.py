"""Carrying out a plan on a model, in place, all or nothing."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, StaleGraph, UnreachedParameters
from cutback.graph.architecture import hash_of
from cutback.graph.attributes import holder, like
from cutback.graph.clone import modules_by_path, parameters_by_name, state_tensors
from cutback.graph.graph import Graph, layer_of
from cutback.graph.unwrap import inside
from cutback.planning.plan import Plan, Width
from cutback.surgery.optimizers import stage_optimizers
from cutback.surgery.slices import check_scales, check_slice, multiplied, sliced
from cutback.surgery.transaction import Transaction
from cutback.surgery.verify import Proof
from cutback.surgery.verify import prove as prove_plan
from cutback.surgery.wrappers import check_same_on_all_ranks, stage_refusal

Gradients = Literal["cut", "clear"]


def cut_in_place(
    graph: Graph,
    plan: Plan,
    *,
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
    gradients: Gradients = "cut",
    prove: bool = True,
    ignore_unreached: bool = False,
) -> Proof | None:
    """Carry out a plan. See ``cutback.apply_`` for the arguments and the errors."""
    model = graph.model
    _check_fits(graph, plan)
    check_same_on_all_ranks(graph.wrappers, plan)
    if not ignore_unreached:
        _check_unreached(graph, plan)
    proof = prove_plan(graph, plan) if prove else None
    # Parameters made in inference mode could never be trained again.
    with torch.inference_mode(mode=False):
        transaction = Transaction()
        for cut in (model, *copies):
            stage_cut(transaction, cut, plan, gradients=gradients)
        for wrapper in graph.wrappers:
            stage_refusal(transaction, wrapper)
        optimizers = list(optimizers)
        if optimizers:
            stage_optimizers(transaction, optimizers, parameters_by_name(model), plan.slices)
        transaction.commit()
    return proof


def stage_cut(transaction: Transaction, model: nn.Module, plan: Plan, *, gradients: Gradients = "cut") -> None:
    """Stage the cut of a model, or of a copy inside a wrapper.

    Args:
        transaction: receives the changes.
        model: the model, or what holds it as ``module`` (``AveragedModel``, DDP) or is its compiled form.
        plan: a plan for the model.
        gradients: ``cut`` those present along, or ``clear`` those of all parameters.

    Gradients are cut along; those of slices that are multiplied are divided, as the chain rule has it.

    Raises:
        ArchitectureMismatch: the plan does not fit it.
    """
    model = _planned_model(model, plan)
    states = state_tensors(model)
    for name in dict.fromkeys([*plan.slices, *plan.scales]):
        dimensions, scales = plan.slices.get(name, {}), plan.scales.get(name, ())
        for dimension, kept in dimensions.items():
            check_slice(states, name, dimension, kept)
        check_scales(states, name, scales)
        tensor = states[name]
        data = sliced(multiplied(tensor.detach(), scales), dimensions)
        gradient = None
        if tensor.grad is not None and gradients == "cut":
            gradient = sliced(multiplied(tensor.grad, scales, inverse=True), dimensions)
        transaction.set_tensor(tensor, data, gradient)
    if gradients == "clear":
        for name, tensor in states.items():
            if name not in plan.slices and name not in plan.scales and tensor.grad is not None:
                transaction.set_attribute(tensor, "grad", None)
    modules = modules_by_path(model)
    for path, values in plan.attributes.items():
        for attribute, value in values.items():
            transaction.set_attribute(*_checked_attribute(model, modules, path, attribute, value))


def _checked_attribute(
    model: nn.Module, modules: Mapping[str, nn.Module], path: str, attribute: str, value: Width
) -> tuple[object, str, object]:
    """Return the holder of a width attribute, its name there, and the new value in the type of the old.

    Raises:
        ArchitectureMismatch: there is no such attribute, or what it holds is nothing this could be a cut of.
    """
    try:
        # A path under which a shared module is found again is looked up from the model.
        owner, name = holder(modules[path], "", attribute) if path in modules else holder(model, path, attribute)
    except AttributeError:
        raise ArchitectureMismatch(
            f"the plan sets {path}.{attribute}, which this {type(model).__name__} does not have; use the plan on the "
            "model it was made for"
        ) from None
    held = getattr(owner, name)
    before, after = (tuple(v) if isinstance(v, list | tuple) else (v,) for v in (held, value))
    alike = isinstance(held, list | tuple) == isinstance(value, tuple) and len(before) == len(after)
    if not alike or not all(
        type(old) is int and 0 <= new <= old and old > 0 for old, new in zip(before, after, strict=True)
    ):
        raise ArchitectureMismatch(
            f"the plan sets {path}.{attribute} to {value}, but it holds {held!r} here; use the plan on the model it "
            "was made for"
        )
    return owner, name, like(held, value)


def _planned_model(model: nn.Module, plan: Plan) -> nn.Module:
    """Return the model a plan speaks of: this one, or the one inside that holds the plan's tensors."""
    name, found = next(iter(plan.slices), ""), model
    while not _holds(found, name):
        deeper = inside(found) or getattr(found, "module", None)
        if not isinstance(deeper, nn.Module):
            return model
        found = deeper
    return found


def _holds(model: nn.Module, name: str) -> bool:
    """Say whether a model itself has a parameter or buffer of a name; what a wrapper passes on does not count."""
    path, _, own = name.rpartition(".")
    owner: nn.Module | None = model
    for part in path.split(".") if path else ():
        owner = owner._modules.get(part) if owner is not None else None
    return owner is not None and (own in owner._parameters or own in owner._buffers)


def cut_fresh(model: nn.Module, plan: Plan) -> None:
    """Carry out a plan on a fresh instance whose values do not matter.

    Raises:
        ArchitectureMismatch: the plan belongs to another architecture.
    """
    if hash_of(model) != plan.architecture:
        raise ArchitectureMismatch(
            f"the plan belongs to another architecture than this {type(model).__name__}"
            f"{_first_difference(model, plan)}; build the model as it was before pruning"
        )
    transaction = Transaction()
    stage_cut(transaction, model, plan)
    transaction.commit()


def _check_fits(graph: Graph, plan: Plan) -> None:
    """Refuse a stale graph or another architecture's plan."""
    states: Mapping[str, Tensor] = state_tensors(graph.model)
    for recorded in graph.captures:
        for name, node in zip(recorded.states, recorded.nodes, strict=False):
            if name not in states or states[name].shape != node.meta["val"].shape:
                raise StaleGraph(f"{name} has changed since the model was traced; trace it again")
    if hash_of(graph.model, states) != plan.architecture:
        raise ArchitectureMismatch(
            f"the plan belongs to another architecture than this {type(graph.model).__name__}"
            f"{_first_difference(graph.model, plan)}; make a plan from this graph"
        )


def _first_difference(model: nn.Module, plan: Plan) -> str:
    """Name the first tensor that the plan expects otherwise."""
    states = state_tensors(model)
    for name, dimensions in plan.slices.items():
        if name not in states:
            return f" (it has no {name})"
        for dimension, kept in dimensions.items():
            if states[name].dim() <= dimension or states[name].shape[dimension] != kept.total:
                return f" ({name} has shape {tuple(states[name].shape)}, the plan cuts {kept.total} along {dimension})"
    return ""


def _check_unreached(graph: Graph, plan: Plan) -> None:
    """Refuse a cut beside parameters that no captured forward pass has used."""
    unreached = set(graph.unreached)
    if not unreached:
        return
    reached = {name for name in parameters_by_name(graph.model) if name not in unreached}
    for name in graph.unreached:
        whole = layer_of(name)  # the topmost module of whose parameters none was used
        while whole and not any(other.startswith(f"{layer_of(whole)}.".lstrip(".")) for other in reached):
            whole = layer_of(whole)
        beside = f"{layer_of(whole)}.".lstrip(".")
        if any(cut.startswith(beside) for cut in plan.slices):
            raise UnreachedParameters(
                f"no captured forward pass uses {name}, and the cut changes modules beside it: it would be left at the "
                f"old width ({len(graph.unreached)} such parameters); trace with inputs that use it, or pass "
                "ignore_unreached=True to leave them as they are"
            )
