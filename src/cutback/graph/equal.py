"""Sizes that a model's code takes from elsewhere: two widths that must stay equal."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from cutback.graph.capture import Capture
from cutback.graph.interpret import Labelling
from cutback.graph.labels import core
from cutback.graph.origins import SizeOf
from cutback.graph.sizes import LabelsOf, Width, written_sizes
from cutback.graph.states import StateLabels


@dataclass(frozen=True)
class WrittenAt:
    """A size in a call.

    Attributes:
        node: the call.
        argument: name of the argument in the operator's schema.
        entry: which entry of it, where it is a list.
    """

    node: fx.Node
    argument: str
    entry: int | None


@dataclass(frozen=True)
class EqualWidths:
    """Two sizes of different channels of which the model's code computes one from the other.

    Attributes:
        written: a size in a call.
        taken: where the code has it from: the size of a tensor, or a call that is given the same attribute.
        times: so many times the first size is ...
        over: ... so many times the second.
    """

    written: WrittenAt
    taken: WrittenAt | SizeOf
    times: int = 1
    over: int = 1


def equal_parts(
    pairs: Iterable[EqualWidths], captures: Sequence[Capture], labellings: Sequence[Labelling], states: StateLabels
) -> list[tuple[Tensor, Tensor]]:
    """Return for each pair of widths two label vectors of one length, of which equally many must stay.

    Args:
        pairs: the pairs.
        captures: recorded forward passes.
        labellings: what the first pass did in each.
        states: labels of parameters and buffers.
    """
    found: list[tuple[Tensor, Tensor]] = []
    every = [LabelsOf(*each, states) for each in zip(captures, labellings, strict=True)]
    for pair in pairs:
        for labels in every:
            first, second = width_at(pair.written, labels), width_at(pair.taken, labels)
            if first is None or second is None:
                continue
            parts = equally_long(first, second, pair.times, pair.over)
            if parts is not None:
                found.append(parts)
    return found


def width_at(place: WrittenAt | SizeOf, labels: LabelsOf) -> Width | None:
    """Return the dimension whose size stands at a place; ``None`` if it is not known."""
    if isinstance(place, SizeOf):
        return labels.width(place.node, place.dimension)
    sizes = written_sizes(place.node, labels)
    return next((size.width for size in sizes if (size.argument, size.entry) == (place.argument, place.entry)), None)


def equally_long(first: Width, second: Width, times: int = 1, over: int = 1) -> tuple[Tensor, Tensor] | None:
    """Return label vectors of one length for two widths: of one block each, or of all blocks where only those match.

    Args:
        first: a width; its own factors do not count.
        second: another.
        times: how often the labels of the first are repeated.
        over: how often those of the second are.
    """
    common = math.gcd(times, over)
    for one in _vectors(first):
        for other in _vectors(second):
            if len(one) * times == len(other) * over and min(len(one), len(other)) > 0:
                return one.repeat(times // common), other.repeat(over // common)
    return None


def _vectors(width: Width) -> tuple[Tensor, Tensor]:
    """Return the labels of one block along a dimension, and of all blocks."""
    labels = core(width.labels).movedim(width.dimension, 0)
    return labels.flatten(1)[:, 0], labels.flatten()
