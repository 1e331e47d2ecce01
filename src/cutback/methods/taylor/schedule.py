"""When units are removed, how many, and what they are compared by."""

from dataclasses import dataclass

from cutback.errors import UserMistake
from cutback.methods.taylor.cost import COSTS


@dataclass(frozen=True)
class Schedule:
    """The numbers of a run.

    Attributes:
        minibatches: so many minibatches are averaged before each removal.
        units: so many units go at each.
        removals: how many removals there are; ``None`` where a budget says when to stop.
        momentum: share of the earlier scores in the smoothed ones.
        group_size: units of a layer go in blocks of so many.
        mu: what is taken off a unit's score for each MAC or millisecond that it costs.
        regularise: ``macs`` or ``latency``.
        cut_every: the network is cut after so many removals; 0: after the last alone.
    """

    minibatches: int
    units: int
    removals: int | None
    momentum: float
    group_size: int
    mu: float
    regularise: str
    cut_every: int

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UserMistake: says which setting is to be written otherwise.
        """
        least = {"minibatches": 1, "units": 1, "group_size": 1, "cut_every": 0}
        if self.removals is not None:
            least["removals"] = 1
        for name, lowest in least.items():
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise UserMistake(f"{name}={value!r} must be a whole number of at least {lowest}")
        if self.group_size > self.units:
            raise UserMistake(
                f"units={self.units} is less than a block of group_size={self.group_size}; let at least one block go "
                "at each removal"
            )
        if not 0 <= self.momentum < 1:
            raise UserMistake(f"momentum={self.momentum!r} must be at least 0 and below 1; published is 0.9")
        if not 0 <= self.mu < float("inf"):
            raise UserMistake(f"mu={self.mu!r} must be 0 or more; 0 ranks by importance alone")
        if self.regularise not in COSTS:
            raise UserMistake(f"regularise={self.regularise!r} is none of {', '.join(COSTS)}")

    @property
    def target(self) -> float:
        """How many units go in all; infinite where a budget says when to stop."""
        return float("inf") if self.removals is None else self.units * self.removals
