"""From united labels to units and groups: which slices go together, and what keeps the rest."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from cutback.graph.balance import distinct, nontrivial, systems
from cutback.graph.call import Assumption, Balance
from cutback.graph.capture import Capture
from cutback.graph.clone import parameters_by_name
from cutback.graph.compensation import compensate
from cutback.graph.equal import EqualWidths, equal_parts
from cutback.graph.graph import Coupling, Graph, Group, KeptLayer, Slot, SlotUnits, layer_of
from cutback.graph.inputs import Inputs
from cutback.graph.interpret import label
from cutback.graph.labels import NONE, Boundary, LabelStore, compact, core, unlike_previous, varying_dimensions
from cutback.graph.states import StateLabels
from cutback.graph.wording import worded

_PRODUCERS = ("filter", "depthwise", "element", "selection")
_UNASSIGNED = -1


def couple(
    model: nn.Module,
    inputs: Inputs,
    captures: Sequence[Capture],
    refused: Mapping[fx.Node, str] | None = None,
    whole: Collection[fx.Node] = (),
    *,
    held: Mapping[fx.Node, Boundary] | None = None,
    equal: Collection[EqualWidths] = (),
    train_failure: str = "",
) -> tuple[Graph, list[Assumption]]:
    """Label all captures with one store and gather the units into groups.

    Args:
        model: the model the captures were made from.
        inputs: its example inputs.
        captures: recorded forward passes.
        refused: calls to be made boundaries, with the reason of each.
        whole: calls whose blocks (groups of a convolution, heads) are to stay or go whole.
        held: calls whose channels stay, with what keeps them.
        equal: widths that must stay equal because the model's code computes one from the other.
        train_failure: why there is no capture in train mode.

    Returns:
        The graph, and the sizes taken to follow a cut.
    """
    store = LabelStore()
    states = StateLabels(store)
    labelled = [label(capture, store, states, refused or {}, whole, held) for capture in captures]
    compensate(captures, labelled, store)
    components = store.components()
    slots, scattered = slots_of(states, components)
    kept = _kept_components(store, components, scattered)
    asked = [balance for labelling in labelled for trail in labelling.trails for balance in trail.balanced]
    asked += [Balance(parts, moves=True) for parts in equal_parts(equal, captures, labelled, states)]
    balances = [(balance, blocks) for balance in asked if (blocks := nontrivial(balance.parts, components)) is not None]
    linked = np.zeros(int(components.max()) + 1, dtype=bool)
    for _, blocks in balances:
        linked[np.concatenate(blocks)] = True
    groups, group_of, unit_of = _groups(slots, kept, linked)
    distinct_balances = distinct(blocks for _, blocks in balances)
    owner = SlotUnits(group_of, unit_of)
    used = {name for made in captures for node, name in zip(made.nodes, made.states, strict=False) if node.users}
    assumptions = [
        assumption
        for labelling in labelled
        for assumption in labelling.assumptions
        if (labels := core(assumption.labels).unique().numpy()).max(initial=NONE) == NONE
        or (group_of[components[labels]] != _UNASSIGNED).any()
    ]
    moved = any(
        balance.moves and (group_of[np.concatenate(blocks)] != _UNASSIGNED).any() for balance, blocks in balances
    )
    graph = Graph(
        model=model,
        inputs=inputs,
        captures=tuple(captures),
        groups=worded(groups, distinct_balances, group_of),
        slots={slot: owner.of(vector) for slot, vector in slots.items()},
        systems=systems(
            distinct_balances,
            group_of,
            unit_of,
            [group.units for group in groups],
            _layers(slots, group_of),
        ),
        kept=_kept_layers(slots, kept, group_of),
        boundaries=_boundaries(store, components, slots),
        unreached=tuple(name for name in parameters_by_name(model) if name not in used),
        coupling=Coupling(
            tuple(labelled),
            states,
            components,
            owner,
            bool(assumptions) or moved,
            refused or {},
            whole,
            held=held or {},
        ),
        train_failure=train_failure,
    )
    return graph, assumptions


def slots_of(states: StateLabels, components: NDArray[np.int64]) -> tuple[dict[Slot, NDArray[np.int64]], set[int]]:
    """Return the component of each slice of each state, and the components no single dimension of a state follows."""
    slots = {
        Slot(*key, states.roles[key], key in states.consumed, states.blocks[key]): components[vector.numpy()]
        for key, vector in states.vectors.items()
    }
    scattered: set[int] = set()
    for name, elements in states.elements.items():
        found = compact(torch.from_numpy(components[elements.numpy()]))
        varying = varying_dimensions(found)
        if len(varying) == 1 and not any(slot.state == name for slot in slots):
            index = [slice(None) if d == varying[0] else 0 for d in range(found.dim())]
            slots[Slot(name, varying[0], "element")] = found[tuple(index)].numpy()
        else:
            scattered.update(np.unique(found.numpy()).tolist())
            scattered.update(int(c) for slot, vector in slots.items() if slot.state == name for c in np.unique(vector))
    return slots, scattered


def _layers(slots: Mapping[Slot, NDArray[np.int64]], group_of: NDArray[np.int64]) -> Iterator[frozenset[int]]:
    """Yield for each slot none of whose slices stays anyway the groups they are of."""
    for vector in slots.values():
        groups = group_of[vector]
        if (groups == groups[0]).all():
            groups = groups[:1]
        if groups.min() != _UNASSIGNED:
            yield frozenset(np.unique(groups).tolist())


def _kept_components(store: LabelStore, components: NDArray[np.int64], scattered: set[int]) -> dict[int, Boundary]:
    """Return the first reason that keeps each kept component."""
    kept = {int(components[NONE]): Boundary("constant", "", "a constant")}
    for labels, boundary in store.kept:
        for component in np.unique(components[labels]).tolist():
            kept.setdefault(component, boundary)
    for component in scattered:
        kept.setdefault(component, Boundary("parameter", "", "a parameter used along two dimensions at once"))
    return kept


def _groups(
    slots: Mapping[Slot, NDArray[np.int64]], kept: Mapping[int, Boundary], linked: NDArray[np.bool_]
) -> tuple[tuple[Group, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Gather components of one footprint; return the groups, and group and unit of each component (or -1).

    A lone unit makes no group, unless it is linked to others by a balance: one channel stays everywhere.

    Args:
        slots: the component of each slice of each slot.
        kept: what keeps the components that stay.
        linked: whether each component lies in a balance.
    """
    group_of = np.full(len(linked), _UNASSIGNED)
    unit_of = np.full(len(linked), _UNASSIGNED)
    order = list(slots)
    if not order:
        return (), group_of, unit_of
    component = np.concatenate(list(slots.values()))
    sizes = [len(vector) for vector in slots.values()]
    # All slices, those of one component together, in the order of the slots.
    slices = np.argsort(component.astype(np.min_scalar_type(len(linked))), kind="stable")  # short integers: by radix
    slot_of = np.repeat(np.arange(len(order)), sizes)[slices]
    index = np.concatenate([np.arange(size) for size in sizes])[slices]
    starts = np.flatnonzero(np.diff(component[slices], prepend=-1))
    lengths = np.diff(starts, append=len(slices))
    owners, seen = component[slices[starts]], slices[starts]
    stays = np.zeros(len(linked), dtype=bool)
    stays[list(kept)] = True
    changes = unlike_previous(lengths, slot_of)
    changes[1:] |= np.diff(stays[owners])
    first = np.flatnonzero(changes)
    footprints: dict[bytes, list[NDArray[np.int64]]] = {}
    for begin, end in zip(first.tolist(), [*first[1:].tolist(), len(owners)], strict=True):
        if not stays[owners[begin]]:
            key = slot_of[starts[begin] : starts[begin] + lengths[begin]].tobytes()
            footprints.setdefault(key, []).append(np.arange(begin, end))
    groups: list[Group] = []
    names: dict[str, int] = {}
    gathered = (np.concatenate(runs) for runs in footprints.values())
    for members in sorted((m[np.argsort(seen[m])] for m in gathered), key=lambda members: seen[members[0]]):
        units = owners[members]
        if len(units) < 2 and not linked[units[0]]:
            continue
        group_of[units], unit_of[units] = len(groups), np.arange(len(units))
        start, length = starts[members[0]], lengths[members[0]]
        table = index[starts[members][:, None] + np.arange(int(length))]
        cuts = np.flatnonzero(np.diff(slot_of[start : start + length], prepend=-1)).tolist()
        of = [order[number] for number in slot_of[start + np.array(cuts)].tolist()]
        ends = [*cuts[1:], length]
        indices = {slot: table[:, cut:end] for slot, cut, end in zip(of, cuts, ends, strict=True)}
        name = _name(of)
        names[name] = names.get(name, 0) + 1
        groups.append(Group(name if names[name] == 1 else f"{name}#{names[name]}", len(units), indices))
    return tuple(groups), group_of, unit_of


