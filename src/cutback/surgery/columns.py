"""What a cut has made of groups and of the columns of weights: whose they were, and where those that stay lie now."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.graph.graph import Graph, Group
from cutback.planning.plan import Plan


@dataclass(frozen=True, eq=False)
class Columns:
    """The input channels of a convolution's or a linear layer's weight, before and after a cut.

    Attributes:
        state: name of the weight, ``(outputs, inputs, ...)``.
        group: number of the group each input belonged to, -1 for none, ``(inputs before,)``.
        unit: number of the unit in it, ``(inputs before,)``.
        kept: which inputs stay, in the order they have now, ``(inputs after,)``.
        rows: which outputs stay, in the order they have now; ``None`` for all.
    """

    state: str
    group: NDArray[np.int64]
    unit: NDArray[np.int64]
    kept: NDArray[np.int64]
    rows: NDArray[np.int64] | None = None

    def of_dense(self, weight: Tensor) -> Tensor:
        """Return the weight as it was before the cut without the outputs that are gone."""
        return weight if self.rows is None else weight[torch.tensor(self.rows, device=weight.device)]

    def before(self, group: int, unit: int) -> NDArray[np.int64]:
        """Return the places of a unit's inputs before the cut."""
        return np.flatnonzero((self.group == group) & (self.unit == unit))

    def after(self, group: int, unit: int) -> NDArray[np.int64]:
        """Return the places of a unit's inputs after the cut, in the same order; none where it is gone."""
        now = {int(column): place for place, column in enumerate(self.kept)}
        return np.array([now[c] for c in self.before(group, unit).tolist() if c in now], dtype=np.int64)


def columns_cut(graph: Graph, plan: Plan) -> tuple[dict[str, Columns], dict[str, str]]:
    """Return the weights that lose inputs, by name, and those that cannot be told apart by input, with the reason.

    Args:
        graph: the traced model before the cut.
        plan: the plan of the cut.
    """
    found: dict[str, Columns] = {}
    skipped: dict[str, str] = {}
    for slot, owners in graph.slots.items():
        dimensions: Mapping[int, object] = plan.slices.get(slot.state, {})
        if not slot.consumes or slot.role == "depthwise" or slot.dimension not in dimensions:
            continue
        if slot.blocks > 1:
            skipped[slot.state] = "its groups of channels have inputs of their own"
        elif slot.dimension != 1 or slot.role != "column":
            skipped[slot.state] = "it is no convolution or linear layer"
        else:
            rows = plan.slices[slot.state].get(0)
            kept = plan.slices[slot.state][1].array
            found[slot.state] = Columns(
                slot.state, owners.group, owners.unit, kept, None if rows is None else rows.array
            )
    return {name: columns for name, columns in found.items() if name not in skipped}, skipped


def followed(before: Graph, after: Graph, plan: Plan) -> dict[str, tuple[str, list[int]]]:
    """Return what groups have become: the name of each now, and which of its units each of its units was.

    Groups that a cut has made part of another, or has left with a single channel, are none any more and left out.

    Args:
        before: the traced model before the cut.
        after: the model after it, traced.
        plan: the plan of the cut.
    """
    found: dict[str, tuple[str, list[int]]] = {}
    for number, (group, planned) in enumerate(zip(before.groups, plan.groups, strict=True)):
        for now in after.groups:
            units = _units_before(before, number, now, plan)
            if sorted(units) == sorted(planned.kept):
                found[group.name] = now.name, units
                break
    return found


def _units_before(before: Graph, number: int, now: Group, plan: Plan) -> list[int]:
    """Return which unit of a group each unit of a group of the cut network was; nothing where it is another's."""
    for slot, indices in now.slices.items():
        owners = before.slots.get(slot)
        if owners is None or slot.blocks > 1:
            continue
        kept = plan.slices.get(slot.state, {}).get(slot.dimension)
        places = indices[:, 0] if kept is None else kept.array[indices[:, 0]]
        if (owners.group[places] == number).all():
            return owners.unit[places].tolist()
    return []
