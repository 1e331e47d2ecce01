"""What is coupled in a model: the result of tracing it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from cutback.graph.balance import System
from cutback.graph.capture import Capture
from cutback.graph.granularity import Granularity
from cutback.graph.inputs import Inputs
from cutback.graph.interpret import Labelling
from cutback.graph.labels import Boundary
from cutback.graph.sizes import Keeping, Width
from cutback.graph.states import StateLabels


def layer_of(state: str) -> str:
    """Return the path of the module that owns a parameter or buffer; what parametrizes a module belongs to it."""
    owner = state.rpartition(".")[0].split(".")
    return ".".join(owner[: owner.index("parametrizations")] if "parametrizations" in owner else owner)


@dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer.

    Attributes:
        state: qualified name.
        dimension: the dimension that is sliced.
        role: what a slice is: ``filter`` (output channel of a contraction), ``column`` (input channel of one),
            ``depthwise`` (both at once), ``bias``, ``norm``, ``selection`` (the place in a list of positions at which a
            channel is taken) or ``element``. Tied weights may play several; this is the first.
        consumes: whether its slices are columns wherever else the weight is used.
        blocks: into how many equal blocks the state's first dimension falls, each with slices of its own along this
            one: index ``i`` is slice ``i % size`` of block ``i // size``.
    """

    state: str
    dimension: int
    role: str
    consumes: bool = False
    blocks: int = 1


_STAYS = np.ones(1, dtype=bool)


