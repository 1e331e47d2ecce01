"""From united labels to units and groups: which slices go together, and what keeps the rest."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from cutback.graph.balance import nontrivial, systems
from cutback.graph.call import Assumption, Balance
from cutback.graph.capture import Capture
from cutback.graph.clone import parameters_by_name
from cutback.graph.compensation import compensate
from cutback.graph.equal import EqualWidths, equal_parts
from cutback.graph.graph import Coupling, Graph, Group, KeptLayer, Slot, SlotUnits, layer_of
from cutback.graph.inputs import Inputs
from cutback.graph.interpret import label
from cutback.graph.labels import NONE, Boundary, LabelStore, compact, core, varying_dimensions
from cutback.graph.states import StateLabels
from cutback.graph.wording import worded

_PRODUCERS = ("filter", "depthwise", "element")
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
    linked = {component for _, blocks in balances for part in blocks for component in part.tolist()}
    groups, group_of, unit_of = _groups(slots, kept, linked, int(components.max()) + 1)
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
        groups=worded(groups, (blocks for _, blocks in balances), group_of),
        slots={slot: owner.of(vector) for slot, vector in slots.items()},
        systems=systems(
            (blocks for _, blocks in balances),
            group_of,
            unit_of,
            [group.units for group in groups],
            (frozenset(np.unique(of).tolist()) for vector in slots.values() if (of := group_of[vector]).min() >= 0),
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
    slots: Mapping[Slot, NDArray[np.int64]], kept: Mapping[int, Boundary], linked: Collection[int], total: int
) -> tuple[tuple[Group, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Gather components of one footprint; return the groups, and group and unit of each component (or -1).

    A lone unit makes no group, unless it is linked to others by a balance: one channel stays everywhere.
    """
    group_of = np.full(total, _UNASSIGNED)
    unit_of = np.full(total, _UNASSIGNED)
    order = list(slots)
    if not order:
        return (), group_of, unit_of
    component = np.concatenate([slots[slot] for slot in order])
    sizes = [len(slots[slot]) for slot in order]
    slot_number = np.repeat(np.arange(len(order)), sizes)
    pairs, first_seen, counts = np.unique(component * len(order) + slot_number, return_index=True, return_counts=True)
    owners_of_pairs, numbers_of_pairs = np.divmod(pairs, len(order))
    bounds = np.flatnonzero(np.diff(owners_of_pairs, prepend=-1))
    # The slots of a component and how many slices it has of each, as bytes.
    written = np.stack([numbers_of_pairs, counts], axis=1).tobytes()
    width = len(written) // len(pairs)
    footprints: dict[bytes, list[tuple[int, int]]] = {}
    ends = [*(bounds[1:] * width).tolist(), len(written)]
    runs = zip(
        (bounds * width).tolist(), ends, owners_of_pairs[bounds].tolist(), first_seen[bounds].tolist(), strict=True
    )
    for start, end, owner, seen in runs:
        if owner not in kept:
            footprints.setdefault(written[start:end], []).append((seen, owner))
    found: list[tuple[list[int], NDArray[np.int64]]] = []
    for key, owners in sorted(footprints.items(), key=lambda item: min(item[1])):
        if len(owners) < 2 and owners[0][1] not in linked:
            continue
        units = [owner for _, owner in sorted(owners)]
        group_of[units] = len(found)
        unit_of[units] = np.arange(len(units))
        found.append((units, np.frombuffer(key, dtype=np.int64)[::2]))
    positions = _positions(group_of[component], unit_of[component], slot_number, sizes)
    groups: list[Group] = []
    names: dict[str, int] = {}
    for number, (units, members) in enumerate(found):
        name = _name([order[member] for member in members])
        names[name] = names.get(name, 0) + 1
        indices = {order[member]: positions[number, member].reshape(len(units), -1) for member in members.tolist()}
        groups.append(Group(name if names[name] == 1 else f"{name}#{names[name]}", len(units), indices))
    return tuple(groups), group_of, unit_of


def _positions(
    group: NDArray[np.int64], unit: NDArray[np.int64], slot: NDArray[np.int64], sizes: Sequence[int]
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Return the indices that belong to each group in each slot, ordered by unit, by the numbers of group and slot.

    Args:
        group: the group of each slice, slot by slot, or -1; shape ``(slices,)``.
        unit: its unit in the group.
        slot: the number of its slot.
        sizes: how many slices each slot has.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    inside = np.flatnonzero(group != _UNASSIGNED)
    if not len(inside):
        return {}
    pair = group[inside] * len(sizes) + slot[inside]
    order = np.argsort(pair * (int(unit.max(initial=0)) + 1) + unit[inside], kind="stable")
    pair, inside = pair[order], inside[order]
    index = inside - starts[slot[inside]]
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    keys = [divmod(number, len(sizes)) for number in pair[first].tolist()]
    return dict(zip(keys, np.split(index, first[1:]), strict=True))


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
        stay = vector[group_of[vector] == _UNASSIGNED]
        if slot.role in ("filter", "depthwise") and len(stay):
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
