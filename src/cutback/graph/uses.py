"""The numbers in a captured graph's calls: where each comes from, and what a cut asks of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from cutback.graph import capture as recording
from cutback.graph.attributes import held_value, ruled
from cutback.graph.call import Trail
from cutback.graph.capture import Capture, module_kind, operator_of
from cutback.graph.graph import Graph
from cutback.graph.labels import core, varying_dimensions
from cutback.graph.numbers import CHANGEABLE, numbers_of
from cutback.graph.origins import Given, Held, Origin, SizeOf, given_numbers
from cutback.graph.sizes import LabelsOf, Width, Written, written_sizes


@dataclass(frozen=True, eq=False)
class Use:
    """A number in a call.

    Attributes:
        node: the call.
        argument: the argument it stands in.
        entry: which entry of it, where it is a list.
        value: the number.
        origin: where it comes from; ``None`` for a literal, or where that is not known.
        width: the dimension it is the size of, if channels can go along it.
        fixed: whether it must stay what it is.
        made_up: whether parameters can be multiplied to make up for its change.
        labels: the labels of the graph the call belongs to.
    """

    node: fx.Node
    argument: str
    entry: int | None
    value: int | float
    origin: Origin | None
    width: Width | None
    fixed: bool
    made_up: bool
    labels: LabelsOf


class Prunable:
    """Which widths can shrink in a traced model."""

    def __init__(self, graph: Graph) -> None:
        self.component: NDArray[np.int64] = graph.coupling.components
        self._grouped: NDArray[np.bool_] = (graph.coupling.owners.group >= 0)[self.component]

    def __call__(self, width: Width | None) -> bool:
        """Return whether a cut can shrink a width."""
        if width is None or not width.carries:
            return False
        return bool(self._grouped[core(width.labels).numpy()].any())


def uses_of(graph: Graph, prunable: Prunable) -> list[Use]:
    """Return the numbers of all calls that come from somewhere or are sizes of what can shrink."""
    found: list[Use] = []
    for capture, labelling in zip(graph.captures, graph.coupling.labellings, strict=True):
        labels = LabelsOf(capture, labelling, graph.coupling.states)
        for node, trail in labels.trails.items():
            given, written = given_numbers(node), written_sizes(node, labels)
            if given is not None or any(prunable(size.width) for size in written):
                found += _uses(node, trail, given, written, prunable, labels, made_up=node in labelling.by_number)
    return found


def _uses(
    node: fx.Node,
    trail: Trail,
    given: Given | None,
    written: Sequence[Written],
    prunable: Prunable,
    labels: LabelsOf,
    *,
    made_up: bool,
) -> Iterator[Use]:
    numbers = list(numbers_of(node))
    widths = {(size.argument, size.entry): size.width for size in written}
    changeable = CHANGEABLE.get(operator_of(node), frozenset())
    blank = not trail.refused and not any(varying_dimensions(result) for result in trail.results)
    for (argument, entry, value), origin in zip(numbers, _origins(numbers, given), strict=True):
        width = widths.get((argument, entry))
        shrinks = prunable(width)
        if origin is None and (not shrinks or ruled(module_kind(node))):
            continue
        # Nothing is known of the sizes of constants and of what is repeated for every channel: the probes will tell.
        free = argument in changeable and not trail.refused and (width is None or blank)
        fixed = not shrinks and not free
        factor = fixed and made_up
        yield Use(
            node, argument, entry, value, origin, width if shrinks else None, fixed and not factor, factor, labels
        )


def _origins(numbers: Sequence[tuple[str, int | None, int | float]], given: Given | None) -> list[Origin | None]:
    """Match the numbers of a recorded call with those the function behind it was given."""
    if given is None:
        return [None] * len(numbers)
    if [value for value, _ in given.all] == [value for _, _, value in numbers]:
        return [origin for _, origin in given.all]
    found: list[Origin | None] = []
    for argument, entry, value in numbers:
        named = given.keyword.get(argument, ())
        place = entry or 0
        if place < len(named) and named[place][0] == value:
            found.append(named[place][1])
        else:
            found.append(next((o for v, o in given.all if v == value and o is not None), None) if value > 1 else None)
    return found


def numbers_with_origins(node: fx.Node) -> list[tuple[str, int | None, int | float, Origin | None]]:
    """Return argument, entry (where it is a list), value and origin of every number in a call.

    ``None`` stands for a literal, and for what cannot be told. Where one function makes several calls (an index of
    slices), a size is found among the function's numbers by its value if all of that value have one origin.
    """
    numbers, given = list(numbers_of(node)), given_numbers(node)
    if given is None:
        return [(*number, None) for number in numbers]
    if [value for value, _ in given.all] == [value for _, _, value in numbers]:
        return [(*number, origin) for number, (_, origin) in zip(numbers, given.all, strict=True)]
    found: list[tuple[str, int | None, int | float, Origin | None]] = []
    for argument, entry, value in numbers:
        named, place = given.keyword.get(argument, ()), entry or 0
        origins = {origin for other, origin in given.all if other == value}
        if place < len(named) and named[place][0] == value:
            origins = {named[place][1]}
        elif argument not in CHANGEABLE.get(operator_of(node), ()) or value < 2 or len(origins) > 1:
            origins = {None}
        found.append((argument, entry, value, next(iter(origins), None)))
    return found


def current_value(graph: Graph, leaf: Held | SizeOf) -> int | None:
    """Return the value of an attribute or a size in the uncut model; ``None`` where it is gone."""
    if isinstance(leaf, SizeOf):
        value = leaf.node.meta.get("val")
        return int(value.shape[leaf.dimension]) if value is not None else None
    try:
        value = held_value(graph.model, leaf.path, leaf.name)
        return value if leaf.entry is None else value[leaf.entry]  # type: ignore[return-value, index]
    except (AttributeError, IndexError, TypeError):
        return None


def source_text(node: fx.Node) -> str:
    """Return `` (file:line)`` of the code that makes a call; empty where that was not recorded."""
    line = getattr(recording, "source_line", lambda _: "")(node)
    return f" ({line})" if line else ""


def of_capture(graph: Graph, capture: Capture) -> LabelsOf:
    """Return the labels of one of a traced model's captures."""
    number = next(number for number, other in enumerate(graph.captures) if other is capture)
    return LabelsOf(capture, graph.coupling.labellings[number], graph.coupling.states)
