"""When what happens: sparse training, masked training, the cut, tuning, and again for each pass."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["sparse", "masked", "tuned", "over"]


@dataclass(frozen=True)
class Phases:
    """The steps of a run.

    Attributes:
        sparse: steps with the penalty, in each pass.
        masked: steps with masks after those.
        tuned: steps without either between two passes, after the cut.
        passes: how many passes.

    Example:
        >>> phases = Phases(sparse=2, masked=1, tuned=1, passes=2)
        >>> [phases.of(step) for step in range(7)]
        ['sparse', 'sparse', 'masked', 'tuned', 'sparse', 'sparse', 'masked']
        >>> phases.total, phases.of(7)
        (7, 'over')
    """

    sparse: int
    masked: int
    tuned: int
    passes: int

    @property
    def total(self) -> int:
        """Steps until the last cut."""
        return self.passes * self._period - self.tuned

    @property
    def _period(self) -> int:
        return self.sparse + self.masked + self.tuned

    def of(self, step: int) -> Phase:
        """Return the phase of a step, the first being 0."""
        if step >= self.total:
            return "over"
        within = step % self._period
        return "sparse" if within < self.sparse else "masked" if within < self.sparse + self.masked else "tuned"

    def done(self, step: int) -> float:
        """Return which share of the pass's sparse training lies before a step."""
        return step % self._period / self.sparse

    def chooses_after(self, step: int) -> bool:
        """Whether it is settled after a step what goes."""
        return step < self.total and step % self._period == self.sparse - 1

    def cuts_after(self, step: int) -> bool:
        """Whether the model is cut after a step."""
        return step < self.total and step % self._period == self.sparse + self.masked - 1

    def begins_anew_after(self, step: int) -> bool:
        """Whether another pass begins after a step."""
        return step < self.total - 1 and step % self._period == self._period - 1
