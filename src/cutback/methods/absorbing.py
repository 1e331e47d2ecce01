"""Absorbing: what pruned channels still add, a constant, goes into the layers that read them.

A channel whose batch norm has a scale of zero is the constant ``act(beta)``. The sum ``act(beta_c) * sum(W[:, c])``
over the pruned channels is added to the bias of each convolution or linear layer that reads them, or taken from the
running mean of the batch norm right behind it. That is exact where no zeros are padded.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx

from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.planning.plan import Plan
from cutback.planning.slices import planned_masks
from cutback.scores.scales import BATCH_NORM

_CONTRACTIONS = {"aten::linear", *(f"aten::conv{n}d" for n in (1, 2, 3))}


@contextmanager
def absorbed(graph: Graph, plan: Plan, zero: Mapping[str, Tensor]) -> Iterator[tuple[str, ...]]:
    """Change the shifts of a model for a cut that is carried out inside the block; if that fails, change them back.

    Args:
        graph: the traced model.
        plan: what is about to go.
        zero: the places of parameters that are taken to be zero, which makes constants of the channels that go.

    Yields:
        The names of the weights that read more than zeros in pruned channels without a bias or a batch norm of their
        own behind them: what reaches those is dropped.
    """
    states = state_tensors(graph.model)
    changes, dropped = _changes(graph, plan, zero)
    before = {name: states[name].detach().clone() for name in changes}
    try:
        with torch.no_grad():
            for name, change in changes.items():
                states[name].add_(change)
        yield tuple(dropped)
    except BaseException:
        with torch.no_grad():
            for name, value in before.items():
                if states[name].shape == value.shape:  # not where the cut was made, and what came after it failed
                    states[name].copy_(value)
        raise


def _changes(graph: Graph, plan: Plan, zero: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return what is added to which states, and the weights of which the share is dropped."""
    recorded, stays = graph.captures[0], planned_masks(graph, plan)
    states = {name: tensor.detach().clone() for name, tensor in state_tensors(graph.model).items()}
    for name, places in zero.items():
        states[name][places.to(states[name].device)] = 0
    removed = {
        slot: torch.from_numpy(~owners.stays(stays))
        for slot, owners in graph.slots.items()
        if slot.consumes and not owners.stays(stays).all()
    }
    columns = {slot.state: mask for slot, mask in removed.items() if slot.blocks == slot.dimension == 1}
    names = dict(zip(recorded.nodes, recorded.states, strict=False))
    changes: dict[str, Tensor] = {}
    visited: set[str] = set()
    failed: set[str] = set()

    def call(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        weight = _state(node, 1, names)
        if operator_of(node) in _CONTRACTIONS and weight in columns:
            visited.add(weight)
            shift, sign = _shift_behind(node, names)
            change = sign * _contribution(args[0], states[weight], columns[weight])
            if change.any() and shift is None:
                failed.add(weight)
            elif change.any() and not torch.allclose(changes.setdefault(shift, change), change, atol=1e-6):
                failed.add(weight)  # it runs several times, on other constants
        return node.target(*args, **kwargs)  # type: ignore[operator]

    with torch.no_grad():
        recorded.execute(states, graph.inputs, call)
    return changes, [slot.state for slot in removed if slot.state not in visited or slot.state in failed]


def _contribution(features: object, weight: Tensor, removed: Tensor) -> Tensor:
    """Return what constant channels add to each output, ``(C_out,)``.

    Args:
        features: ``(N, C, ...)`` for a convolution, ``(..., C)`` for a linear layer.
        weight: ``(C_out, C, ...)``.
        removed: which input channels are constant and go, ``(C,)``.
    """
    assert isinstance(features, Tensor)  # noqa: S101 (the first argument of a contraction)
    removed = removed.to(weight.device)
    channel = features.dim() - 1 - (weight.dim() - 2)
    constants = features.movedim(channel, 0).flatten(1)[removed].mean(1)
    return weight.flatten(2).sum(2)[:, removed] @ constants if weight.dim() > 2 else weight[:, removed] @ constants


def _shift_behind(node: fx.Node, names: Mapping[fx.Node, str]) -> tuple[str | None, int]:
    """Return the state to which a contraction's constant can go, and with which sign."""
    bias = _state(node, 2, names)
    if bias is not None:
        return bias, 1
    users = [user for user in node.users if user.op != "output"]
    if len(users) == 1 and operator_of(users[0]) in BATCH_NORM:
        return _state(users[0], 3, names), -1  # the running mean
    return None, 1


def _state(node: fx.Node, place: int, names: Mapping[fx.Node, str]) -> str | None:
    """Return the name of the state that a call gets as an argument."""
    given = node.args[place] if len(node.args) > place else None
    return names.get(given) if isinstance(given, fx.Node) else None
