"""In which order groups reach their widths: all at once, layer by layer, or filter by filter."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from cutback.graph.graph import Graph
from cutback.planning.plan import Plan, PlannedGroup

Schedule = Literal["one-shot", "layers", "filters"]
Round = dict[str, int]
"""Of one cut: how many units of each named group stay after it."""


def rounds_to(graph: Graph, target: Plan, schedule: Schedule, most: int | None) -> list[Round]:
    """Return the cuts that lead to a plan's widths, from the input to the output.

    Groups that a balance links lose what they lose in one cut.

    Args:
        graph: the traced model, whose groups lie in the order of execution.
        target: a plan for it.
        schedule: how much each cut takes.
        most: so many cuts at the most, as even as can be; ``None`` for as many as there are layers or filters.
    """
    widths = {group.name: len(group.kept) for group in target.groups if len(group.kept) < group.total}
    linked = [{graph.groups[number].name for number in system.groups} for system in graph.systems]
    steps: list[Round] = []
    for group in graph.groups:
        if group.name not in widths or any(group.name in step for step in steps):
            continue
        system = next((names for names in linked if group.name in names), None)
        if system is not None:
            steps.append({name: width for name, width in widths.items() if name in system})
        elif schedule == "filters":
            steps += [{group.name: width} for width in range(group.units - 1, widths[group.name] - 1, -1)]
        else:
            steps.append({group.name: widths[group.name]})
    count = 1 if schedule == "one-shot" else min(most or len(steps), len(steps))
    bounds = [len(steps) * number // count for number in range(count + 1)] if steps else []
    return [_together(steps[start:end]) for start, end in pairwise(bounds)]


def renamed(rounds: Sequence[Round], cut: Plan, graph: Graph) -> list[Round]:
    """Return what is still to be done under the names that the groups have after a cut.

    A group of one unit is none any more, and its name may pass to another of the same layer (``conv#2``). A grouped
    convolution that has come down to one input a group is depthwise from then on: its group is part of another and goes
    no further, which a warning says.

    Args:
        rounds: the cuts to come, by the names before the cut.
        cut: the plan of the cut.
        graph: the model after it, traced.
    """
    names: dict[str, str] = {}
    waiting = list(graph.groups)
    for before in cut.groups:
        after = next((group for group in waiting if _is(before, group.layers, group.units)), None)
        if after is not None:
            waiting.remove(after)
            names[before.name] = after.name
    lost = {name: width for step in rounds for name, width in step.items() if name not in names}
    for name, width in lost.items():
        warnings.warn(
            f"{name} was to keep {width} channels in the end, but since the last cut they go together with others, so "
            "that it stays as it is; use schedule='one-shot', or remove less of what comes before it",
            stacklevel=5,
        )
    found = ({names[name]: width for name, width in step.items() if name in names} for step in rounds)
    return [step for step in found if step]


def _is(before: PlannedGroup, layers: tuple[str, ...], units: int) -> bool:
    return (before.layers, len(before.kept)) == (layers, units)


def _together(steps: Sequence[Mapping[str, int]]) -> Round:
    """Return several cuts as one: the last width of each group."""
    widths: Round = {}
    for step in steps:
        widths |= step
    return widths
