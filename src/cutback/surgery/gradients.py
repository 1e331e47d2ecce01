"""Which parameters receive a gradient."""

import dataclasses

import torch
from torch import Tensor

from cutback.surgery.running import Run


def _differentiable(run: Run) -> list[Tensor]:
    return [t for t in run.tensors[: run.outputs] if t.requires_grad and t.is_floating_point()]


def gradients_of(run: Run) -> set[str]:
    """Return the names of the parameters that receive a gradient from the model's outputs, by a backward pass.

    Raises:
        RuntimeError: the model cannot be differentiated.
    """
    outputs = _differentiable(run)
    leaves = {name: tensor for name, tensor in run.leaves.items() if tensor.requires_grad}
    if not outputs or not leaves:
        return set()
    torch.stack([output.sum() for output in outputs]).sum().backward()  # not grad(): checkpoints refuse that
    return {name for name, tensor in leaves.items() if tensor.grad is not None}


def released(run: Run) -> Run:
    """Return a run without its states and its autograd graph, which holds them too; what that ends in is noted."""
    tensors = [tensor.detach() for tensor in run.tensors]
    return dataclasses.replace(run, tensors=tensors, leaves={}, reached=frozenset(reachable(run)))


def reachable(run: Run) -> set[str]:
    """Return the names of the parameters the outputs' autograd graph ends in, without a backward pass."""
    names = {id(tensor): name for name, tensor in run.leaves.items() if tensor.requires_grad}
    waiting = [output.grad_fn for output in _differentiable(run) if output.grad_fn is not None]
    seen, found = set(waiting), set()
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in names:
            found.add(names[id(variable)])
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found
