"""Where a plan's multiplied slices show among the results of a captured graph."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from cutback.graph.interpret import Labelling
from cutback.graph.scales import Rows
from cutback.planning.plan import Plan, Scaled


def multiplied_results(labelling: Labelling, plan: Plan) -> Mapping[int, Sequence[tuple[Tensor, float]]]:
    """Return, for results of a capture, which elements a plan multiplies and by what.

    Args:
        labelling: the capture's labels.
        plan: the plan.
    """
    found: dict[int, dict[tuple[Rows, ...], tuple[Tensor, float]]] = {}
    for compensation in [*labelling.compensations, *labelling.by_number.values()]:
        factor = _factor(compensation.rows, plan)
        for position, shown in compensation.results.items() if factor != 1 else ():
            found.setdefault(position, {}).setdefault(compensation.rows, (shown, factor))
    return {position: list(by_rows.values()) for position, by_rows in found.items()}


def _factor(rows: Sequence[Rows], plan: Plan) -> float:
    """Return by what a plan multiplies rows, as the first of them that stays has it."""
    for name, indices in rows:
        kept = plan.slices.get(name, {}).get(0)
        stays = [index for index in indices if kept is None or index in kept.indices]
        if stays:
            return float(np.prod([scaled.factor for scaled in plan.scales.get(name, ()) if _covers(scaled, stays[0])]))
    return 1.0


def _covers(scaled: Scaled, index: int) -> bool:
    return scaled.dimension == 0 and index in scaled.indices
