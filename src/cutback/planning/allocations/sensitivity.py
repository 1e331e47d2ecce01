"""Equal loss of accuracy in every group, by the curves of a sensitivity scan."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.errors import UserMistake
from cutback.planning.allocation import Allocation, Task, allocations, by_key, shares_left
from cutback.planning.select import Choice
from cutback.planning.sensitivity import Sensitivity


@allocations.register("sensitivity")
class SensitivityGuided(Allocation):
    """As much of each group as loses the same accuracy when it alone is pruned (Li 2016, section 3.2).

    Args:
        sensitivity: the curves; needed.

    Raises:
        UserMistake: there are no curves.
    """

    def __init__(self, sensitivity: Sensitivity | None = None) -> None:
        if sensitivity is None:
            raise UserMistake(
                "allocate='sensitivity' needs the curves of a scan; pass them: "
                "allocate=cutback.Sensitivity.from_json(text)"
            )
        self.sensitivity = sensitivity

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps that lose the least accuracy first; of equal ones those of the largest share left."""
        return by_key(
            [self._losses(task, choice) for choice in task.choices],
            [-shares_left(choice) for choice in task.choices],
        )

    def _losses(self, task: Task, choice: Choice) -> NDArray[np.float64]:
        """Return the accuracy lost after each step: of several groups that of the one that loses most."""
        if len(choice.counts) == 1:
            return np.empty(0)
        losses = np.zeros(len(choice.counts) - 1)
        owner = np.array([cell.group for cell in choice.cells])
        for number in np.unique(owner).tolist():
            group = task.graph.groups[number]
            left = choice.counts[1:, owner == number].sum(axis=1) / group.units
            if left.min() == 1:  # it stays whole, so that a scan has no curve of it
                continue
            losses = np.maximum(losses, [self.sensitivity.loss(group.name, 1 - share) for share in left.tolist()])
        return losses
