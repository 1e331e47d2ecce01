"""What a trace has found, as text and as one JSON document."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from cutback.graph.graph import Graph, Group
from cutback.graph.labels import Boundary
from cutback.planning.cost import CostModel

MAKING = ("filter", "depthwise")
"""Roles of the slices that make channels."""
MOST_NAMES = 4


@dataclass(frozen=True)
class Row:
    """One group as the report shows it.

    Attributes:
        name: its name.
        units: how many units it has, the least that can go.
        channels: how many channels these are in its first layer.
        balance: which blocks must lose equally many, in words; empty where units may go freely.
        macs: MACs (batch 1) spent in the layers that make its channels.
        share: the share of all MACs that these are, in 0..1.
        layers: paths of the layers that make its channels.
    """

    name: str
    units: int
    channels: int
    balance: str
    macs: int
    share: float
    layers: tuple[str, ...]


def rows(graph: Graph) -> list[Row]:
    """Return one row a group, in the order of the graph."""
    if not graph.groups:
        return []
    cost = CostModel(graph)
    everything = np.array([group.units for group in graph.groups])
    total, spent = cost.dense("macs"), cost.macs_by_weight(everything)
    found: list[Row] = []
    for group in graph.groups:
        making = {slot: indices for slot, indices in group.slices.items() if slot.role in MAKING}
        # A layer whose channels fall into several groups counts in each with its part.
        macs = sum(spent[slot.state] * indices.size / graph.slots[slot].group.size for slot, indices in making.items())
        channels = next(iter(making.values())).size if making else group.units
        share = macs / total if total else 0.0
        found.append(Row(group.name, group.units, channels, group.balance, round(macs), share, group.layers))
    return found


def document(graph: Graph) -> dict[str, object]:
    """Return everything for JSON: groups, layers that stay, boundaries."""
    return {
        "groups": [
            {**asdict(row), "slices": _slices(group)} for row, group in zip(rows(graph), graph.groups, strict=True)
        ],
        "kept": [
            {
                "layer": kept.layer,
                "channels": kept.channels,
                "total": kept.total,
                "reasons": [_boundary(reason) for reason in kept.reasons],
            }
            for kept in graph.kept
        ],
        "boundaries": [_boundary(boundary) for boundary in graph.boundaries],
        "unreached": graph.unreached,
        "train_failure": graph.train_failure,
    }


def text(graph: Graph) -> str:
    """Return the same as tables."""
    groups = [
        (row.name, _counted(row), f"{row.share:.1%}", row.balance or "-", _shortened(row.layers)) for row in rows(graph)
    ]
    parts = [_table(("group", "channels", "MACs", "balance", "layers"), groups, right=(1, 2))]
    kept = [
        (
            layer.layer,
            str(layer.channels) if layer.channels == layer.total else f"{layer.channels}/{layer.total}",
            str(layer.reasons[0]),
        )
        for layer in graph.kept
    ]
    if kept:
        parts.append(_table(("kept", "stay", "why"), kept, right=(1,)))
    boundaries = [
        (boundary.operator, places, boundary.source or "-", boundary.reason)
        for boundary, places in _places(graph.boundaries)
    ]
    if boundaries:
        parts.append(_table(("boundary", "module", "source", "reason"), boundaries))
    if graph.unreached:
        parts.append(f"parameters no forward pass has used: {_shortened(graph.unreached)}")
    if graph.train_failure:
        parts.append(f"not captured in train mode: {graph.train_failure}")
    return "\n\n".join(parts)


def _places(boundaries: Sequence[Boundary]) -> list[tuple[Boundary, str]]:
    """Return boundaries that differ in more than their module, each with its modules."""
    places: dict[Boundary, list[str]] = {}
    for boundary in boundaries:
        places.setdefault(replace(boundary, path=""), []).append(boundary.path or "(model)")
    return [(boundary, _shortened(paths)) for boundary, paths in places.items()]


def _slices(group: Group) -> list[dict[str, object]]:
    """Return what a group slices: parameters and buffers with the dimension, and what a slice of each is."""
    return [{"state": slot.state, "dimension": slot.dimension, "role": slot.role} for slot in group.slices]


def _boundary(boundary: Boundary) -> dict[str, str]:
    return {
        "module": boundary.path,
        "operator": boundary.operator,
        "source": boundary.source,
        "reason": boundary.reason,
    }


def _counted(row: Row) -> str:
    """Return the number of channels, and by how many they go where that is not one."""
    return str(row.channels) if row.channels == row.units else f"{row.channels} by {row.channels / row.units:g}"


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _table(titles: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Lay out cells under titles; the last column is as wide as it likes."""
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join(line(row) for row in (titles, *cells))