def _name(members: Sequence[Slot]) -> str:
    """Name a group after the first layer that produces it."""
    for role in _PRODUCERS:
        for slot in members:
            if slot.role == role:
                return layer_of(slot.state) or slot.state
    return layer_of(members[0].state) or members[0].state


def _kept_layers(
    slots: Mapping[Slot, NDArray[np.int64]], kept: Mapping[int, Boundary], group_of: NDArray[np.int64]
) -> tuple[KeptLayer, ...]:
    """Say of each producing layer how many of its channels stay whatever the plan, and why."""
    found: list[KeptLayer] = []
    for slot, vector in slots.items():
        if slot.role not in ("filter", "depthwise"):
            continue
        stay = vector[group_of[vector] == _UNASSIGNED]
        if len(stay):
            reasons = dict.fromkeys(kept[int(c)] for c in np.unique(stay) if int(c) in kept)
            lone = Boundary("group", "", "its only unit; one channel stays everywhere")
            found.append(
                KeptLayer(layer_of(slot.state) or slot.state, len(stay), len(vector), tuple(reasons) or (lone,))
            )
    return tuple(found)


def _boundaries(
    store: LabelStore, components: NDArray[np.int64], slots: Mapping[Slot, NDArray[np.int64]]
) -> tuple[Boundary, ...]:
    """Return the boundaries that keep channels of some layer, inputs and outputs of the network left out."""
    produced = np.zeros(len(components), dtype=bool)
    for slot, vector in slots.items():
        if slot.role in ("filter", "depthwise"):
            produced[vector] = True
    found = (
        boundary
        for labels, boundary in store.kept
        if boundary.operator not in ("input", "output") and produced[components[labels]].any()
    )
    return tuple(dict.fromkeys(found))
