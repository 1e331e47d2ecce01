"""What selection may do with each group, or with each system of groups that a balance links."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cutback.errors import InvalidBudget
from cutback.graph.balance import Cell, System
from cutback.graph.graph import Graph
from cutback.planning.limits import Limits
from cutback.planning.rounding import levels_allowed, narrower_widths
from cutback.planning.select import Choice, permitted_widths


def choices_of(
    graph: Graph,
    settled: Mapping[int, int],
    *,
    only_settled: bool,
    share: Fraction | None,
    limits: Limits,
) -> tuple[list[Choice], list[str]]:
    """Return one choice for each group that no balance restricts and one for each system of the others.

    Args:
        graph: the traced model.
        settled: units of the groups whose width is settled by hand, by number.
        only_settled: whether all other groups stay whole.
        share: at most this share of the units of each group stays; ``None`` for no such bound.
        limits: what the width of every layer must meet.

    Returns:
        The choices, not scored yet, and notes on shares that could not be met.

    Raises:
        InvalidBudget: what is settled by hand contradicts a balance.
    """
    choices: list[Choice] = []
    notes: list[str] = []
    linked = {number for system in graph.systems for number in system.groups}
    for number, group in enumerate(graph.groups):
        if number in linked:
            continue
        cell = Cell(number, tuple(range(group.units)))
        if number in settled or only_settled:
            widths = (settled.get(number, group.units),)
        else:
            most = None if share is None else max(int(share * group.units), 1)
            narrower = narrower_widths(graph, number, settled, limits)
            widths = permitted_widths(group.units, narrower, most)
            if most is not None and widths[0] > most:
                notes.append(f"{group.name} keeps {widths[0]} of {group.units}, the lowest permitted width")
        choices.append(Choice((cell,), (), np.array(widths, dtype=np.int64)[:, None]))
    for system in graph.systems:
        own = {number: settled[number] for number in system.groups if number in settled}
        if own or only_settled:
            levels = _settled(graph, system, own)
        else:
            levels = _levels(graph, system, settled, share, limits)
            if share is not None and levels[0].sum() > share * system.sizes.sum():
                name = graph.groups[system.groups[0]].name
                notes.append(
                    f"{name} and what it is balanced with keep {levels[0].sum()} of {system.sizes.sum()} units"
                )
        choices.append(Choice(system.cells, (), levels))
    return choices, notes


def _levels(
    graph: Graph, system: System, settled: Mapping[int, int], share: Fraction | None, limits: Limits
) -> NDArray[np.int64]:
    """Return the permitted levels of a system; staying whole is always permitted unless a share forbids it."""
    levels = system.levels
    allowed = levels_allowed(graph, system, levels, settled, limits)
    allowed[0] = True
    levels = levels[allowed]
    if share is None:
        return levels
    low = levels.sum(axis=1) <= share * int(system.sizes.sum())
    return levels[low] if low.any() else levels[-1:]


def _settled(graph: Graph, system: System, settled: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the one level that comes nearest to what is settled by hand, the rest as wide as it may be."""
    wanted = [
        len(cell.units) * settled.get(cell.group, graph.groups[cell.group].units) / graph.groups[cell.group].units
        for cell in system.cells
    ]
    counts = system.nearest(np.array(wanted), settled)
    if counts is None:
        names = ", ".join(graph.groups[number].name for number in settled)
        raise InvalidBudget(
            f"what keep or ignore leaves of {names} cannot be balanced: equally many channels must stay in each block "
            "of the layers concerned (see the balance column of cutback check); write other shares"
        )
    return counts[None]
