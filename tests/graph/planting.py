"""Wrong plans, planted for the proof to find."""

import dataclasses

from cutback.graph.graph import Graph
from cutback.planning.plan import Kept, Plan


def wrong_column(graph: Graph, plan: Plan) -> Plan | None:
    """Return a plan with one consumer column replaced by a removed one; ``None`` where no column is cut."""
    columns = [s for s in graph.slots if s.role == "column" and s.dimension in plan.slices.get(s.state, {})]
    if not columns:
        return None
    slot = columns[len(columns) * 2 // 3]
    kept = plan.slices[slot.state][slot.dimension]
    removed = next(index for index in range(kept.total) if index not in kept.indices)
    # The column of a constant may be the column of zeros, whose weights do not matter: a unit's own is replaced.
    gone = next(index for index in reversed(kept.indices) if graph.slots[slot].group[index] >= 0)
    slices = {name: dict(dimensions) for name, dimensions in plan.slices.items()}
    wrong = tuple(removed if index == gone else index for index in kept.indices)
    slices[slot.state][slot.dimension] = Kept(kept.total, wrong)
    return dataclasses.replace(plan, slices=slices)
