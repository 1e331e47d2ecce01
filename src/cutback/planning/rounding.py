"""Round widths: what is left of a layer is what its groups keep and what stays of it anyway."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.graph.balance import System
from cutback.graph.graph import Graph, Group, Slot, layer_of
from cutback.planning.limits import Limits


def produced(group: Group) -> list[Slot]:
    """Return where the channels of a group are made: its layers' filters, or what holds or selects them."""
    filters = [slot for slot in group.slices if slot.role in ("filter", "depthwise")]
    return filters or [slot for slot in group.slices if slot.role in ("element", "selection")]


def channels_of(graph: Graph, slot: Slot) -> tuple[int, dict[int, int]]:
    """Return how many channels of a layer stay anyway, and how many a unit of each group brings, by its number."""
    sizes = graph.slots[slot].sizes
    brought = {number: graph.groups[number].slices[slot].shape[1] for number in sorted(sizes) if number >= 0}
    return sizes.get(-1, 0), brought


def narrower_widths(graph: Graph, number: int, settled: Mapping[int, int], limits: Limits) -> list[int]:
    """Return to how many units a group may shrink, falling.

    Args:
        graph: the traced model.
        number: the group's number.
        settled: units of the groups whose width is settled already, by number.
        limits: what the width of every layer that makes the group's channels must meet. Where several groups share a
            layer, what stays of it anyway is evened out to a multiple by the first of them.
    """
    allowed = np.ones(graph.groups[number].units - 1, dtype=bool)
    if limits == Limits():
        return list(range(len(allowed), 0, -1))
    for slot in produced(graph.groups[number]):
        allowed &= _allowed(graph, slot, number, settled, limits)
    return (np.flatnonzero(allowed)[::-1] + 1).tolist()


def levels_allowed(
    graph: Graph,
    system: System,
    levels: NDArray[np.int64],
    settled: Mapping[int, int],
    limits: Limits,
) -> NDArray[np.bool_]:
    """Return which levels of a balanced system give permitted widths, shape ``(levels,)``.

    Args:
        graph: the traced model.
        system: groups that a balance links.
        levels: how many units of each cell stay, shape ``(levels, cells)``.
        settled: units of the groups whose width is settled already, by number.
        limits: what widths must meet; of layers shared with groups outside, their own part is to be a multiple.
    """
    owner = np.array([cell.group for cell in system.cells])
    allowed = np.ones(len(levels), dtype=bool)
    for slot in dict.fromkeys(slot for number in system.groups for slot in produced(graph.groups[number])):
        stays, brought = channels_of(graph, slot)
        widths, whole = np.full(len(levels), stays), stays
        for number, channels in brought.items():
            if number in system.groups:
                widths = widths + channels * levels[:, owner == number].sum(axis=1)
                whole += channels * graph.groups[number].units
            else:
                widths = widths + channels * settled.get(number, 0)
                whole += channels * settled.get(number, 0)
        allowed &= (widths % limits.round_to == 0) & (widths >= max(limits.least(whole), limits.min_channels))
    return allowed


def rounding_notes(
    graph: Graph, settled: Mapping[int, int], kept: Sequence[int] | NDArray[np.int64], round_to: int
) -> list[str]:
    """Say which widths could not be made multiples of ``round_to``.

    Args:
        graph: the traced model.
        settled: units of the groups whose width was settled by hand, by number.
        kept: how many units of each group stay.
        round_to: what widths were to be multiples of.
    """
    notes: list[str] = []
    rounded = Limits(round_to=round_to)
    for number, group in enumerate(graph.groups):
        slots = produced(group)
        alone = [_allowed(graph, slot, number, settled, rounded).any() for slot in slots]
        if number not in settled and all(alone) and not narrower_widths(graph, number, settled, rounded):
            layers = ", ".join(dict.fromkeys(layer_of(slot.state) or slot.state for slot in slots[:4]))
            notes.append(
                f"{group.name} stays whole: some channels of its layers stay anyway, and no narrower width makes all "
                f"of {layers} multiples of round_to={round_to}"
            )
    for slot in dict.fromkeys(slot for group in graph.groups for slot in produced(group)):
        stays, brought = channels_of(graph, slot)
        width = stays + sum(channels * int(kept[number]) for number, channels in brought.items())
        if width % round_to and width < len(graph.slots[slot].group) and not set(brought) <= set(settled):
            notes.append(
                f"{layer_of(slot.state) or slot.state} keeps {width} channels, no multiple of round_to={round_to}: "
                "several groups share it, and not all of them have such widths"
            )
    return list(dict.fromkeys(notes))


def _allowed(graph: Graph, slot: Slot, number: int, settled: Mapping[int, int], limits: Limits) -> NDArray[np.bool_]:
    """Return which widths from 1 to all but one suit one layer, shape ``(units - 1,)``."""
    stays, brought = channels_of(graph, slot)
    stays += sum(channels * settled[other] for other, channels in brought.items() if other in settled)
    units = graph.groups[number].units
    widths = brought[number] * np.arange(1, units)
    evens_out = number == min(other for other in brought if other == number or other not in settled)
    own, whole = widths + stays * evens_out, brought[number] * units + stays * evens_out
    return (own % limits.round_to == 0) & (own >= limits.least(whole)) & (widths + stays >= limits.min_channels)
