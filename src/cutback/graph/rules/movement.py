"""Operators that move elements about: the operator itself is run on the labels.

What is left to a rule is to say when the result is still right after a cut: which blocks must lose channels at the same
positions, and which sizes in the call must follow.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import NONE, compact, core, varies, varying_dimensions
from cutback.graph.rules.multihead import holds_heads, whole_heads
from cutback.graph.states import State

_FREE = ("permute", "transpose", "t", "numpy_T", "mT", "movedim", "moveaxis", "swapaxes", "swapdims", "unsqueeze")
_ALSO_FREE = ("squeeze", "flip", "flatten", "repeat_interleave", "repeat", "tile", "pixel_unshuffle")


@rules.register(*(f"aten::{name}" for name in (*_FREE, *_ALSO_FREE)))
def free(call: Call) -> Labels:
    """Run an operator that stays right whichever channels go."""
    return run(call, call.node.target)


@rules.register(
    "aten::view", "aten::reshape", "aten::_unsafe_view", "aten::unflatten", "aten::view_as", "aten::reshape_as"
)
def view(call: Call) -> Labels:
    """Regroup dimensions: merged ones follow by themselves; a split one loses the same positions of each block."""
    labels, shape = call.labels("self"), call.shape
    given = call.arguments.get("size", call.arguments.get("shape"))
    written = list(given) if isinstance(given, list | tuple) else [-1] * len(shape)
    if "sizes" in call.arguments:  # unflatten: only the new dimensions are written
        start = int(call.arguments["dim"]) % labels.dim()  # type: ignore[call-overload]
        sizes = list(call.arguments["sizes"])  # type: ignore[call-overload]
        written = [-1] * start + sizes + [-1] * (labels.dim() - start - 1)
    narrow, sizes = labels, list(shape)
    alike: list[int] = []
    for sources, targets in call.decide(_regrouped(labels.shape, shape)):
        if call.decide(not any(varies(labels, dimension) for dimension in sources)):
            for dimension in sources:  # constant, so that one stands for all
                narrow = narrow.narrow(dimension, 0, 1)
            for dimension in targets:
                sizes[dimension] = 1
            continue
        if len(sources) > 1 and len(targets) > 1:
            alike += _regroup(call, labels, sources, targets)
            continue
        literal = [dimension for dimension in targets if written[dimension] != -1]
        if len(targets) > 1:
            free_position = next((p for p, d in enumerate(targets) if written[d] == -1), len(targets) - 1)
            joined = tie_all_but(call, labels, sources[0], [shape[d] for d in targets], free_position)
            alike += [] if joined is None else [targets[joined]]
            call.assume(labels, f"regroups {tuple(labels.shape)} to the literal sizes {tuple(shape)}")
        elif literal:
            call.assume(labels, f"has the size {shape[literal[0]]} written as a literal")
    result = compact(narrow.reshape(sizes))
    for dimension in alike:
        result = result.narrow(dimension, 0, 1)
    return result.expand(shape)


def _regroup(call: Call, labels: Tensor, sources: list[int], targets: list[int]) -> list[int]:
    """Check several dimensions regrouped at once, as ``(batch, heads * width)`` to ``(batch * heads, width)``.

    Returns:
        The new dimensions along which all labels are now one, where blocks are to go whole.

    Raises:
        Refused: the bounds of the new dimensions do not fall on bounds of the old ones' parts.
    """
    shape = call.shape
    bounds = [math.prod(labels.size(d) for d in sources[p:]) for p in range(len(sources))] + [1]
    cuts = [math.prod(shape[d] for d in targets[p:]) for p in range(len(targets))] + [1]
    every = sorted({*bounds, *cuts}, reverse=True)
    if any(larger % smaller for larger, smaller in pairwise(every)):
        raise Refused(f"regroups {tuple(labels.shape)} to {tuple(shape)} across the channels")
    alike: list[int] = []
    for dimension, outer, inner in zip(sources, bounds[:-1], bounds[1:], strict=True):
        within = call.decide([p for p, cut in enumerate(cuts) if outer > cut > inner])
        inside = [outer, *(cuts[p] for p in within), inner]
        factors = [larger // smaller for larger, smaller in pairwise(inside)]
        if within and call.decide(varies(labels, dimension)):
            joined = tie_all_but(call, labels, dimension, factors, len(factors) - 1)
            if joined is not None:
                place = inside[joined], inside[joined + 1]
                alike += [target for target, found in zip(targets, pairwise(cuts), strict=True) if found == place]
    call.assume(labels, f"regroups {tuple(labels.shape)} to the literal sizes {tuple(shape)}")
    return alike


@rules.register("aten::select", "aten::unbind")
def picked(call: Call) -> Labels:
    """Take one index of a dimension, or each; the second pass checks that the same channels stand there."""
    labels = call.labels("self")
    dimension = int(call.arguments["dim"]) % labels.dim()  # type: ignore[call-overload]
    if call.decide(varies(labels, dimension)):
        call.assume(labels, f"picks channels of dimension {dimension} by position")
        return run(call, call.node.target)
    one = labels.select(dimension, 0)
    return [one for _ in call.values] if isinstance(call.values, list | tuple) else one


@rules.register("aten::expand", "aten::expand_as", "aten::broadcast_to")
def expand(call: Call) -> Labels:
    """Repeat size-1 dimensions; a lone channel repeated stands for nothing that could be removed."""
    labels = call.labels("self")
    if call.decide(not varying_dimensions(labels)):
        call.keep(labels, "is broadcast over several channels")
        nothing = torch.zeros((), dtype=torch.int64).expand(call.shape)
        if isinstance(call.arguments.get("size"), list | tuple):
            call.assume(nothing, f"expands to the literal sizes {tuple(call.shape)}")
        return nothing
    given = call.arguments.get("size")
    if isinstance(given, list | tuple):
        lead = len(given) - labels.dim()
        for dimension in varying_dimensions(labels):
            if given[lead + dimension] != -1:
                call.assume(labels, f"expands to the literal size {given[lead + dimension]}")
    return labels.expand(call.shape)


@rules.register("aten::cat", "aten::concat", "aten::concatenate", "aten::stack")
def cat(call: Call) -> Labels:
    """Lay tensors side by side; what lies beside each other along the other dimensions goes together."""
    parts = [call.as_labels(part) for part in call.arguments["tensors"]]  # type: ignore[attr-defined]
    dimension = int(call.arguments["dim"]) % len(call.shape)  # type: ignore[call-overload]
    if call.operator == "aten::stack":
        parts = [part.unsqueeze(dimension) for part in parts]
    parts = [
        part for part in parts if part.dim() == len(call.shape)
    ]  # legacy: an empty one-dimensional tensor is skipped
    empty = [part for part in parts if part.numel() == 0]
    if call.decide(0 < len(empty) < len(parts)):  # no channel lies in it, but its other sizes must follow
        parts = [part for part in parts if part.numel()]
        call.assume(parts[0], "lays an empty tensor beside channels")
    others = [d for d in range(len(call.shape)) if d != dimension and any(varies(part, d) for part in parts)]
    sizes = [call.shape[d] if d in others else 1 for d in range(len(call.shape))]
    if not others:
        return _joined(parts, dimension, sizes).expand(call.shape)
    alike = call.decide([not varies(part, dimension) for part in parts])
    if not any(alike):  # each part holds blocks of channels of its own; only their numbers must agree
        call.assume(parts[0], "lays blocks of channels side by side")
        return _joined(parts, dimension, sizes).expand(call.shape)
    # What lies along the joined dimension goes together, so that its labels need to be told only once.
    merged = _sized(parts[alike.index(True)].narrow(dimension, 0, 1), sizes)
    for part in parts:
        other = _sized(part, [*sizes[:dimension], core(part).size(dimension), *sizes[dimension + 1 :]])
        call.unite(merged.expand(other.shape), other)
        first = other.narrow(dimension, 0, 1)
        merged = torch.where(merged == NONE, first, merged) if bool((merged == NONE).any()) else merged
    return merged.expand(call.shape)


def _joined(parts: Sequence[Tensor], dimension: int, sizes: Sequence[int]) -> Tensor:
    """Return labels laid side by side."""
    before, after = sizes[:dimension], sizes[dimension + 1 :]
    return compact(torch.cat([_sized(part, [*before, part.size(dimension), *after]) for part in parts], dimension))


@rules.register(
    "aten::pad", "aten::constant_pad_nd", "aten::reflection_pad1d", "aten::reflection_pad2d", "aten::reflection_pad3d"
)
@rules.register("aten::replication_pad1d", "aten::replication_pad2d", "aten::replication_pad3d")
def pad(call: Call) -> Labels:
    """Grow dimensions that carry no channels; beside channels, padding is of a literal amount and stays."""
    labels = call.labels("self")
    amounts = [int(amount) for amount in call.arguments.get("pad", call.arguments.get("padding"))]  # type: ignore[union-attr]
    lone = call.decide(not varying_dimensions(labels))
    for position in range(len(amounts) // 2):
        dimension = labels.dim() - 1 - position
        before, after = amounts[2 * position : 2 * position + 2]
        if before == after == 0:
            continue
        if not call.decide(varies(labels, dimension) or (lone and labels.size(dimension) == 1)):
            first = labels.narrow(dimension, 0, 1)
            sizes = [*labels.shape[:dimension], labels.size(dimension) + before + after, *labels.shape[dimension + 1 :]]
            labels = first.expand(sizes)
            continue
        if min(before, after) < 0 or call.arguments.get("mode", "constant") != "constant":
            raise Refused("pads channels by other channels, or crops them")
        filler = call.fresh()
        call.keep(filler, "pads channels by a literal amount")
        labels = torch.cat(
            [_filled(labels, dimension, before, filler), labels, _filled(labels, dimension, after, filler)], dimension
        )
    return compact(labels)


def _filled(labels: Tensor, dimension: int, amount: int, filler: Tensor) -> Tensor:
    """Return ``amount`` slices of the filler's label."""
    sizes = list(labels.shape)
    sizes[dimension] = amount
    return filler.expand(sizes)


