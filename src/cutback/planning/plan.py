"""The plan: which units stay, as names and ordered indices only. Immutable; JSON; knows no tensors."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cutback.errors import ArchitectureMismatch, CorruptFile, UnsupportedVersion
from cutback.planning.quantity import shown

PLAN_VERSION = 2
"""A plan without ``scales`` is written as version 1, which has none."""


Width = int | tuple[int, ...]
"""The value of a width attribute such as ``out_channels`` or ``normalized_shape``."""


@dataclass(frozen=True)
class Kept:
    """What stays along one dimension.

    Attributes:
        total: the dimension's size before, times ``blocks``.
        indices: what stays, in the order it is to have.
        blocks: into how many equal blocks the tensor's first dimension falls, each with slices of its own along this
            one (a grouped convolution's weight): index ``i`` is slice ``i % size`` of block ``i // size``, where
            ``size = total // blocks``.
    """

    total: int
    indices: tuple[int, ...]
    blocks: int = 1

    @cached_property
    def array(self) -> NDArray[np.int64]:
        """The indices, read-only."""
        made = np.array(self.indices, dtype=np.int64)
        made.flags.writeable = False
        return made

    @cached_property
    def span(self) -> tuple[int, int]:
        """The smallest and the largest index that stays."""
        return min(self.indices), max(self.indices)


@dataclass(frozen=True)
class Scaled:
    """Slices that are multiplied, to make up for a width that an operator divides by.

    Attributes:
        dimension: the dimension they lie along.
        indices: which ones, before the cut.
        factor: by what.
    """

    dimension: int
    indices: tuple[int, ...]
    factor: float


@dataclass(frozen=True)
class Cost:
    """A quantity before and after the cut."""

    before: int
    after: int


@dataclass(frozen=True)
class PlannedGroup:
    """What stays of one group.

    Attributes:
        name: the group's name.
        layers: paths of the layers that produce its channels.
        total: units before.
        kept: numbers of the units that stay, in order.
        macs: MACs (batch 1) of those layers.
    """

    name: str
    layers: tuple[str, ...]
    total: int
    kept: tuple[int, ...]
    macs: Cost


@dataclass(frozen=True)
class Plan:
    """Which units stay, in which order; prints as a table.

    Attributes:
        architecture: hash of the architecture the plan belongs to.
        result: hash of the architecture it leads to.
        groups: what stays of each group.
        slices: for each parameter or buffer that is cut, what stays along each cut dimension.
        attributes: for each module path, width attributes and the values they take.
        costs: ``macs`` (batch 1) and ``params``, and whatever else was budgeted, in the units of its quantity.
        budgets: the budgets it was made for, as written.
        notes: what a user should know about how the budgets were met.
        scales: for each parameter of which some slices are multiplied before the cut, which and by what.
    """

    architecture: str
    result: str
    groups: tuple[PlannedGroup, ...]
    slices: Mapping[str, Mapping[int, Kept]]
    attributes: Mapping[str, Mapping[str, Width]]
    costs: Mapping[str, Cost]
    budgets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scales: Mapping[str, tuple[Scaled, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frozen = {name: MappingProxyType(dict(dimensions)) for name, dimensions in self.slices.items()}
        object.__setattr__(self, "slices", MappingProxyType(frozen))
        attributes = {path: MappingProxyType(dict(values)) for path, values in self.attributes.items()}
        object.__setattr__(self, "attributes", MappingProxyType(attributes))
        object.__setattr__(self, "costs", MappingProxyType(dict(self.costs)))
        scales = {name: tuple(found) for name, found in self.scales.items() if found}
        object.__setattr__(self, "scales", MappingProxyType(scales))

    def __hash__(self) -> int:
        return hash((self.architecture, self.result, self.groups))

    def __reduce__(self) -> tuple[Callable[[str], "Plan"], tuple[str]]:
        return Plan.from_json, (self.to_json(),)  # so that plans can be copied and sent to other processes

    def then(self, other: "Plan") -> "Plan":
        """Compose with a plan for the network this one leads to; the result speaks of the original indices.

        Raises:
            ArchitectureMismatch: ``other`` belongs to another architecture than this plan leads to.
        """
        if other.architecture != self.result:
            raise ArchitectureMismatch(
                "the second plan belongs to another architecture than the first plan leads to; "
                "make it from a trace of the cut model"
            )
        slices = {name: dict(dimensions) for name, dimensions in self.slices.items()}
        for name, dimensions in other.slices.items():
            for dimension, kept in dimensions.items():
                first = slices.setdefault(name, {}).get(dimension, replace(kept, indices=tuple(range(kept.total))))
                indices = tuple(first.indices[index] for index in kept.indices)
                slices[name][dimension] = Kept(first.total, indices, first.blocks)
        paths = dict.fromkeys([*self.attributes, *other.attributes])
        attributes = {path: {**self.attributes.get(path, {}), **other.attributes.get(path, {})} for path in paths}
        both = [name for name in self.costs if name in other.costs]
        costs = {name: Cost(self.costs[name].before, other.costs[name].after) for name in both}
        groups = _composed(self.groups, other.groups)
        budgets, notes = self.budgets + other.budgets, self.notes + other.notes
        scales = {
            name: (*self.scales.get(name, ()), *_original(name, found, self)) for name, found in other.scales.items()
        }
        scales = {**self.scales, **scales}
        return Plan(self.architecture, other.result, groups, slices, attributes, costs, budgets, notes, scales)

    def to_json(self) -> str:
        """Return the plan as JSON text with a format version; equal index lists are written once."""
        pool: dict[tuple[int, ...], int] = {}
        slices = {
            name: {
                str(dimension): [kept.total, pool.setdefault(kept.indices, len(pool)), kept.blocks]
                for dimension, kept in dimensions.items()
            }
            for name, dimensions in self.slices.items()
        }
        groups = [
            {
                "name": group.name,
                "layers": group.layers,
                "total": group.total,
                "kept": pool.setdefault(group.kept, len(pool)),
                "macs": [group.macs.before, group.macs.after],
            }
            for group in self.groups
        ]
        document: dict[str, object] = {
            "format": "cutback plan",
            "version": PLAN_VERSION if self.scales else 1,
            "architecture": self.architecture,
            "result": self.result,
            "budgets": self.budgets,
            "notes": self.notes,
            "costs": {name: [cost.before, cost.after] for name, cost in self.costs.items()},
            "groups": groups,
            "slices": slices,
            "attributes": {path: dict(values) for path, values in self.attributes.items()},
        }
        if self.scales:
            document["scales"] = {
                name: [[s.dimension, pool.setdefault(s.indices, len(pool)), s.factor] for s in found]
                for name, found in self.scales.items()
            }
        document["indices"] = list(pool)
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read what ``to_json`` wrote.

        Raises:
            CorruptFile: the text is not a whole plan.
            UnsupportedVersion: it was written in a newer format.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise CorruptFile(f"the plan is not readable JSON ({error}); the file is truncated or damaged") from error
        if not isinstance(document, dict) or document.get("format") != "cutback plan":
            raise CorruptFile("this JSON is not a cutback plan; pass a file written by cutback")
        version = document.get("version")
        if isinstance(version, int) and version > PLAN_VERSION:
            raise UnsupportedVersion(
                f"the plan has format version {version}, this cutback reads up to {PLAN_VERSION}; upgrade cutback"
            )
        try:
            if type(version) is not int or version < 1:
                raise ValueError(f"its format version is {version!r}")
            pool = [tuple(int(index) for index in indices) for indices in document["indices"]]
            groups = tuple(
                PlannedGroup(g["name"], tuple(g["layers"]), int(g["total"]), pool[g["kept"]], _cost(g["macs"]))
                for g in document["groups"]
            )
            slices = {
                name: {
                    int(dimension): Kept(int(total), pool[number], *map(int, blocks))
                    for dimension, (total, number, *blocks) in found.items()
                }
                for name, found in document["slices"].items()
            }
            attributes = {
                path: {name: _width(value) for name, value in values.items()}
                for path, values in document["attributes"].items()
            }
            costs = {name: _cost(pair) for name, pair in document["costs"].items()}
            budgets, notes = tuple(document["budgets"]), tuple(document["notes"])
            architecture, result = (bytes.fromhex(document[name]).hex() for name in ("architecture", "result"))
            scales = {
                name: tuple(Scaled(int(d), pool[number], _factor(factor)) for d, number, factor in found)
                for name, found in (document["scales"] if version > 1 else {}).items()
            }
            return cls(architecture, result, groups, slices, attributes, costs, budgets, notes, scales)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise CorruptFile(f"the plan lacks or garbles a part ({type(error).__name__}: {error})") from error

    def __str__(self) -> str:
        changed = [group for group in self.groups if len(group.kept) < group.total]
        width = max([5, *(len(group.name) for group in changed)])
        lines = [f"{'group':<{width}}  {'kept/total':>11}  {'MACs before':>15}  {'after':>15}  layers"]
        for group in changed:
            layers = ", ".join(group.layers[:3]) + (f" and {len(group.layers) - 3} more" if group.layers[3:] else "")
            share = f"{len(group.kept)}/{group.total}"
            macs = f"{group.macs.before:>15,}  {group.macs.after:>15,}"
            lines.append(f"{group.name:<{width}}  {share:>11}  {macs}  {layers}")
        if len(changed) < len(self.groups):
            lines.append(f"{len(self.groups) - len(changed)} groups stay whole")
        for name, cost in self.costs.items():
            figures = f"{shown(name, cost.before)} -> {shown(name, cost.after)}"
            lines.append(f"{name}: {figures} ({cost.after / max(cost.before, 1):.1%})")
        return "\n".join([*lines, *self.notes])


def _width(value: object) -> Width:
    """Read a width attribute's value."""
    if isinstance(value, list):
        return tuple(int(size) for size in value)
    if type(value) is not int:
        raise ValueError(f"a width is {value!r}")
    return value


def _factor(value: object) -> float:
    """Read a factor."""
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"a factor is {value!r}")
    return value


