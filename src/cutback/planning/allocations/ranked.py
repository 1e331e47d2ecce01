"""The lowest scores first, wherever they are."""

from collections.abc import Sequence

from cutback.planning.allocation import Allocation, Task, allocations, by_key, mean_lost


@allocations.register("global")
class Global(Allocation):
    """The lowest scores of the network first, the scores of each group divided by their mean."""

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps that lose the least mean score first."""
        return by_key([mean_lost(choice, normalised=True) for choice in task.choices])


@allocations.register("global-raw")
class GlobalRaw(Allocation):
    """The lowest scores of the network first, as they are (Network Slimming, Liu 2017: one threshold on all)."""

    def order(self, task: Task) -> Sequence[int]:
        """Return the steps that lose the least mean score first."""
        return by_key([mean_lost(choice, normalised=False) for choice in task.choices])
