"""Carrying the history of L-BFGS along with a cut: vectors that hold all parameters one after the other."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import LBFGS

from cutback.errors import OptimizerStateError
from cutback.planning.plan import Kept
from cutback.surgery.slices import sliced
from cutback.surgery.transaction import Transaction

_LEAST_CURVATURE = 1e-10
"""What ``torch.optim.LBFGS`` asks of a pair before it remembers it."""


def stage_flat_history(
    transaction: Transaction, optimizer: LBFGS, names: Mapping[int, str], slices: Mapping[str, Mapping[int, Kept]]
) -> None:
    """Stage the cut of what L-BFGS remembers.

    Each remembered step and gradient difference is cut as its parameters are. Pairs whose curvature is no longer
    positive are forgotten, so that the next direction still descends. The last step is set to zero: the difference
    between the dense network's last gradient and the pruned one's first says nothing about curvature, and from a step
    of zero no pair is made of it.

    Args:
        transaction: receives the changes.
        optimizer: any ``torch.optim.LBFGS``; it has one parameter group.
        names: qualified names of the model's parameters, by their ``id``.
        slices: the plan's slices.

    Raises:
        OptimizerStateError: its history has another length than its parameters together.
    """
    parameters: list[Tensor] = optimizer.param_groups[0]["params"]
    transaction.set_attribute(optimizer, "_numel_cache", None)  # how many numbers its parameters hold together
    state = optimizer.state.get(parameters[0], {})
    if "old_dirs" not in state:
        return
    cuts = [slices.get(names.get(id(parameter), ""), {}) for parameter in parameters]
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for difference, step in zip(state["old_dirs"], state["old_stps"], strict=True):
        y, s = (_cut_flat(vector, parameters, cuts) for vector in (difference, step))
        curvature = y.dot(s)
        if curvature > _LEAST_CURVATURE:
            pairs.append((y, s, curvature))
    transaction.set_item(state, "old_dirs", [y for y, _, _ in pairs])
    transaction.set_item(state, "old_stps", [s for _, s, _ in pairs])
    transaction.set_item(state, "ro", [1.0 / curvature for _, _, curvature in pairs])
    transaction.set_item(state, "H_diag", pairs[-1][2] / pairs[-1][0].square().sum() if pairs else 1)
    transaction.set_item(state, "d", torch.zeros_like(_cut_flat(state["d"], parameters, cuts)))
    if state["prev_flat_grad"] is not None:
        transaction.set_item(state, "prev_flat_grad", _cut_flat(state["prev_flat_grad"], parameters, cuts))


def _cut_flat(vector: Tensor, parameters: Sequence[Tensor], cuts: Sequence[Mapping[int, Kept]]) -> Tensor:
    """Cut a vector of shape ``(numbers of all parameters,)``."""
    sizes = [parameter.numel() for parameter in parameters]
    if vector.shape != (sum(sizes),):
        raise OptimizerStateError(
            f"LBFGS: its history has shape {tuple(vector.shape)} for {sum(sizes)} numbers in its parameters, which "
            "cannot be cut along; make a new optimiser for the pruned model"
        )
    parts = zip(vector.split(sizes), parameters, cuts, strict=True)
    return torch.cat([sliced(part.view(parameter.shape), cut).flatten() for part, parameter, cut in parts])