def _original(name: str, found: Sequence[Scaled], first: Plan) -> tuple[Scaled, ...]:
    """Return what a second plan multiplies in the indices before the first."""
    kept = first.slices.get(name, {})
    return tuple(
        Scaled(s.dimension, tuple(kept[s.dimension].indices[i] for i in s.indices), s.factor)
        if s.dimension in kept
        else s
        for s in found
    )


def _cost(pair: Sequence[int]) -> Cost:
    """Read a cost as it stands in JSON."""
    before, after = pair
    return Cost(int(before), int(after))


def _composed(first: tuple[PlannedGroup, ...], second: tuple[PlannedGroup, ...]) -> tuple[PlannedGroup, ...]:
    """Compose two plans' groups: those of the same layers and width, whatever their names.

    A name may pass to another group (``conv#2`` becomes ``conv`` once ``conv`` is down to one unit, no group any more).
    """
    later = list(second)
    composed: list[PlannedGroup] = []
    for group in first:
        after = next((g for g in later if (g.layers, g.total) == (group.layers, len(group.kept))), None)
        if after is None or len(group.kept) == 1:
            composed.append(group)
            continue
        later.remove(after)
        kept = tuple(group.kept[unit] for unit in after.kept)
        macs = Cost(group.macs.before, after.macs.after)
        composed.append(PlannedGroup(group.name, group.layers, group.total, kept, macs))
    return tuple(composed)
