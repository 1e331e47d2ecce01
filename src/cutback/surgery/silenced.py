"""The proof's reference: the captured graph with the removed channels silenced where they are consumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from cutback.graph.call import Mixing, Trail
from cutback.graph.capture import Capture, operator_of
from cutback.graph.graph import Graph, Slot
from cutback.graph.inputs import Inputs
from cutback.graph.labels import core
from cutback.graph.replay import KeptLabels


def silenced_states(
    graph: Graph,
    states: Mapping[str, Tensor],
    kept: list[NDArray[np.bool_]],
    cast: Callable[[Tensor], Tensor] = Tensor.detach,
) -> dict[str, Tensor]:
    """Return states, cast, with the columns that consume removed channels set to zero; the others keep their memory."""
    result = {name: cast(tensor) for name, tensor in states.items()}
    for slot, removed in removed_slices(graph, result, kept, columns=True):
        result[slot.state] = result[slot.state].masked_fill(removed, 0)
    return result


def restore_states_(
    graph: Graph, silenced: dict[str, Tensor], states: Mapping[str, Tensor], kept: list[NDArray[np.bool_]]
) -> None:
    """Put back the columns from before into silenced states, which may have been changed since."""
    for slot, removed in removed_slices(graph, silenced, kept, columns=True):
        silenced[slot.state] = torch.where(removed, states[slot.state], silenced[slot.state])


def removed_slices(
    graph: Graph, states: Mapping[str, Tensor], kept: list[NDArray[np.bool_]], *, columns: bool
) -> Iterator[tuple[Slot, Tensor]]:
    """Yield the slots that lose slices, and which ones: a mask that the state's shape can be expanded from.

    Args:
        graph: the traced model.
        states: its states, by name.
        kept: for each group which units stay.
        columns: only those that consume what is removed.
    """
    for slot, owners in graph.slots.items():
        stays = owners.stays(kept) if slot.consumes or not columns else np.ones(0, dtype=bool)
        if not stays.all():
            weight = states[slot.state]
            removed = torch.from_numpy(~stays).to(weight.device)
            shape = [1] * weight.dim()
            shape[slot.dimension] = weight.shape[slot.dimension]
            if slot.blocks > 1:
                shape[0] = weight.shape[0]
                removed = removed.view(slot.blocks, -1).repeat_interleave(shape[0] // slot.blocks, 0)
            yield slot, removed.view(shape)


def mixes(trails: Sequence[Trail]) -> bool:
    """Say whether some operator mixes channels, so that silent ones would still change what it computes."""
    return any(trail.mixed for trail in trails)


def run_silenced(
    recorded: Capture,
    trails: Sequence[Trail],
    labels: KeptLabels,
    states: Mapping[str, Tensor],
    inputs: Inputs,
    after: Callable[[fx.Node, Sequence[object], object], None] | None = None,
) -> list[Tensor]:
    """Run a captured graph in which operators that mix channels see only those that stay.

    Args:
        recorded: the captured forward pass.
        trails: what the rules noted, call by call.
        labels: which labels stay.
        states: silenced states.
        inputs: the inputs.
        after: called after each call of an operator that mixes none, with its arguments and its output.

    Returns:
        The graph's results; where channels are gone their places hold zeros.
    """
    if after is None and not mixes(trails):
        return recorded.run(states, inputs)
    waiting = iter(trails)

    def call(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        mixed = next(waiting).mixed if operator_of(node) != "getitem" else []
        if mixed:
            return _mixed_call(node, args, kwargs, mixed, labels)
        output = node.target(*args, **kwargs)  # type: ignore[operator]
        if after is not None:
            after(node, args, output)
        return output

    return recorded.execute(states, inputs, call)


def _mixed_call(
    node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object], mixed: Sequence[Mixing], labels: KeptLabels
) -> object:
    """Call an operator on the kept part of what it mixes, and put the result back in its place."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    arguments = {**dict(zip((argument.name for argument in schema), args, strict=False)), **kwargs}
    restore: list[tuple[int, Tensor, int]] = []
    for mixing in mixed:
        value = arguments[mixing.argument]
        if not mixing.dimensions:
            arguments[mixing.argument] = _masked(value, mixing, labels)
            continue
        if not isinstance(value, Tensor):
            continue
        stays = labels.mask(core(mixing.labels))
        for dimension in mixing.dimensions:
            if stays.shape[dimension] < value.shape[dimension]:  # one label for all of them, of channels that stay
                continue
            others = [d for d in range(stays.dim()) if d != dimension]
            index = (stays.any(others) if others else stays).nonzero().flatten().to(value.device)
            if mixing.restored:
                restore.append((dimension, index, value.shape[dimension]))
            value = value.index_select(dimension, index)
        arguments[mixing.argument] = value
    if "normalized_shape" in arguments:
        sizes = list(arguments["input"].shape)  # type: ignore[union-attr]
        arguments["normalized_shape"] = sizes[len(sizes) - len(arguments["normalized_shape"]) :]  # type: ignore[arg-type]
    result = node.target(**arguments)  # type: ignore[operator]
    for dimension, index, size in restore:
        result = _spread_out(result, dimension, index, size)
    return result


def _masked(value: object, mixing: Mixing, labels: KeptLabels) -> object:
    """Return an argument with zeros in the place of what is removed."""
    if isinstance(value, list | tuple):
        return [_masked(item, mixing, labels) if n == mixing.position else item for n, item in enumerate(value)]
    if not isinstance(value, Tensor):
        return value
    stays = labels.mask(core(mixing.labels)).to(value.device)
    return torch.where(stays, value, value.new_zeros(()))


def _spread_out(result: Tensor, dimension: int, index: Tensor, size: int) -> Tensor:
    """Return a tensor of the given size along a dimension, zero outside ``index``."""
    shape = list(result.shape)
    shape[dimension] = size
    return result.new_zeros(shape).index_copy(dimension, index, result)
