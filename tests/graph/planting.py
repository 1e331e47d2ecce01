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
    slices = {name: dict(dimensions) for name, dimensions in plan.slices.items()}
    slices[slot.state][slot.dimension] = Kept(kept.total, (*kept.indices[:-1], removed))
    return dataclasses.replace(plan, slices=slices)
