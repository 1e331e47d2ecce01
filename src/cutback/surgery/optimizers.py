"""Carrying an optimiser's per-parameter state along with a cut."""

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.utils import _pytree as pytree

from cutback.errors import OptimizerStateError
from cutback.planning.plan import Kept
from cutback.surgery.flat_history import stage_flat_history
from cutback.surgery.slices import sliced
from cutback.surgery.transaction import Transaction


def stage_optimizers(
    transaction: Transaction,
    optimizers: Iterable[Optimizer],
    parameters: Mapping[str, Tensor],
    slices: Mapping[str, Mapping[int, Kept]],
) -> None:
    """Stage the cut of all state the optimisers hold for the parameters.

    A state tensor is cut along every dimension in which it has the parameter's size; one of size 1 there (a factored
    second moment) and a lone number (a step count) stay. Every optimiser of ``torch.optim`` is covered, and any other
    that keeps its state by parameter; for L-BFGS see ``stage_flat_history``.

    Args:
        transaction: receives the changes.
        optimizers: any number of optimisers.
        parameters: the model's parameters by qualified name, before the cut.
        slices: the plan's slices.

    Raises:
        OptimizerStateError: a state tensor has another shape, or an optimiser keeps its history in one piece.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    for optimizer in optimizers:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not any(names.get(id(parameter)) in slices for parameter in held):
            continue
        if isinstance(optimizer, LBFGS):
            stage_flat_history(transaction, optimizer, names, slices)
            continue
        for parameter, state in optimizer.state.items():
            name = names.get(id(parameter), "")
            for key, value in state.items():
                where = f"{type(optimizer).__name__}: {key} of {name or 'a parameter of another model'}"
                _refuse_history(value, parameter, where)
                if name in slices and isinstance(value, Tensor) and value.dim():
                    transaction.set_item(state, key, _cut_state(value, parameter, slices[name], where))


def _refuse_history(value: object, parameter: Tensor, where: str) -> None:
    """Refuse what spans several parameters: containers of tensors, and tensors larger than the parameter."""
    leaves = pytree.tree_leaves(value)
    if any(isinstance(leaf, Tensor) and (leaf is not value or leaf.numel() > parameter.numel()) for leaf in leaves):
        raise OptimizerStateError(
            f"{where} is not one tensor that belongs to this parameter, so it cannot be cut; prune without it "
            "and make a new optimiser for the pruned model"
        )


def _cut_state(value: Tensor, parameter: Tensor, dimensions: Mapping[int, Kept], where: str) -> Tensor:
    """Cut one state tensor of a parameter."""
    if value.dim() != parameter.dim() or any(
        size not in (1, whole) for size, whole in zip(value.shape, parameter.shape, strict=True)
    ):
        raise OptimizerStateError(
            f"{where} has shape {tuple(value.shape)} for a parameter of shape {tuple(parameter.shape)}, which cannot "
            "be cut along; make a new optimiser for the pruned model"
        )
    own = {d: kept for d, kept in dimensions.items() if value.shape[d] == parameter.shape[d]}
    return sliced(value, own)
