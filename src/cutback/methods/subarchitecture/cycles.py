"""When a search draws new weights, when it has settled, and how the penalty follows a budget."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cycles:
    """The steps of a search, in cycles of equal length; what is left over belongs to the last one.

    Attributes:
        steps: of the whole search.
        count: how many cycles, at most ``steps``.

    Example:
        >>> cycles = Cycles(steps=7, count=3)
        >>> [step for step in range(1, 8) if cycles.ends_after(step)]
        [2, 4, 7]
    """

    steps: int
    count: int

    def ends_after(self, step: int) -> bool:
        """Whether a cycle ends with a step, the first being 1."""
        length = self.steps // self.count
        return step == self.steps or (step % length == 0 and step // length < self.count)


def controlled(strength: float, excess: float, control: float) -> float:
    """Return the penalty's next strength: ``strength * exp(control * excess)``.

    Args:
        strength: the present one.
        excess: by which share the present architecture is over the budget; below zero if it is under it.
        control: how quickly the strength follows.

    Example:
        >>> round(controlled(0.05, 0.6, 0.5), 5)
        0.06749
    """
    return strength * math.exp(control * excess)