@dataclass(frozen=True, eq=False)
class UnitMap:
    """The unit each element of some labels belongs to.

    Attributes:
        group: number of the group, or -1 where the element always stays.
        unit: number of the unit in the group.
    """

    group: NDArray[np.int64]
    unit: NDArray[np.int64]

    def stays(self, kept: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return which elements stay, given for each group which units stay."""
        numbers, rank = self._groups
        tables = [kept[number] if number >= 0 else _STAYS for number in numbers]
        if len(tables) == 1:
            return tables[0][self._place]
        starts = np.cumsum([0, *map(len, tables[:-1])])
        return np.concatenate(tables)[starts[rank] + self._place] if tables else np.ones(0, dtype=bool)

    @cached_property
    def sizes(self) -> dict[int, int]:
        """How many elements lie in each group; -1 for those in none."""
        numbers, rank = self._groups
        return dict(zip(numbers, np.bincount(rank, minlength=len(numbers)).tolist(), strict=True))

    @cached_property
    def _groups(self) -> tuple[list[int], NDArray[np.int64]]:
        """The numbers of the groups (-1 for none) and, for each element, which of them is its own."""
        if len(self.group) and (self.group == self.group[0]).all():
            return [int(self.group[0])], np.zeros(self.group.shape, dtype=np.int64)
        numbers, rank = np.unique(self.group, return_inverse=True)
        return numbers.tolist(), rank

    @cached_property
    def _place(self) -> NDArray[np.int64]:
        """The number of each element's unit in its group; 0 for those in none."""
        return np.maximum(self.unit, 0)


@dataclass(frozen=True, eq=False)
class SlotUnits:
    """Group and unit of every component of united labels."""

    group: NDArray[np.int64]
    unit: NDArray[np.int64]

    @cached_property
    def everything(self) -> UnitMap:
        """Group and unit of all components, in order."""
        return UnitMap(self.group, self.unit)

    @cached_property
    def _known(self) -> dict[tuple[tuple[int, ...], bytes], UnitMap]:
        return {}

    def of(self, components: NDArray[np.int64]) -> UnitMap:
        """Look up an array of components; for an equal one it is the same map, as most slots of a group have."""
        key = components.shape, components.tobytes()
        if key not in self._known:
            self._known[key] = UnitMap(self.group[components], self.unit[components])
        return self._known[key]


@dataclass(frozen=True, eq=False)
class Followed:
    """An attribute that holds widths and follows every cut.

    Attributes:
        path: path of the module that holds it.
        attribute: its name.
        entries: for the integer, or for each entry of the list, the width it holds or the number it stays.
        listed: whether it is a list or tuple.
    """

    path: str
    attribute: str
    entries: tuple[Width | int, ...]
    listed: bool

    def value(self, kept: Keeping) -> int | tuple[int, ...]:
        """Return the value after a cut."""
        sizes = tuple(entry if isinstance(entry, int) else entry.size(kept) for entry in self.entries)
        return sizes if self.listed else sizes[0]


@dataclass(frozen=True, eq=False)
class Coupling:
    """How labels became units; what the second pass compares with.

    Attributes:
        labellings: what the first pass did, for each capture.
        states: labels of parameters and buffers.
        components: the component of each label.
        owners: group and unit of each component.
        assumes: whether some size in a call was taken to follow a cut, so that every plan needs the second pass.
        refused: calls made boundaries after labelling, with the reason of each.
        whole: calls whose blocks stay or go whole.
        followed: attributes of the model's own modules that hold widths.
        held: calls whose results stay, with what keeps them.
    """

    labellings: tuple[Labelling, ...]
    states: StateLabels
    components: NDArray[np.int64]
    owners: SlotUnits
    assumes: bool
    refused: Mapping[fx.Node, str]
    whole: Collection[fx.Node]
    followed: tuple["Followed", ...] = ()
    held: Mapping[fx.Node, Boundary] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Group:
    """Units of one footprint: each owns the same number of slices of the same slots.

    Attributes:
        name: path of the first layer that produces the channels (with ``#2`` and so on where that is not unique).
        units: how many units there are.
        slices: for each slot the indices of each unit, shape ``(units, indices a unit)``.
        balance: which of its units must lose equally many, in words; empty where any may go.
    """

    name: str
    units: int
    slices: Mapping[Slot, NDArray[np.int64]]
    balance: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that produce the group's channels; names of parameters that the model itself holds."""
        made = [slot for slot in self.slices if slot.role in ("filter", "depthwise")]
        producers = made or [slot for slot in self.slices if slot.role == "selection"] or list(self.slices)
        return tuple(dict.fromkeys(layer_of(slot.state) or slot.state for slot in producers))


@dataclass(frozen=True)
class KeptLayer:
    """A layer of which some output channels stay whatever the plan.

    Attributes:
        layer: its path.
        channels: how many stay.
        total: how many it has.
        reasons: what keeps them.
    """

    layer: str
    channels: int
    total: int
    reasons: tuple[Boundary, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """What is coupled in a model; prints as a table.

    Attributes:
        model: the traced model, unchanged.
        inputs: the example inputs.
        captures: the recorded forward passes, in eval mode and in train mode.
        groups: what can be pruned.
        slots: the unit of each slice of each parameter and buffer that was used.
        systems: groups whose blocks must keep equally many.
        kept: layers with channels that stay, and why.
        boundaries: operators that keep channels, and why.
        unreached: parameters that no captured forward pass has used.
        coupling: how labels became units.
        train_failure: why the model could not be captured in train mode; empty where it was.
        wrappers: what was around the model when it was traced (see ``cutback.rewrap``), outermost first.
        granularity: how blocks of channels shrink, as it was asked for.
    """

    model: nn.Module
    inputs: Inputs
    captures: tuple[Capture, ...]
    groups: tuple[Group, ...]
    slots: Mapping[Slot, UnitMap]
    systems: tuple[System, ...]
    kept: tuple[KeptLayer, ...]
    boundaries: tuple[Boundary, ...]
    unreached: tuple[str, ...]
    coupling: Coupling
    train_failure: str = ""
    wrappers: tuple[nn.Module, ...] = ()
    granularity: Granularity = "channels"

    def __str__(self) -> str:
        name = max([5, *(len(group.name) for group in self.groups), *(len(layer.layer) for layer in self.kept)])
        lines = [f"{'group':<{name}}  {'units':>6}  layers"]
        lines += [f"{group.name:<{name}}  {group.units:>6}  {_shortened(group.layers)}" for group in self.groups]
        if self.kept:
            lines += ["", f"{'kept':<{name}}  {'stay':>6}  why"]
        for layer in self.kept:
            share = str(layer.channels) if layer.channels == layer.total else f"{layer.channels}/{layer.total}"
            lines.append(f"{layer.layer:<{name}}  {share:>6}  {layer.reasons[0]}")
        if self.unreached:
            lines += ["", f"parameters no forward pass has used: {_shortened(self.unreached)}"]
        if self.train_failure:
            lines += ["", f"not captured in train mode: {self.train_failure}"]
        return "\n".join(lines)


def _shortened(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
