"""Carrying out a plan on a model, in place, all or nothing."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, StaleGraph, UnreachedParameters
from cutback.graph.architecture import hash_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, layer_of
from cutback.planning.plan import Plan
from cutback.surgery.optimizers import stage_optimizers
from cutback.surgery.slices import check_scales, check_slice, multiplied, sliced
from cutback.surgery.transaction import Transaction
from cutback.surgery.verify import Proof
from cutback.surgery.verify import prove as prove_plan


def cut_in_place(
    graph: Graph,
    plan: Plan,
    *,
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
    prove: bool = True,
    ignore_unreached: bool = False,
) -> Proof | None:
    """Carry out a plan. See ``cutback.apply_`` for the arguments and the errors."""
    model = graph.model
    _check_fits(graph, plan)
    if not ignore_unreached:
        _check_unreached(graph, plan)
    proof = prove_plan(graph, plan) if prove else None
    # Parameters made in inference mode could never be trained again.
    with torch.inference_mode(mode=False):
        transaction = Transaction()
        stage_cut(transaction, model, plan)
        for copy in copies:
            stage_cut(transaction, copy, plan)
        stage_optimizers(transaction, optimizers, dict(model.named_parameters()), plan.slices)
        transaction.commit()
    return proof


def stage_cut(transaction: Transaction, model: nn.Module, plan: Plan) -> None:
    """Stage the cut of a model, or of a copy that wraps one under ``module.`` (EMA).

    Gradients are cut along; those of slices that are multiplied are divided, as the chain rule has it.

    Raises:
        ArchitectureMismatch: the plan does not fit it.
    """
    states = state_tensors(model)
    prefix = "module." if next(iter(plan.slices), "") not in states else ""
    for name in dict.fromkeys([*plan.slices, *plan.scales]):
        dimensions, scales = plan.slices.get(name, {}), plan.scales.get(name, ())
        for dimension, kept in dimensions.items():
            check_slice(states, prefix + name, dimension, kept)
        check_scales(states, prefix + name, scales)
        tensor = states[prefix + name]
        data = sliced(multiplied(tensor.detach(), scales), dimensions)
        gradient = None
        if tensor.grad is not None:
            gradient = sliced(multiplied(tensor.grad, scales, inverse=True), dimensions)
        transaction.set_tensor(tensor, data, gradient)
    for path, values in plan.attributes.items():
        module = model.get_submodule(prefix + path)
        for attribute, value in values.items():
            transaction.set_attribute(module, attribute, value)


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
    if hash_of(graph.model) != plan.architecture:
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
    reached = {name for name, _ in graph.model.named_parameters() if name not in unreached}
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
