"""Absorbing: what pruned channels still add, their shift, goes into the layers that read them. An extension.

A channel of scale zero is the constant ``act(beta)``; the paper and its code drop it with the channel. Here the sum
``act(beta_c) * sum(W[:, c])`` over the pruned channels is added to the bias of each convolution or linear layer that
reads them, or taken from the running mean of the batch norm right behind it. That is exact where no zeros are padded.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx

from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.methods.slimming.masking import silenced_places
from cutback.planning.plan import Plan
from cutback.planning.slices import planned_masks
from cutback.scores.scales import BATCH_NORM, norm_scales

_CONTRACTIONS = {"aten::linear", *(f"aten::conv{n}d" for n in (1, 2, 3))}


@contextmanager
def absorbed(graph: Graph, plan: Plan) -> Iterator[tuple[str, ...]]:
    """Change the shifts of a model for a cut that is carried out inside the block; if that fails, change them back.

    Args:
        graph: the traced model.
        plan: what is about to go.

    Yields:
        The names of the weights that read pruned channels without a bias or a batch norm of their own behind them:
        what reaches those is dropped.
    """
    states = state_tensors(graph.model)
    changes, dropped = _changes(graph, plan)
    before = {name: states[name].detach().clone() for name in changes}
    try:
        with torch.no_grad():
            for name, change in changes.items():
                states[name].add_(change)
        yield tuple(dropped)
    except BaseException:
        with torch.no_grad():
            for name, value in before.items():
                states[name].copy_(value)
        raise


def _changes(graph: Graph, plan: Plan) -> tuple[dict[str, Tensor], list[str]]:
    """Return what is added to which states, and the weights of which the share is dropped."""
    recorded, stays = graph.captures[0], planned_masks(graph, plan)
    states = {name: tensor.detach().clone() for name, tensor in state_tensors(graph.model).items()}
    scales, places = norm_scales(graph, BATCH_NORM), silenced_places(graph, plan)
    for name in places.keys() & scales.keys():
        states[name][places[name]] = 0
    removed = {
        slot: torch.from_numpy(~owners.stays(stays))
        for slot, owners in graph.slots.items()
        if slot.consumes and not owners.stays(stays).all()
    }
    columns = {slot.state: mask for slot, mask in removed.items() if slot.blocks == slot.dimension == 1}
    names = dict(zip(recorded.nodes, recorded.states, strict=False))
    changes: dict[str, Tensor] = {}
    absorbing: set[str] = set()

    def call(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        weight = _state(node, 1, names)
        if operator_of(node) in _CONTRACTIONS and weight in columns:
            shift, sign = _shift_behind(node, names)
            if shift is not None and weight not in absorbing:
                absorbing.add(weight)
                changes[shift] = sign * _contribution(args[0], states[weight], columns[weight])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    with torch.no_grad():
        recorded.execute(states, graph.inputs, call)
    return changes, [slot.state for slot in removed if slot.state not in absorbing]


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
    return None, 0


def _state(node: fx.Node, place: int, names: Mapping[fx.Node, str]) -> str | None:
    """Return the name of the state that a call gets as an argument."""
    given = node.args[place] if len(node.args) > place else None
    return names.get(given) if isinstance(given, fx.Node) else None