def run(call: Call, target: object) -> Labels:
    """Run the operator on the labels of its first argument."""
    labels = call.labels("self").detach()  # an in-place operator would change the shape of what others hold
    arguments = [value for name, value in call.arguments.items() if name not in ("self", "output_size")]
    if any(isinstance(value, Tensor | State) for value in arguments):
        raise Refused("moves elements by computed positions")
    return _compacted(target(labels, *arguments))  # type: ignore[operator]


def _compacted(value: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Labels:
    return compact(value) if isinstance(value, Tensor) else [compact(part) for part in value]


def _sized(labels: Tensor, sizes: list[int]) -> Tensor:
    """Narrow and expand labels to ``sizes`` along dimensions where they are constant."""
    narrowed = core(labels)
    return narrowed.expand(sizes)


@rules.register("aten::pixel_shuffle")
def pixel_shuffle(call: Call) -> Labels:
    """Turn ``(N, C * r * r, H, W)`` to ``(N, C, H * r, W * r)``: the channels that make one go together."""
    labels = call.labels("self")
    factor = int(call.arguments["upscale_factor"]) ** 2  # type: ignore[call-overload]
    table = core(labels).movedim(1, 0).flatten(1)
    table = table.expand(labels.size(1), -1).reshape(labels.size(1) // factor, -1)
    call.unite(table[:, :1].expand(-1, table.shape[1] - 1), table[:, 1:])
    return run(call, call.node.target)


@rules.register("aten::channel_shuffle", "aten::native_channel_shuffle")
def channel_shuffle(call: Call) -> Labels:
    """Interleave blocks of dimension 1: they lose the same positions."""
    call.tie_blocks(call.labels("self"), 1, int(call.arguments["groups"]))  # type: ignore[call-overload]
    return run(call, call.node.target)


def _regrouped(old: torch.Size, new: torch.Size) -> list[tuple[list[int], list[int]]]:
    """Match the dimensions of two shapes of one volume into the smallest sets of equal product."""
    matches: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        sources, targets = [i] if i < len(old) else [], [j] if j < len(new) else []
        i, j = i + len(sources), j + len(targets)
        while (left := math.prod(old[d] for d in sources)) != (right := math.prod(new[d] for d in targets)):
            if (left < right and i < len(old)) or j >= len(new):
                sources.append(i)
                i += 1
            else:
                targets.append(j)
                j += 1
        matches.append((sources, targets))
    # Dimensions of size 1 are nobody's: they follow whatever the rest does.
    return [([d for d in s if old[d] != 1], [d for d in t if new[d] != 1]) for s, t in matches]


def tie_all_but(call: Call, labels: Tensor, dimension: int, factors: list[int], free_position: int) -> int | None:
    """Let only one factor of a split dimension shrink: by equally many, or by the same positions, for the others.

    Factors along which labels are constant do not matter.

    Returns:
        The factor along which all labels are now one, where blocks are to go whole.
    """
    joined: int | None = None
    table = core(labels)
    sizes = [math.prod(factors) if d == dimension else size for d, size in enumerate(table.shape)]
    table = table.expand(sizes).movedim(dimension, 0).reshape(*factors, -1)  # one channel may be left, all of a label
    moving = call.decide([f for f in range(len(factors)) if bool((table != table.narrow(f, 0, 1)).any())])
    if len(moving) < 2:
        return None
    free_position = free_position if free_position in moving else moving[-1]
    if call.whole_blocks and not call.decide(holds_heads(call, labels.shape, dimension, factors, moving[-1])):
        # (heads, width): a head goes whole
        inner = table.movedim(moving[-1], -1)
        whole_heads(call, call.join(inner.reshape(-1, inner.shape[-1])), inner.shape[-1])
        joined = moving[-1]
        table, moving = table.narrow(joined, 0, 1), moving[:-1]
        factors, free_position = list(table.shape[:-1]), moving[-1]
        if len(moving) < 2:
            return joined
    table = table.movedim(free_position, 0).reshape(factors[free_position], -1, table.shape[-1])
    if call.decide(table.shape[-1] == 1):
        call.balance(table[:, :, 0].unbind(1))
    else:
        call.unite(table[:, :1].expand(-1, table.shape[1] - 1, -1), table[:, 1:])
    return joined
