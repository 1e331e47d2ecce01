"""The same share of every group."""

from collections.abc import Sequence

from cutback.planning.allocation import Allocation, Task, allocations, by_key, shares_left


@allocations.register("uniform", "independent")
class Uniform(Allocation):
    """The same share of each group, its lowest scores first; each layer for itself (Li 2016, independent)."""

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps of the largest share left first."""
        return by_key([-shares_left(choice) for choice in task.choices])
