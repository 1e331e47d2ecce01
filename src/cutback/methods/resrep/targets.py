"""Which groups of channels get compactors, and why the others do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cutback.gates import mixed_groups
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, Group, Slot, layer_of
from cutback.methods.resrep.folding import Pair
from cutback.methods.resrep.pairs import pairs_of
from cutback.methods.resrep.silence import speaks
from cutback.planning.by_hand import settled_by_hand

_PLAIN = ("filter", "bias", "norm", "column")
"""What channels pass that are nothing but made, normalised and read."""


@dataclass(frozen=True, eq=False)
class Target:
    """A group of channels that gets a compactor.

    Attributes:
        number: the group's number in the graph.
        name: the group's name.
        rows: how many channels it has.
        pairs: the convolutions that make them, each with its batch norm; the first owns the compactor that all use.
    """

    number: int
    name: str
    rows: int
    pairs: tuple[Pair, ...]


def targets_of(graph: Graph, *, coupled: bool, ignore: Sequence[str]) -> tuple[list[Target], dict[str, str]]:
    """Return the targets, and for every other group why it is none.

    Args:
        graph: the traced model.
        coupled: whether channels that several layers make or read are targets too.
        ignore: patterns of modules whose outputs stay whole.

    Raises:
        UnknownName: a pattern matches nothing.
    """
    ignored = settled_by_hand(graph, ignore, None)
    pairs, mixed = pairs_of(graph), mixed_groups(graph)
    linked = {number for system in graph.systems for number in system.groups}
    found: list[Target] = []
    others: dict[str, str] = {}
    for number, group in enumerate(graph.groups):
        own = tuple(pairs[slot.state] for slot in group.slices if slot.role == "filter" and slot.state in pairs)
        why = "they are ignored" if number in ignored else ""
        if number in linked:
            why = why or f"they fall into blocks that must lose equally many ({group.balance})"
        if group.name in mixed:
            why = why or "an operator that normalises or compares channels reads them"
        why = why or _why_not(graph, group, pairs, coupled=coupled)
        if not why and _passes_more(group, pairs):
            why = speaks(graph, number, own)
        if why:
            others[group.name] = why
        else:
            found.append(Target(number, group.name, group.units, own))
    return found, others


def _why_not(graph: Graph, group: Group, pairs: Mapping[str, Pair], *, coupled: bool) -> str:
    """Return why a group's channels get no compactor as far as their layers tell; empty where they may."""
    made = [slot for slot in group.slices if slot.role == "filter"]
    own = [slot for slot in made if slot.state in pairs]
    reading = list(dict.fromkeys(slot.state for slot in group.slices if _reads(slot)))
    if not own:
        return "no convolution with a batch norm of its own behind it makes them"
    states = state_tensors(graph.model)
    for slot in own:
        whole = np.arange(len(states[slot.state]))[:, None]
        if slot.dimension or not np.array_equal(group.slices[slot], whole):
            return f"they are not the channels of {layer_of(slot.state)} one by one"
    if coupled:
        return ""
    if len(made) > 1:
        return f"{len(made)} layers make them ({_listed(slot.state for slot in made)}); coupled=True takes them too"
    if len(reading) != 1:
        return f"{len(reading)} layers read them ({_listed(reading)}); coupled=True takes them too"
    return ""


def _passes_more(group: Group, pairs: Mapping[str, Pair]) -> bool:
    """Whether channels pass anything else than the pairs that make them and the layers that read them."""
    norms = {pairs[slot.state].norm for slot in group.slices if slot.role == "filter" and slot.state in pairs}
    for slot in group.slices:
        foreign = slot.role == "filter" and slot.state not in pairs
        foreign = foreign or (slot.role == "norm" and layer_of(slot.state) not in norms)
        if foreign or slot.role not in _PLAIN:
            return True
    return False


def _reads(slot: Slot) -> bool:
    return slot.consumes or slot.role == "column"


def _listed(names: object) -> str:
    return ", ".join(layer_of(str(name)) for name in list(names)[:4])  # type: ignore[call-overload]
